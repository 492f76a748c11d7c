"""What a shell, cron and people at a terminal meet: making stores, options, help, widths."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios

import cli
from cli import ERROR, OK, USAGE


class MakingStores(cli.CliTest):
    def test_a_new_store_is_said_with_its_whole_path(self):
        made = self.dedupctl("-s", "./there", "remember", "k", expect=OK)
        self.assertInError("new one was made at " + self.path("there"), made)
        self.assertEqual(self.dedupctl("-s", "there", "remember", "l", expect=OK).err, b"")
        quiet = self.dedupctl("-q", "-s", "quiet", "remember", "k", expect=OK)
        self.assertEqual(quiet.err, b"")

    def test_must_exist(self):
        environment = dict(self.environment(), DEDUP_MUST_EXIST="1")
        for options in ({"env": environment}, {}):
            arguments = () if options else ("--must-exist",)
            for command in (("remember", "k"), ("claim", "k"), ("filter",),
                            ("exec", "--key", "k", "--", "true"), ("import",)):
                done = self.dedupctl(*arguments, *command, **options)
                self.assertIn(done.code, (ERROR, cli.EXEC_ERROR), done)
                self.assertInError([self.store, "dedupctl init"], done)
        self.assertFalse(os.path.exists(self.store))
        self.dedupctl("init", env=environment, expect=OK)
        self.dedupctl("remember", "k", env=environment, expect=OK)

    def test_an_equals_sign_behind_a_short_option(self):
        self.dedupctl("-s=eq", "-n=ns", "remember", "k", expect=OK)
        self.assertTrue(os.path.isdir(self.path("eq")))
        self.dedupctl("-s", "eq", "-n", "ns", "done", "k", expect=OK)
        self.dedupctl("-s=", "done", "k", expect=USAGE)

    def test_the_environment_stands_for_global_options(self):
        environment = dict(self.environment(), DEDUP_NAMESPACE="ns", DEDUP_JSON="1", DEDUP_UTC="1",
                           DEDUP_LOCK_TIMEOUT="1s")
        done = self.dedupctl("remember", "k", env=environment, expect=OK)
        self.assertEqual(done.json["namespace"], "ns")
        self.dedupctl("-n", "other", "done", "k", env=environment, expect=ERROR)
        for name, value in (("DEDUP_JSON", "maybe"), ("DEDUP_LOCK_TIMEOUT", "1")):
            self.dedupctl("done", "k", env=dict(environment, **{name: value}), expect=USAGE)

    def test_times_have_their_zone(self):
        self.dedupctl("remember", "k", expect=OK)
        zone = dict(self.environment(), TZ="UTC-5:30")
        time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        self.assertRegex(self.dedupctl("lookup", "k", env=zone).error, time + r"\+05:30 \(")
        self.assertRegex(self.dedupctl("--utc", "lookup", "k", env=zone).error, time + r"Z \(")


class Errors(cli.CliTest):
    def test_they_never_go_into_data(self):
        for command in (("filter", "missing"), ("filter", "--no-such"), ("export",),
                        ("export", "no/such/place")):
            done = self.dedupctl("--json", *command, stdin=b"line\n")
            self.assertNotEqual(done.code, OK)
            self.assertEqual(done.out, b"", done)
            self.assertIn("error", json.loads(done.err.splitlines()[-1]), done)

    def test_what_was_meant(self):
        for wrong, meant in ((("clam", "k"), "claim"), (("claim", "k", "--leese", "1s"), "--lease"),
                             (("filter", "--feild=1"), "--field"), (("--sotre", "x"), "--store"),
                             (("help", "clam"), "claim"), (("clam", "--help"), "claim"),
                             (("exec", "--kye", "a", "--", "b"), "--key"),
                             (("resolve", "k", "--calim=3"), "--claim")):
            self.assertInError(f"did you mean '{meant}'", self.dedupctl(*wrong, expect=USAGE))
        self.assertNotIn("did you mean", self.dedupctl("qqqqqq", expect=USAGE).error)


class Help(cli.CliTest):
    def commands(self):
        text = self.dedupctl("--help", expect=OK).text
        return re.findall(r"(?m)^  ([a-z]+) ", text.split("Subcommands:")[1].split("\n\n")[0])

    def test_each_command_says_all_that_is_needed(self):
        self.assertIn("done", self.commands())
        for command in self.commands():
            text = self.dedupctl("help", command, expect=OK).text
            self.assertEqual(text, self.dedupctl(command, "--help", expect=OK).text)
            for part in ("Usage", "--lock-timeout", "DEDUP_STORE", "Exit codes:", "15  busy"):
                self.assertIn(part, text, command)
        self.assertIn("Examples:", self.dedupctl("help", "exec").text)
        self.dedupctl("help", expect=OK)

    def test_completions_and_the_manual_know_all_commands(self):
        for what in ("bash", "zsh", "fish", "man"):
            text = self.dedupctl("generate", what, expect=OK).text
            for command in self.commands():
                self.assertIn(command, text)
        words = self.complete("dedupctl", "claim", "--le")
        self.assertEqual(words, ["--lease"])
        self.assertEqual(self.complete("dedupctl", "-s", "x", "ver"), ["verify"])
        self.assertEqual(self.complete("dedupctl", "ls", "--state", "rel"), ["released"])
        if shutil.which("man"):
            page = self.dedupctl("generate", "man").out
            shown = subprocess.run(["man", "--warnings", "-l", "-"], input=page,
                                   capture_output=True, env=dict(os.environ, MANWIDTH="80"))
            self.assertEqual((shown.returncode, shown.stderr), (0, b""))
            self.assertIn(b"EXIT STATUS", shown.stdout)

    def complete(self, *words):
        script = self.dedupctl("generate", "bash").text + (
            "compopt() { :; }\nCOMP_WORDS=(%s)\nCOMP_CWORD=%d\n_dedupctl\n"
            "printf '%%s\\n' \"${COMPREPLY[@]}\"\n" % (" ".join(words), len(words) - 1))
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True,
                              check=True).stdout.split()


class Terminals(cli.CliTest):
    def on_terminal(self, *command, columns=80, rows=24, stream="stderr", **environment):
        """Starts a command with one stream on a terminal of that size; gives both."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
        running = self.start(*command, env=dict(self.environment(), **environment), **streams)
        os.close(theirs)
        return running, ours

    @staticmethod
    def read_all(terminal):
        text = b""
        try:
            while True:
                text += os.read(terminal, 65536)
        except OSError:  # the other side is closed
            return text

    def shown_by_filter(self, *options, **more):
        with open(self.path("lines"), "wb") as file:
            file.write(self.lines(0, 100_000))
        running, terminal = self.on_terminal("filter", *options, "lines", **more)
        text = self.read_all(terminal)
        self.assertEqual(running.wait(cli.HANG_SECONDS), OK)
        return text

    def test_progress_fits_its_terminal(self):
        text = self.shown_by_filter(columns=30)
        drawn = [part.split(b"\033[K")[0] for part in text.split(b"\r") if b"\033[K" in part]
        self.assertGreater(len(drawn), 1)
        self.assertLessEqual(max(map(len, drawn)), 29)

    def test_no_progress(self):
        for options, environment in ((("-q",), {}), ((), {"TERM": "dumb"})):
            text = self.shown_by_filter(*options, **environment)
            self.assertNotIn(b"\033", text)
            shutil.rmtree(self.store)

    def test_watch_fits_its_terminal(self):
        self.dedupctl("init", expect=OK)
        watching, terminal = self.on_terminal("watch", "--every", "20ms", stream="stdout",
                                              columns=24, rows=6, TERM="xterm", NO_COLOR="1")
        text = b""
        while text.count(b"\033[J") < 3:
            text += os.read(terminal, 65536)
        look = text.split(b"\033[J")[0]
        lines = [line.replace(b"\033[K", b"") for line in look.split(b"\r\n")]
        self.assertLessEqual(len(lines), 6)
        self.assertLessEqual(max(map(len, lines)), 24)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
        while b"last sequence" not in text:
            text += os.read(terminal, 65536)
        self.assertIn(b"\033[2J", text, "what was drawn before is wiped")
        watching.send_signal(signal.SIGINT)
        rest = self.read_all(terminal)
        self.assertTrue(rest.endswith(b"\r\033[K"), rest[-40:])

    def test_watch_on_a_dumb_terminal_prints_lines(self):
        self.dedupctl("init", expect=OK)
        watching, terminal = self.on_terminal("watch", "--every", "20ms", stream="stdout",
                                              TERM="dumb")
        text = b""
        while text.count(b"\n") < 2:
            text += os.read(terminal, 65536)
        self.assertNotIn(b"\033", text)


