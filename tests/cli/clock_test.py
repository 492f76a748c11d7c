"""A clock that is wrong once: nothing is lost by it, and there is a way back."""

import os
import signal
import subprocess

import cli
from cli import ABSENT, BUSY, COMPLETED, ERROR, IN_FLIGHT, OK, USAGE

AHEAD = r"(?m)^dedupctl: warning: the store's time, .* ahead of the system's"


class Clock(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.ahead = self.path("ahead")
        self.shim = dict(self.environment(), LD_PRELOAD=os.environ["CLOCK_SHIM"],
                         CLOCK_AHEAD=self.ahead)

    def set_clock(self, days):
        with open(self.ahead + ".new", "w") as file:
            file.write(str(int(days * 86_400)))
        os.replace(self.ahead + ".new", self.ahead)

    def run_ahead(self, days, *arguments, **options):
        self.set_clock(days)
        return self.dedupctl(*arguments, env=self.shim, **options)

    def test_a_sweep_by_a_wrong_clock_removes_nothing_and_says_what_to_do(self):
        self.dedupctl("claim", "k", "--ttl", "30d", expect=OK)
        for command in (["sweep"], ["sweep", "--dry-run"]):
            swept = self.run_ahead(3650, *command, expect=OK)
            self.assertRegex(swept.text, r"(?m)^(would remove|removed) +0 streams")
            self.assertRegex(swept.text, r"(?m)^withheld +the clock jumped forward by 3650d")
            self.assertInError(["nothing that has expired", "dedupctl sweep --trust-clock",
                                "dedupctl clock --reset"], swept)
        report = self.run_ahead(3650, "--json", "sweep", expect=OK).json
        self.assertEqual(sum(report["removed"].values()), 0)
        self.assertEqual(report["withheld"]["until_ms"],
                         report["withheld"]["since_ms"] + 86_400_000)
        self.assertIn("--trust-clock", report["withheld"]["hint"])

        # The clock is right again, and so is the store once somebody says so.
        self.set_clock(0)
        self.dedupctl("lookup", "k", expect=ABSENT)
        self.dedupctl("clock", "--reset", expect=OK)
        self.dedupctl("lookup", "k", expect=IN_FLIGHT)
        self.assertIsNone(self.dedupctl("--json", "sweep", expect=OK).json["withheld"])

    def test_a_write_behind_the_jump_does_not_hide_it(self):
        self.dedupctl("remember", "k", "--ttl", "1h", expect=OK)
        self.run_ahead(7, "remember", "later", "--ttl", "1h", expect=OK)
        self.assertIsNotNone(self.run_ahead(7, "--json", "sweep", expect=OK).json["withheld"])

    def test_who_uses_a_store_once_a_week_trusts_the_clock(self):
        self.dedupctl("remember", "k", "--ttl", "1h", expect=OK)
        swept = self.run_ahead(7, "--json", "sweep", "--trust-clock", expect=OK)
        self.assertEqual(swept.json["removed"]["completed"], 1)
        self.assertIsNone(swept.json["withheld"])
        self.assertEqual(swept.error, "")

    def test_a_day_without_a_jump_is_enough(self):
        self.dedupctl("remember", "k", "--ttl", "1h", expect=OK)
        self.run_ahead(7, "sweep", expect=OK)
        self.run_ahead(7.9, "sweep", expect=OK)
        swept = self.run_ahead(8.1, "--json", "sweep", expect=OK)
        self.assertEqual(swept.json["removed"]["completed"], 1)

    def test_sweep_every_withholds_too(self):
        self.dedupctl("claim", "k", "--ttl", "30d", expect=OK)
        self.set_clock(0)
        sweeping = self.start("sweep", "--every", "10ms", stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.shim)
        self.assertNotEqual(sweeping.stdout.readline(), b"")
        self.set_clock(3650)
        for _ in range(3):
            self.assertRegex(sweeping.stderr.readline().decode(),
                             r"^dedupctl: nothing that has expired was removed: the clock jumped")
        sweeping.send_signal(signal.SIGTERM)
        out, _ = sweeping.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(sweeping.returncode, OK)
        self.assertIn("withheld: see `dedupctl clock`", out.decode())
        self.assertIn("k", self.dedupctl("ls", expect=OK).text)

    def test_what_writes_stats_and_verify_warn_while_the_time_is_ahead(self):
        self.dedupctl("claim", "k", expect=OK)
        self.run_ahead(0.01, "claim", "ahead", expect=OK)
        self.set_clock(0)
        for command in (["claim", "a"], ["remember", "b"], ["release", "a"], ["stats"],
                        ["verify"], ["sweep"]):
            self.assertRegex(self.dedupctl(*command, expect=OK).error, AHEAD)
        self.dedupctl("clock", "--reset", expect=OK)
        for command in (["claim", "c"], ["stats"], ["verify"]):
            self.assertEqual(self.dedupctl(*command, expect=OK).error, "")

    def test_clock_shows_both_times_and_the_jumps(self):
        self.dedupctl("claim", "k", expect=OK)
        right = self.dedupctl("clock", expect=OK).text
        self.assertRegex(right, r"(?m)^store's time +\d{4}-")
        self.assertRegex(right, r"(?m)^system's time +\d{4}-")
        self.assertNotIn("jumped", right)
        self.run_ahead(3650, "claim", "during", expect=OK)
        text = self.dedupctl("clock", expect=OK).text
        self.assertRegex(text, r"(?m)^ahead +(3649d23h|3650d)")
        self.assertRegex(text, r"(?m)^clock jumped +from .* by 3650d")
        self.assertIn("dedupctl clock --reset", text)
        shown = self.dedupctl("--json", "clock", expect=OK).json
        self.assertEqual(len(shown["jumps"]), 1)
        self.assertGreater(shown["ahead_ms"], 3649 * 86_400_000)
        self.assertFalse(shown["jumps"][0]["settled"])

    def test_a_reset_is_the_way_out(self):
        self.dedupctl("claim", "order-1", "--ttl", "30d", expect=OK)
        self.dedupctl("complete", "order-1", "--receipt", "paid", expect=OK)
        self.run_ahead(3650, "claim", "during", "--lease", "1ms", expect=OK)
        self.run_ahead(3650, "remember", "done", "--receipt", "r", expect=OK)
        self.dedupctl("lookup", "order-1", expect=ABSENT)
        reset = self.dedupctl("--json", "clock", "--reset", expect=OK).json
        self.assertTrue(reset["reset"])
        self.dedupctl("lookup", "order-1", expect=COMPLETED)
        self.dedupctl("lookup", "done", expect=COMPLETED)
        # Leases run out again.
        self.wait_until(lambda: self.dedupctl("claim", "during", "--lease", "1ms").code == OK,
                        "the lease has run out")
        stats = self.dedupctl("--json", "stats", expect=OK).json
        self.assertEqual(stats["clock"]["resets"][0]["from_ms"], reset["from_ms"])
        self.assertRegex(self.dedupctl("stats", expect=OK).text, r"(?m)^clock reset +from ")
        self.assertRegex(self.dedupctl("verify", expect=OK).text, "no problem found")
        again = self.dedupctl("clock", "--reset", expect=OK).text
        self.assertIn("not ahead", again)

    def test_a_reset_needs_the_lock_and_a_store(self):
        self.assertInError(self.store, self.dedupctl("clock", "--reset", expect=ERROR))
        self.assertInError(self.store, self.dedupctl("clock", expect=ERROR))
        self.assertFalse(os.path.exists(self.store))
        holder = self.hold_store()
        busy = self.dedupctl("--lock-timeout", "10ms", "clock", "--reset", expect=BUSY)
        self.assertInError([f"process {holder.pid}"], busy)
        self.dedupctl("clock", "--reset", "extra", expect=USAGE)


if __name__ == "__main__":
    cli.main()
