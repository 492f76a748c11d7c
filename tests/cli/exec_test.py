"""exec: a command runs once, however often and by whomever it is asked for."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import cli
from cli import (ABSENT, COMPLETED, EXEC_ERROR, HELD, IN_FLIGHT, OK, STALE, TIMEOUT, USAGE)


class Exec(cli.CliTest):
    def exec(self, key, *command, options=(), **more):
        return self.dedupctl("exec", "--key", key, *options, "--", *command, **more)

    def start_exec(self, key, script, *options, **more):
        """A shell script under exec that has said "ready" on its standard output."""
        running = self.start("exec", "--key", key, *options, "--", "sh", "-c",
                             "echo ready; " + script, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, **more)
        self.assertEqual(running.stdout.readline(), b"ready\n")
        return running

    def wait_for_line(self, running, text):
        line = running.stderr.readline()
        while line and text not in line:
            line = running.stderr.readline()
        self.assertIn(text, line)

    def test_runs_once_and_replays(self):
        append = ("sh", "-c", "echo run >> ran; echo out; echo err >&2")
        first = self.exec("k", *append, expect=OK)
        self.assertEqual(first.out, b"out\n")
        self.assertTrue(first.error.endswith("err\n"), first)
        second = self.exec("k", *append, expect=OK)
        self.assertEqual(second.out, b"out\n")
        self.assertInError("duplicate", second)
        with open(self.path("ran")) as ran:
            self.assertEqual(ran.read(), "run\n")
        found = self.dedupctl("--json", "lookup", "k", expect=COMPLETED).json
        self.assertEqual((found["receipt"], json.loads(found["metadata"])), ("out\n", {"exit": 0}))

    def test_a_failure_releases_the_key(self):
        failed = self.exec("k", "sh", "-c", "exit 7", expect=7)
        self.assertInError("status 7; the key is released", failed)
        self.dedupctl("lookup", "k", expect=ABSENT)
        self.exec("k", "true", expect=OK)

    def test_arguments_and_input_reach_the_command_untouched(self):
        arguments = ["[a,b]", "--json", "", "--", "-x", "a b", "claim"]
        done = self.exec("k", "printf", "<%s>", *arguments, expect=OK)
        self.assertEqual(done.out, "".join(f"<{a}>" for a in arguments).encode())
        self.assertEqual(self.exec("in", "cat", stdin=b"\0bytes\xff", expect=OK).out, b"\0bytes\xff")

    def test_commands_that_cannot_be_run(self):
        missing = self.exec("k", "no-such-command-here", expect=127)
        self.assertInError(["no-such-command-here", "released"], missing)
        with open(self.path("plain"), "w") as file:
            file.write("not a program")
        self.exec("k", "./plain", expect=126)
        self.dedupctl("lookup", "k", expect=ABSENT)
        for wrong in (("exec", "--key", "k"), ("exec", "--key", "k", "true"),
                      ("exec", "--key", "k", "--"), ("exec", "--", "true")):
            self.dedupctl(*wrong, expect=USAGE)

    def test_a_command_ended_by_a_signal(self):
        killed = self.exec("k", "sh", "-c", "kill -KILL $$", expect=128 + signal.SIGKILL)
        self.assertInError("signal 9", killed)
        self.dedupctl("lookup", "k", expect=ABSENT)

    def test_signals_are_forwarded(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT,
                       signal.SIGUSR1, signal.SIGUSR2):
            running = self.start_exec(
                "k", f"trap 'echo got; exit 3' {int(number)}; while :; do sleep 0.01; done")
            # The line may come before the trap is set; the shell tells when it is.
            running.send_signal(number)
            out, err = running.communicate(timeout=cli.HANG_SECONDS)
            self.assertIn((running.returncode, out), ((3, b"got\n"), (128 + number, b"")),
                          (number, out, err))
            self.dedupctl("lookup", "k", expect=ABSENT)

    def test_a_command_may_decline_a_signal(self):
        running = self.start(
            "exec", "--key", "k", "--", "sh", "-c",
            "trap 'echo no' TERM; echo ready; while [ ! -e go ]; do sleep 0.01; done",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(running.stdout.readline(), b"ready\n")
        running.send_signal(signal.SIGTERM)
        self.assertEqual(running.stdout.readline(), b"no\n")
        open(self.path("go"), "w").close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), OK)
        self.dedupctl("lookup", "k", expect=COMPLETED)

    def test_ctrl_c_on_a_terminal_arrives_once(self):
        # The terminal sends it to the command itself, which must not get a second one from us.
        script = ("trap 'echo got' INT; echo ready; while [ ! -e go ]; do sleep 0.01; done; "
                  "read line; echo \"read $line\"")
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.dir)
            os.execve(cli.DEDUPCTL, [cli.DEDUPCTL, "-s", self.store, "exec", "--key", "k", "--",
                                     "sh", "-c", script], self.environment())
        self.addCleanup(os.close, terminal)
        seen = b""
        while b"ready" not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        while b"got" not in seen:
            seen += os.read(terminal, 4096)
        open(self.path("go"), "w").close()
        os.write(terminal, b"from the terminal\n")
        try:
            while True:
                seen += os.read(terminal, 4096)
        except OSError:  # the terminal's other side is closed
            pass
        _, status = os.waitpid(pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), OK, seen)
        self.assertEqual(seen.count(b"got"), 1, seen)
        self.assertIn(b"read from the terminal", seen)

    def test_two_at_once_run_it_once(self):
        running = self.start_exec("k", "while [ ! -e go ]; do sleep 0.01; done; echo done")
        other = self.exec("k", "true", expect=IN_FLIGHT)
        self.assertInError("in-flight, claimed by", other)
        # The store is not held meanwhile: other keys can be worked on.
        self.exec("another", "true", expect=OK)
        open(self.path("go"), "w").close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), OK)
        self.assertEqual(self.exec("k", "false", expect=OK).out, b"ready\ndone\n")

    def test_the_lease_is_kept_alive(self):
        running = self.start_exec("k", "while [ ! -e go ]; do sleep 0.01; done",
                                  "--lease", "900ms")
        def renewals():
            return len(self.dedupctl("--json", "inspect", "k").json["records"]) - 1
        self.wait_until(lambda: renewals() >= 4, "the lease was renewed past its first end")
        self.dedupctl("claim", "k", expect=IN_FLIGHT)
        open(self.path("go"), "w").close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), OK)

    def test_a_lost_claim_is_said(self):
        running = self.start_exec("k", "while [ ! -e go ]; do sleep 0.01; done")
        self.dedupctl("release", "k", expect=OK)
        self.dedupctl("remember", "k", "--receipt", "somebody else's", expect=OK)
        open(self.path("go"), "w").close()
        _, err = running.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(running.returncode, STALE, err)
        self.assertIn(b"its claim was lost meanwhile", err)
        self.assertEqual(self.dedupctl("lookup", "k").out, b"somebody else's")

    def test_who_else_has_answered_is_said(self):
        self.dedupctl("init", expect=OK)
        for answer in (("complete", "--receipt", "there"),
                       ("resolve", "--receipt", "there", "--reason", "asked the bank")):
            with self.subTest(answer[0]):
                running = self.start("--json", "exec", "--key", answer[0], "--", "sh", "-c",
                                     "echo ready >&2; while [ ! -e go ]; do sleep 0.01; done; "
                                     "exit 3", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                self.assertEqual(running.stderr.readline(), b"ready\n")
                fence = str(self.dedupctl("--json", "claim", answer[0], expect=IN_FLIGHT)
                            .json["claim_sequence"])
                self.dedupctl("hold", answer[0], "--claim", fence, "--reason", "dead?", expect=OK)
                self.dedupctl(answer[0], answer[0], "--claim", fence, *answer[1:], expect=OK)
                open(self.path("go"), "w").close()
                out, err = running.communicate(timeout=cli.HANG_SECONDS)
                os.unlink(self.path("go"))
                self.assertEqual(running.returncode, 3, err)
                self.assertEqual(json.loads(out)["outcome"], "lost")
                self.assertIn(b"somebody else has answered claim", err)
                self.assertIn(b"inspect", err)

    def test_completing_waits_for_a_process_that_holds_the_store(self):
        running = self.start_exec("k", "while [ ! -e go ]; do sleep 0.01; done")
        holder = self.hold_store()
        open(self.path("go"), "w").close()
        # It says what it waits for; only then is the store let go.
        self.wait_for_line(running, b"waiting to record")
        holder.stdin.close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), OK)
        self.dedupctl("lookup", "k", expect=COMPLETED)

    def test_output_above_the_limit(self):
        command = ("sh", "-c", "echo x >> ran; printf 0123456789; printf abcdef")
        limit = ("--output-limit", "12")
        cut = self.exec("k", *command, options=limit, expect=OK)
        self.assertEqual(cut.out, b"0123456789abcdef", "passed on in full")
        self.assertInError(["16 bytes", "first 12"], cut)
        again = self.exec("k", *command, options=limit, expect=OK)
        self.assertEqual(again.out, b"0123456789ab")
        self.assertInError("wrote 16 bytes", again)
        self.assertEqual(os.path.getsize(self.path("ran")), 2, "it ran once")
        for wrong in ("0", "17MiB", "x", "-1"):
            self.exec("k", "true", options=("--output-limit=" + wrong,), expect=USAGE)

    def test_what_something_else_completed_is_replayed(self):
        # Its metadata may be anything, also what looks like exec's own.
        for number, metadata in enumerate((
                '{"stdout_cut":"yes"}', '{"stdout_cut":true,"stdout_bytes":"x"}', '[1]', '{}',
                '{"stdout_cut":true,"stdout_bytes":-1}', '{"stdout_cut":true}', "not JSON", '"s"')):
            with self.subTest(metadata=metadata):
                key = f"k{number}"
                record = {"namespace": "default", "key": key, "state": "completed",
                          "receipt": "theirs", "metadata": metadata, "timestamp_ms": 1}
                self.dedupctl("import", stdin=json.dumps(record).encode() + b"\n", expect=OK)
                done = self.dedupctl("exec", "--key", key, "--", "false", expect=OK)
                self.assertEqual(done.out, b"theirs")

    def test_output_up_to_the_default_limit_is_kept(self):
        script = "import sys; sys.stdout.buffer.write(b'x' * (1 << 20))"
        self.exec("k", sys.executable, "-c", script, expect=OK)
        self.assertEqual(self.exec("k", "false", expect=OK).out, b"x" * (1 << 20))

    def test_a_background_child_does_not_hold_it_up(self):
        done = self.exec("k", "sh", "-c", "echo out; sleep 1000 2>&- & echo $! > pid", expect=OK)
        self.assertEqual(done.out, b"out\n")
        with open(self.path("pid")) as pid:
            os.kill(int(pid.read()), signal.SIGKILL)

    def test_a_reader_that_goes_away_undoes_nothing(self):
        running = self.start_exec("k", "while [ ! -e go ]; do sleep 0.01; done; echo more")
        running.stdout.close()
        open(self.path("go"), "w").close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), EXEC_ERROR)
        self.assertIn(b"recorded as done", running.stderr.read())
        self.assertEqual(self.exec("k", "false", expect=OK).out, b"ready\nmore\n")

    def test_a_killed_exec_leaves_its_key_to_the_next(self):
        running = self.start_exec("k", "echo $$ > pid; while :; do sleep 0.01; done",
                                  "--lease", "300ms")
        self.wait_until(lambda: os.path.exists(self.path("pid"))
                        and os.path.getsize(self.path("pid")), "the command has its pid told")
        running.kill()
        running.wait()
        with open(self.path("pid")) as pid:
            os.kill(int(pid.read()), signal.SIGKILL)
        self.wait_until(lambda: self.exec("k", "true").code == OK, "the lease has run out")

    def test_a_killed_exec_may_leave_its_key_held(self):
        running = self.start_exec("k", "echo $$ > pid; while :; do sleep 0.01; done",
                                  "--lease", "300ms", "--hold")
        self.wait_until(lambda: os.path.exists(self.path("pid"))
                        and os.path.getsize(self.path("pid")), "the command has its pid told")
        running.kill()
        running.wait()
        with open(self.path("pid")) as pid:
            os.kill(int(pid.read()), signal.SIGKILL)
        self.wait_until(lambda: self.exec("k", "true").code == HELD, "the lease has run out")
        self.assertInError("resolve", self.exec("k", "true", expect=HELD))

    def test_what_fails_too_often_is_held(self):
        limit = ("--attempts-max", "2")
        first = self.exec("k", "sh", "-c", "exit 3", options=limit, expect=3)
        self.assertInError("released", first)
        second = self.exec("k", "sh", "-c", "exit 4", options=limit, expect=4)
        self.assertInError(["last attempt", "dedupctl held"], second)
        self.assertInError("failed with status 4",
                           self.exec("k", "true", options=limit, expect=HELD))
        self.assertInError("--attempts-max", self.exec("k", "true", options=("--attempts-max", "0"),
                                                       expect=USAGE))
        self.dedupctl("claim", "c", "--lease", "1ms", "--attempts-max", "1", expect=OK)
        self.wait_until(lambda: self.dedupctl("claim", "c").code == HELD, "the lease has run out")

    def test_json_puts_the_output_into_the_object(self):
        done = self.exec("k", "printf", "out", options=("--json",), expect=OK).json
        self.assertEqual((done["outcome"], done["exit"], done["receipt"]), ("completed", 0, "out"))
        again = self.exec("k", "false", options=("--json",), expect=OK).json
        self.assertEqual((again["outcome"], again["receipt"]), ("duplicate", "out"))
        failed = self.exec("f", "sh", "-c", "printf o; exit 4", options=("--json",), expect=4).json
        self.assertEqual((failed["outcome"], failed["exit"], failed["output"]),
                         ("released", 4, "o"))

    def test_values_for_the_command(self):
        script = 'echo "$DEDUP_KEY|$DEDUP_CLAIM|$DEDUP_ATTEMPT"'
        environment = dict(self.environment(), DEDUP_KEY="another", DEDUP_CLAIM="0")
        done = self.exec("a key", "sh", "-c", script, expect=OK, env=environment)
        self.assertEqual(done.out, b"a key|1|1\n")

    def without_variables(self):
        return {name: value for name, value in self.environment().items()
                if name not in ("DEDUP_STORE", "DEDUP_NAMESPACE")}

    def test_a_note_of_the_command_is_in_the_store_that_exec_was_told(self):
        # From another directory, and the store is named by a relative path.
        note = (f'mkdir -p elsewhere && cd elsewhere && {cli.DEDUPCTL} -q note "$DEDUP_KEY" '
                '--claim "$DEDUP_CLAIM" "calling the bank" && kill -9 $$')
        plain = {"env": self.without_variables()}
        killed = self.dedupctl("-s", "./store", "-n", "pay", "--json", "exec", "--key", "k", "--",
                               "sh", "-c", note, **plain)
        self.assertEqual(killed.json["outcome"], "held", killed)
        found = self.dedupctl("-n", "pay", "--json", "lookup", "k", expect=IN_FLIGHT).json
        self.assertEqual((found["held"], found["note"]), (True, "calling the bank"))

    def test_a_note_of_the_command_goes_to_the_server_that_exec_was_told(self):
        self.serve()
        note = (f'cd / && {cli.DEDUPCTL} -q note "$DEDUP_KEY" --claim "$DEDUP_CLAIM" noted && '
                'kill -9 $$')
        killed = self.dedupctl("-s", "unix:store.sock", "-n", "pay", "--json", "exec", "--key", "k",
                               "--", "sh", "-c", note, env=self.without_variables())
        self.assertEqual(killed.json["outcome"], "held", killed)

    def test_who_was_there_before_is_told(self):
        script = ('echo "$DEDUP_PREVIOUS_CLAIM|$DEDUP_PREVIOUS_OWNER|$DEDUP_PREVIOUS_BEGAN_MS|'
                  '$DEDUP_PREVIOUS_END|$DEDUP_PREVIOUS_NOTE"')
        nested = dict(self.environment(), DEDUP_PREVIOUS_NOTE="of an exec around this one")
        first = self.exec("first", "sh", "-c", script, expect=OK, env=nested)
        self.assertEqual(first.out, b"||||\n")
        self.assertNotIn("before", first.error)

        def begun(key):
            claim = self.dedupctl("--json", "claim", key, "--owner", "w1", "--lease", "1h",
                                  expect=OK).json["claim_sequence"]
            self.dedupctl("note", key, "--claim", str(claim), "reference 8125", expect=OK)
            began = self.dedupctl("--json", "lookup", key, expect=IN_FLIGHT).json["since_ms"]
            self.dedupctl("release", key, "--claim", str(claim), expect=OK)
            return claim, began

        claim, began = begun("text")
        again = self.exec("text", "sh", "-c", script, expect=OK)
        self.assertEqual(again.text, f"{claim}|w1|{began}|released|reference 8125\n")
        [line] = [line for line in again.error.splitlines() if "before" in line]
        for part in ("by w1", "since 2", "released", "reference 8125"):
            self.assertIn(part, line)
        claim, began = begun("json")
        before = self.exec("json", "true", options=("--json",), expect=OK).json["previous"]
        self.assertEqual((before["claim_sequence"], before["owner"], before["began_ms"],
                          before["end"], before["note"]),
                         (claim, "w1", began, "released", "reference 8125"))
        begun("quiet")
        self.assertEqual(self.exec("quiet", "true", options=("-q",), expect=OK).err, b"")

    def test_what_a_duplicate_does(self):
        self.exec("k", "echo", "out", expect=OK)
        quiet = self.exec("k", "false", options=("--on-duplicate", "quiet"), expect=OK)
        self.assertEqual((quiet.out, quiet.err), (b"", b""))
        fails = self.exec("k", "false", options=("--on-duplicate", "fail"), expect=COMPLETED)
        self.assertEqual(fails.out, b"")
        self.assertInError("not run", fails)
        self.exec("k", "false", options=("--on-duplicate", "other"), expect=USAGE)

    def test_one_that_runs_elsewhere(self):
        running = self.start_exec("k", "while [ ! -e go ]; do sleep 0.01; done; echo done")
        for code in (0, 42):
            self.exec("k", "true", options=("--in-flight-exit", str(code)), expect=code)
        waiting = self.start("exec", "--key", "k", "--wait", "1h", "--", "false",
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        open(self.path("go"), "w").close()
        self.assertEqual(waiting.communicate(timeout=cli.HANG_SECONDS)[0], b"ready\ndone\n")
        self.assertEqual((running.wait(cli.HANG_SECONDS), waiting.returncode), (OK, OK))

    def test_a_timeout_ends_the_command(self):
        done = self.exec("k", "sleep", "1000", options=("--timeout", "100ms"), expect=TIMEOUT)
        self.assertInError("ended after 100ms; the key is released", done)
        self.dedupctl("lookup", "k", expect=ABSENT)
        self.exec("k", "true", options=("--timeout", "1h"), expect=OK)

    def test_what_was_cut_off_at_its_work_is_held(self):
        done = self.exec("a", "sleep", "1000", options=("--timeout", "100ms", "--hold"), expect=TIMEOUT)
        self.assertInError("the key is held", done)
        self.assertInError("resolve", self.exec("a", "true", expect=HELD))
        note = f"{cli.DEDUPCTL} -q note b --claim $DEDUP_CLAIM 'calling the bank' && kill -9 $$"
        done = self.dedupctl("--json", "exec", "--key", "b", "--", "sh", "-c", note)
        self.assertEqual(done.json["outcome"], "held")
        self.exec("b", "true", expect=HELD)
        # A command that says itself that it failed is believed.
        self.exec("c", "false", options=("--hold",), expect=1)
        self.exec("c", "true", options=("--hold",), expect=OK)

    def test_what_a_shell_ran_and_was_cut_off_is_held(self):
        # Guards against a worker that is killed behind its note, of which its shell says 128 + 9.
        note = f"{cli.DEDUPCTL} -q note k --claim $DEDUP_CLAIM 'calling the bank'"
        done = self.exec("k", "sh", "-c", f"{note}; sh -c 'kill -9 $$'; exit $?", expect=128 + 9)
        self.assertInError("the key is held", done)
        self.exec("unnoted", "sh", "-c", "sh -c 'kill -9 $$'; exit $?", expect=128 + 9)
        self.dedupctl("lookup", "unnoted", expect=ABSENT)

    def test_what_was_cut_off_is_recorded_however_long_another_process_writes(self):
        # Guards against a key that is left to whoever comes next, though its command had noted.
        note = f"{cli.DEDUPCTL} -q note k --claim $DEDUP_CLAIM 'calling the bank'"
        running = self.start_exec("k", f"{note}; echo noted; while :; do sleep 0.01; done",
                                  "--lease", "1h", "--lock-timeout", "10ms")
        self.assertEqual(running.stdout.readline(), b"noted\n")
        holder = self.hold_store()
        running.send_signal(signal.SIGTERM)
        self.wait_for_line(running, b"waiting to record")
        holder.stdin.close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), 128 + signal.SIGTERM)
        self.assertIn(b"it may have done its work, so the key is held", running.stderr.read())
        self.exec("k", "true", expect=HELD)

    def test_what_was_cut_off_is_recorded_when_the_server_is_back(self):
        server = self.serve()
        note = f"{cli.DEDUPCTL} -q note k --claim $DEDUP_CLAIM 'calling the bank'"
        running = self.start("-s", "unix:store.sock", "exec", "--key", "k", "--lease", "1h", "--", "sh", "-c",
                             f"{note}; echo noted; while :; do sleep 0.01; done",
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(running.stdout.readline(), b"noted\n")
        server.terminate()
        self.assertEqual(server.wait(cli.HANG_SECONDS), OK)
        running.send_signal(signal.SIGTERM)
        self.wait_for_line(running, b"waiting to record")
        self.serve()
        self.assertEqual(running.wait(cli.HANG_SECONDS), 128 + signal.SIGTERM)
        self.exec("k", "true", expect=HELD)

    def cut_off_unrecorded(self, *options):
        """What exec says of a command that was cut off while the store could not be had."""
        script = "echo $$ > pid; mv pid pid.whole; while :; do sleep 0.01; done"
        running = self.start("--json", "exec", "--key", "k", *options, "--", "sh", "-c", script,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_until(lambda: os.path.exists(self.path("pid.whole")), "it runs")
        holder = self.hold_store()
        with open(self.path("pid.whole")) as pid:
            os.kill(int(pid.read()), signal.SIGKILL)
        self.wait_for_line(running, b"waiting to record")
        while running.poll() is None:  # the first one only warns
            running.send_signal(signal.SIGINT)
            time.sleep(0.05)
        self.assertEqual(running.returncode, 128 + signal.SIGKILL)
        told = json.loads(running.stdout.read())
        self.assertEqual((told["outcome"], told["error"]["code"]), ("in_flight", "busy"))
        self.assertNotIn("dedupctl release", told["error"]["message"])
        self.stop(holder)
        return told

    def pasted(self, text, word):
        [hint] = [line for line in text.splitlines() if word in line]
        command = hint[hint.index("dedupctl -s"):].replace("dedupctl", cli.DEDUPCTL, 1)
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    def test_what_was_cut_off_and_not_recorded_can_be_held_by_hand(self):
        message = self.cut_off_unrecorded("--lease", "1h")["error"]["message"]
        self.assertIn("it may run again once its lease (1h) is over", message)
        self.assertEqual(self.pasted(message, "this holds").returncode, OK, message)
        self.assertInError("ended by signal 9", self.exec("k", "true", expect=HELD))

    def test_what_was_cut_off_under_hold_and_not_recorded_waits_for_a_decision(self):
        for options in (("--hold",), ("--attempts-max", "1")):
            with self.subTest(options):
                told = self.cut_off_unrecorded("--lease", "300ms", *options)
                message = told["error"]["message"]
                self.assertNotIn("may run again", message)
                self.assertIn("the key is held", message)
                self.wait_until(lambda: self.exec("k", "true").code == HELD, "the lease has run out")
                refused = self.pasted(message, "not done:")  # for want of a reason
                self.assertEqual(refused.returncode, USAGE, refused)
                self.dedupctl("resolve", "k", "--claim", str(told["claim_sequence"]), "--not-done",
                              "--reason", "test", expect=OK)
                self.exec("k", "true", expect=OK)
                self.dedupctl("forget", "k", "--reason", "test", expect=OK)
                os.remove(self.path("pid.whole"))

    def test_a_note_counts_for_the_attempt_that_wrote_it(self):
        # A new claim may begin with the note of the one before.
        def killed(key, *noted):
            note = "".join(f"{cli.DEDUPCTL} -q note {key} --claim $DEDUP_CLAIM '{text}'; " for text in noted)
            return self.dedupctl("--json", "exec", "--key", key, "--", "sh", "-c", note + "kill -9 $$").json["outcome"]
        for key, noted, outcome in (("none", (), "released"), ("other", ("b",), "held"), ("same", ("a",), "held")):
            fence = str(self.dedupctl("--json", "claim", key, expect=OK).json["claim_sequence"])
            self.dedupctl("note", key, "--claim", fence, "a", expect=OK)
            self.dedupctl("release", key, "--claim", fence, expect=OK)
            self.assertEqual(killed(key, *noted), outcome, key)

    def test_output_that_is_not_stored(self):
        done = self.exec("k", "echo", "secret", options=("--no-output",), expect=OK)
        self.assertEqual(done.out, b"secret\n")
        self.assertEqual(self.exec("k", "false", expect=OK).out, b"")

    def test_a_second_signal_ends_a_command_that_ignores_the_first(self):
        running = self.start_exec("k", "trap '' TERM; while :; do sleep 0.01; done")
        running.send_signal(signal.SIGTERM)
        while running.poll() is None:
            running.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        self.assertEqual(running.returncode, 128 + signal.SIGTERM)
        self.dedupctl("lookup", "k", expect=ABSENT)

    def test_a_signal_ends_the_wait_for_the_store(self):
        self.hold_store()
        waiting = self.start("--json", "--lock-timeout", "1h", "exec", "--key", "k", "--", "true",
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_until(lambda: signal.SIGTERM in self.caught(waiting), "it listens")
        waiting.send_signal(signal.SIGTERM)
        out, _ = waiting.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(waiting.returncode, 128 + signal.SIGTERM)
        self.assertEqual(json.loads(out)["error"]["code"], "interrupted")

    @staticmethod
    def caught(process):
        with open(f"/proc/{process.pid}/status") as status:
            [mask] = [int(line.split()[1], 16) for line in status if line.startswith("SigCgt")]
        return {number for number in range(1, 65) if mask >> (number - 1) & 1}

    def test_a_success_is_recorded_however_long_another_process_writes(self):
        # The lease and the lock's timeout are over long before the store is let go.
        running = self.start_exec("k", "while [ ! -e go ]; do sleep 0.01; done", "--lease",
                                  "100ms", "--lock-timeout", "10ms")
        holder = self.hold_store()
        open(self.path("go"), "w").close()
        self.wait_for_line(running, b"waiting to record")
        time.sleep(0.3)
        holder.stdin.close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), OK)
        self.dedupctl("lookup", "k", expect=COMPLETED)

    def test_a_success_that_could_not_be_recorded_can_be_by_hand(self):
        running = self.start("--json", "-n", "ns", "exec", "--key", "it's", "--", "sh", "-c",
                             "echo out; while [ ! -e go ]; do touch ready; sleep 0.01; done",
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_until(lambda: os.path.exists(self.path("ready")), "it runs")
        holder = self.hold_store()
        open(self.path("go"), "w").close()
        self.wait_for_line(running, b"waiting to record")
        while running.poll() is None:  # the first one only warns
            running.send_signal(signal.SIGINT)
            time.sleep(0.05)
        self.assertEqual(running.returncode, EXEC_ERROR)
        told = json.loads(running.stdout.read())
        self.assertEqual((told["exit"], told["output"], told["error"]["code"]),
                         (0, "out\n", "busy"))
        holder.stdin.close()
        holder.wait()
        [hint] = [line for line in told["error"]["message"].splitlines() if "this records" in line]
        command = hint.split(": ", 1)[1].replace("dedupctl", cli.DEDUPCTL, 1)
        subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(self.dedupctl("-n", "ns", "lookup", "it's", expect=COMPLETED).out,
                         b"out\n")


if __name__ == "__main__":
    cli.main()