class Listing(cli.CliTest):
    def test_stuck_claims_and_namespaces(self):
        self.dedupctl("-n", "a", "claim", "stuck", "--lease", "1ms", "--owner", "w", expect=OK)
        self.dedupctl("-n", "b", "claim", "alive", "--lease", "1h", expect=OK)
        self.dedupctl("-n", "b", "remember", "known", expect=OK)
        self.wait_until(lambda: self.dedupctl("-n", "a", "ls", "--stuck").out, "its lease is over")
        self.assertEqual(self.dedupctl("-n", "b", "ls", "--stuck", expect=OK).out, b"")
        [line] = self.dedupctl("ls", "-A", "--stuck", expect=OK).text.splitlines()
        self.assertRegex(line, r"^in-flight +\S+ +1 +(now|.* ago) +in 1d +1  w +a +stuck$")
        listed = self.dedupctl("--json", "ls", "-A", "--sort", "key", expect=OK)
        self.assertEqual([json.loads(line)["key"] for line in listed.out.splitlines()],
                         ["stuck", "alive", "known"])
        counts = [json.loads(line) for line in
                  self.dedupctl("--json", "namespaces", expect=OK).out.splitlines()]
        self.assertEqual([(one["namespace"], one["in_flight"], one["stuck"], one["completed"])
                          for one in counts], [("a", 1, 1, 0), ("b", 1, 0, 1)])
        self.assertEqual(len(self.dedupctl("namespaces", expect=OK).text.splitlines()), 2)

    def test_the_oldest_first(self):
        for key in ("c", "a", "b"):
            self.dedupctl("claim", key, expect=OK)
        def order(*options):
            return [line.split()[-1] for line in
                    self.dedupctl("ls", *options, expect=OK).text.splitlines()]
        self.assertEqual(order("--sort", "age"), ["c", "a", "b"])
        self.assertEqual(order("--sort", "key", "--limit", "2"), ["a", "b"])


class WithoutLibpq(cli.CliTest):
    def environment(self):
        with open(self.path("libpq.so.5"), "wb"):
            pass  # which is no library
        before = os.environ.get("LD_LIBRARY_PATH", "")
        return dict(super().environment(), LD_LIBRARY_PATH=f"{self.dir}:{before}")

    def test_a_store_in_a_directory_needs_none(self):
        self.dedupctl("remember", "k", expect=OK)
        self.dedupctl("done", "k", expect=OK)

    def test_one_in_a_database_says_what_to_install(self):
        done = self.dedupctl("-s", "postgresql://localhost/db", "stats", expect=cli.UNAVAILABLE)
        self.assertInError(["libpq5"], done)


if __name__ == "__main__":
    cli.main()
