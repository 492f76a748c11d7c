"""Two processes at one store: one writes, the other waits or reads."""

import json
import os
import signal
import subprocess

import cli
from cli import BUSY, COMPLETED, ERROR, OK


def has_open(process, name):
    """Whether the process has such a file open."""
    files = f"/proc/{process.pid}/fd"
    for file in os.listdir(files):
        try:
            if os.readlink(f"{files}/{file}").endswith(name):
                return True
        except FileNotFoundError:  # closed meanwhile
            pass
    return False


class Locks(cli.CliTest):
    def test_a_second_writer_names_the_first(self):
        holder = self.hold_store()
        for command in (("claim", "k"), ("complete", "k"), ("release", "k"), ("remember", "k"),
                        ("renew", "k", "--claim", "1", "--lease", "1s"), ("filter",),
                        ("exec", "--key", "k", "--", "true")):
            result = self.dedupctl("--lock-timeout", "10ms", *command, expect=BUSY)
            self.assertInError([self.store, f"process {holder.pid}", "--lock-timeout"], result)
        busy = self.dedupctl("--json", "--lock-timeout", "0s", "claim", "k", expect=BUSY)
        self.assertEqual(busy.json["error"]["code"], "busy")

    def test_a_second_writer_waits_for_the_first(self):
        holder = self.hold_store()
        waiting = self.start("--lock-timeout", "1h", "remember", "k", stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        holder.stdin.close()
        out, err = waiting.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual((waiting.returncode, err), (OK, b""), out)

    def test_a_store_that_is_exchanged_while_it_is_waited_for(self):
        self.dedupctl("-s", self.path("new"), "init", expect=OK)
        holder = self.hold_store()
        waiting = self.start("--lock-timeout", "1h", "remember", "k", stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        self.wait_until(lambda: has_open(waiting, "LOCK"), "it waits")
        os.rename(self.store, self.path("old"))
        os.rename(self.path("new"), self.store)
        holder.stdin.close()
        _, err = waiting.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(waiting.returncode, ERROR, err)
        self.assertIn(b"was moved or replaced while it was being opened; open it again", err)
        self.dedupctl("--lock-timeout", "0s", "remember", "k", expect=OK)

    def test_a_lock_file_that_says_nonsense(self):
        holder = self.hold_store()
        with open(os.path.join(self.store, "LOCK"), "w", encoding="ascii") as file:
            file.write(f"{holder.pid}\nsince 99999999999999999\nhost h\n")
        self.assertInError(self.store, self.dedupctl("--lock-timeout", "0s", "claim", "k",
                                                     expect=BUSY))
        self.dedupctl("who", expect=OK)

    def test_a_dead_writer_holds_nothing(self):
        holder = self.hold_store()
        holder.kill()
        holder.wait()
        self.dedupctl("--lock-timeout", "0s", "remember", "k", expect=OK)
        self.assertEqual(self.dedupctl("lookup", "held", expect=COMPLETED).out, b"")

    def test_readers_work_beside_a_live_writer(self):
        self.dedupctl("remember", "before", "--receipt", "r", expect=OK)
        holder = self.write_beside()
        self.assertEqual(self.dedupctl("lookup", "before", expect=COMPLETED).out, b"r")
        self.write_line(holder, b"next\n")
        self.dedupctl("inspect", "first", expect=OK)
        listed = self.dedupctl("ls", expect=OK).text
        for key in ("before", "first", "next"):
            self.assertIn(key + "\n", listed)
        self.assertEqual(self.dedupctl("--json", "stats", expect=OK).json["streams"], 3)
        self.dedupctl("verify", expect=OK)
        holder.stdin.close()
        self.assertEqual(holder.wait(cli.HANG_SECONDS), OK)

    def test_since_when_is_told_as_other_times_are(self):
        server = self.start("serve", "--no-unix", "--tcp", "127.0.0.1:0", stderr=subprocess.PIPE)
        while b"listening" not in server.stderr.readline():
            pass
        there = dict(self.environment(), TZ="XYZ-9")
        for globals_, zone in (((), r"\+09:00"), (("--utc",), "Z")):
            told = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d" + zone + r" \(([0-9hms]+ ago|now)\)"
            self.assertRegex(self.dedupctl(*globals_, "who", expect=OK, env=there).text, told)
            busy = self.dedupctl(*globals_, "--lock-timeout", "0s", "claim", "k", expect=BUSY, env=there)
            self.assertRegex(busy.error, told)

    def test_who_holds_the_store(self):
        self.assertInError(self.store, self.dedupctl("who", expect=ERROR))
        self.dedupctl("init", expect=OK)
        self.assertEqual(self.dedupctl("who", expect=OK).text, "nobody\n")
        self.assertIsNone(self.dedupctl("--json", "who", expect=OK).json["writer"])
        holder = self.hold_store()
        self.assertIn(f"process {holder.pid}", self.dedupctl("who", expect=OK).text)
        self.assertEqual(self.dedupctl("--json", "who", expect=OK).json["writer"]["pid"],
                         holder.pid)

    def test_readers_keep_up_with_a_busy_writer(self):
        with open(self.path("lines"), "wb") as file:
            file.write(self.lines(0, 300_000))
        writer = self.start("filter", "lines", stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
        self.wait_until(lambda: self.dedupctl("stats").code == OK, "the store is there")
        last = 0
        while writer.poll() is None:
            now = self.dedupctl("--json", "stats", expect=OK).json["streams"]
            self.assertGreaterEqual(now, last)
            last = now
        self.assertEqual(writer.returncode, OK)
        self.assertEqual(self.dedupctl("--json", "stats", expect=OK).json["streams"], 300_000)

    def test_racing_processes_have_one_winner(self):
        racers = [self.start("--json", "--lock-timeout", "1h", "claim", "k",
                             stdout=subprocess.PIPE) for _ in range(8)]
        codes = [racer.wait(cli.HANG_SECONDS) for racer in racers]
        self.assertEqual(sorted(codes), [OK] + [cli.IN_FLIGHT] * 7)


    def test_those_who_wait_come_in_the_order_in_which_they_came(self):
        holder = self.hold_store()
        waiting = []
        for number in range(6):
            waiting.append(self.start("--json", "--lock-timeout", "1h", "claim", f"k{number}",
                                      stdout=subprocess.PIPE))
            # The queue is of locks on the file; each of them is one line.
            self.wait_until(lambda: self.in_queue() == number + 1, "it waits")
        holder.stdin.close()
        fences = [json.loads(one.communicate(timeout=cli.HANG_SECONDS)[0])["claim_sequence"]
                  for one in waiting]
        self.assertEqual(fences, sorted(fences))

    def in_queue(self):
        inode = os.stat(os.path.join(self.store, "LOCK")).st_ino
        with open("/proc/locks") as locks:
            return sum(f":{inode} " in line and "OFDLCK" in line for line in locks)

    def test_one_who_is_stopped_in_the_queue_holds_up_nobody(self):
        holder = self.hold_store()
        stopped = self.start("--lock-timeout", "1h", "claim", "a", stdout=subprocess.DEVNULL)
        self.wait_until(lambda: self.in_queue() == 1, "it waits")
        stopped.send_signal(signal.SIGSTOP)
        other = self.start("--lock-timeout", "1h", "claim", "b", stdout=subprocess.DEVNULL)
        self.wait_until(lambda: self.in_queue() == 2, "the other waits")
        holder.stdin.close()
        self.assertEqual(other.wait(cli.HANG_SECONDS), OK)

    def test_nobody_overtakes_those_who_wait(self):
        """As one would that closes the store and opens it again at once, again and again."""
        holder = self.hold_store()
        first = self.start("--lock-timeout", "1h", "claim", "a", stdout=subprocess.DEVNULL)
        self.wait_until(lambda: self.in_queue() == 1, "it waits")
        first.send_signal(signal.SIGSTOP)  # or it would have the lock before the next one looks
        holder.stdin.close()
        holder.wait(cli.HANG_SECONDS)
        second = self.start("--lock-timeout", "1h", "claim", "b", stdout=subprocess.DEVNULL)
        self.wait_until(lambda: self.in_queue() == 2, "the lock is free, and it waits all the same")
        first.send_signal(signal.SIGCONT)
        for one in (first, second):
            self.assertEqual(one.wait(cli.HANG_SECONDS), OK)

    def test_hundreds_at_once_are_all_served(self):
        many = int(os.environ.get("CLI_CROWD", "40"))
        crowd = [self.start("remember", f"k{number}", stdout=subprocess.DEVNULL)
                 for number in range(many)]
        self.assertEqual({one.wait(cli.HANG_SECONDS) for one in crowd}, {OK})
        self.assertEqual(self.dedupctl("--json", "stats", expect=OK).json["completed"], many)


if __name__ == "__main__":
    cli.main()
