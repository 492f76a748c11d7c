"""Two processes at one store: one writes, the other waits or reads."""

import subprocess

import cli
from cli import COMPLETED, ERROR, OK


class Locks(cli.CliTest):
    def test_a_second_writer_names_the_first(self):
        holder = self.hold_store()
        for command in (("claim", "k"), ("complete", "k"), ("release", "k"), ("remember", "k"),
                        ("renew", "k", "--claim", "1", "--lease", "1s"), ("filter",),
                        ("exec", "--key", "k", "--", "true")):
            result = self.dedupctl("--lock-timeout", "10ms", *command, expect=ERROR)
            self.assertInError([self.store, f"process {holder.pid}", "--lock-timeout"], result)
        busy = self.dedupctl("--json", "--lock-timeout", "0s", "claim", "k", expect=ERROR)
        self.assertEqual(busy.json["error"]["code"], "busy")

    def test_a_second_writer_waits_for_the_first(self):
        holder = self.hold_store()
        waiting = self.start("--lock-timeout", "1h", "remember", "k", stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        holder.stdin.close()
        out, err = waiting.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual((waiting.returncode, err), (OK, b""), out)

    def test_a_dead_writer_holds_nothing(self):
        holder = self.hold_store()
        # The next line comes when the last one is remembered.
        holder.stdin.write(b"next\n")
        holder.stdin.flush()
        self.assertEqual(holder.stdout.readline(), b"next\n")
        holder.kill()
        holder.wait()
        self.dedupctl("--lock-timeout", "0s", "remember", "k", expect=OK)
        self.assertEqual(self.dedupctl("lookup", "held", expect=COMPLETED).out, b"")

    def test_readers_work_beside_a_live_writer(self):
        self.dedupctl("remember", "before", "--receipt", "r", expect=OK)
        holder = self.hold_store()
        self.assertEqual(self.dedupctl("lookup", "before", expect=COMPLETED).out, b"r")
        # What the writer has printed before is remembered by the time it prints the next line.
        holder.stdin.write(b"next\n")
        holder.stdin.flush()
        self.assertEqual(holder.stdout.readline(), b"next\n")
        self.dedupctl("lookup", "held", expect=COMPLETED)
        self.dedupctl("inspect", "held", expect=OK)
        listed = self.dedupctl("ls", expect=OK).text
        self.assertIn("before\n", listed)
        self.assertIn("held\n", listed)
        self.assertGreaterEqual(self.dedupctl("--json", "stats", expect=OK).json["streams"], 2)
        self.dedupctl("verify", expect=OK)
        holder.stdin.close()
        self.assertEqual(holder.wait(cli.HANG_SECONDS), OK)

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


if __name__ == "__main__":
    cli.main()
