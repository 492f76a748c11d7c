"""watch: a live view beside the writer, which ends cleanly."""

import json
import os
import pty
import re
import signal
import subprocess

import cli
from cli import ERROR, OK, USAGE


class Watch(cli.CliTest):
    def watch(self, *options, **streams):
        streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.start(*options, "watch", "--every", "20ms", **streams)

    def end(self, watching, number):
        watching.send_signal(number)
        _, err = watching.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual((watching.returncode, err), (OK, b""))

    def test_lines_follow_a_live_writer(self):
        holder = self.write_beside()
        for number in (signal.SIGINT, signal.SIGTERM):
            watching = self.watch()
            first = watching.stdout.readline().decode()
            self.assertRegex(first, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S+  in-flight 0  completed \d+  "
                                    r"released 0  appends -  segments 0\+1  log .*  tail .*  "
                                    r"last sweep none\n$")
            before = int(re.search(r"completed (\d+)", first)[1])
            holder.stdin.write(b"another %d\n" % number)
            holder.stdin.flush()
            holder.stdout.readline()
            while f"completed {before + 1} " not in watching.stdout.readline().decode():
                pass
            self.end(watching, number)

    def test_json_has_rates(self):
        holder = self.write_beside()
        watching = self.watch("--json")
        first = json.loads(watching.stdout.readline())
        self.assertIsNone(first["appends_per_second"])
        self.assertEqual(first["completed"], 1)
        holder.stdin.write(self.lines(0, 500))
        holder.stdin.flush()
        rates = []
        look = first
        while look["completed"] < 501:
            look = json.loads(watching.stdout.readline())
            rates.append((look["appends_per_second"], look["log_bytes_per_second"]))
        self.assertGreater(max(appends for appends, _ in rates), 0)
        self.assertGreater(max(size for _, size in rates), 0)
        while look["appends_per_second"] != 0:  # now nobody appends
            look = json.loads(watching.stdout.readline())
        self.end(watching, signal.SIGINT)

    def test_on_a_terminal_it_is_drawn_in_place(self):
        self.dedupctl("claim", "held", expect=OK)
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        watching = self.watch(stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        text = b""
        while text.count(b"last sequence") < 3:
            text += os.read(ours, 65536)
        looks = re.split(rb"\033\[\d+A", text)
        self.assertGreaterEqual(len(looks), 3)
        lines = looks[1].count(b"\n")
        self.assertEqual(looks[0].count(b"\n"), lines)
        self.assertIn(b"\033[%dA" % lines, text, "up to the first line again")
        self.assertRegex(looks[0].decode(), r"  in-flight +(\033\[[0-9;]*m)?1\b")
        watching.send_signal(signal.SIGINT)
        self.assertEqual(watching.wait(cli.HANG_SECONDS), OK)

    def test_it_follows_a_store_that_is_put_in_its_place(self):
        self.dedupctl("remember", "old", expect=OK)
        watching = self.watch("--json")
        self.assertEqual(json.loads(watching.stdout.readline())["completed"], 1)
        self.dedupctl("-s", self.path("new"), "remember", "-", stdin=b"a\nb\n", expect=OK)
        os.rename(self.store, self.path("old"))
        os.rename(self.path("new"), self.store)
        while json.loads(watching.stdout.readline())["completed"] != 2:
            pass
        watching.send_signal(signal.SIGINT)
        self.assertIn(b"another store", watching.communicate(timeout=cli.HANG_SECONDS)[1])

    def test_a_reader_that_goes_away_ends_it(self):
        self.dedupctl("claim", "held", expect=OK)
        watching = self.watch()
        watching.stdout.readline()
        watching.stdout.close()
        self.assertEqual(watching.wait(cli.HANG_SECONDS), ERROR)
        self.assertEqual(watching.stderr.read(), b"")

    def test_a_full_disk_is_an_error(self):
        self.dedupctl("claim", "held", expect=OK)
        with open("/dev/full", "wb") as full:
            watching = self.watch(stdout=full, stderr=subprocess.PIPE)
            _, err = watching.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(watching.returncode, ERROR)
        self.assertIn(b"No space left", err)

    def test_wrong_uses(self):
        self.assertInError(self.store, self.dedupctl("watch", expect=ERROR))
        for every in ("0s", "", "often"):
            self.dedupctl("watch", "--every", every, expect=USAGE)
        self.assertFalse(os.path.exists(self.store))


if __name__ == "__main__":
    cli.main()
