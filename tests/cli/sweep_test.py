"""sweep: what has expired goes, and people are told exactly what went."""

import json
import os
import signal
import subprocess

import cli
from cli import BUSY, COMPLETED, ERROR, OK, USAGE


class Sweep(cli.CliTest):
    def claim_and_let_expire(self, *keys, owner="worker-3"):
        for key in keys:
            self.dedupctl("claim", key, "--ttl", "1ms", "--owner", owner, expect=OK)
        self.wait_until(lambda: self.expired() >= set(keys), "the claims have expired")

    def expired(self):
        listed = self.dedupctl("ls", "--state", "expired", expect=OK).text
        return {line.split()[-1] for line in listed.splitlines()}

    def sweep_json(self, *options):
        return self.dedupctl("--json", "sweep", *options, expect=OK).json

    def history(self):
        lines = self.dedupctl("--json", "sweep", "--history", expect=OK).out.splitlines()
        return [json.loads(line) for line in lines]

    def test_report_is_a_table(self):
        self.claim_and_let_expire("old", "older")
        self.dedupctl("remember", "young", expect=OK)
        text = self.dedupctl("sweep", expect=OK).text
        self.assertRegex(text, r"(?m)^swept as of +\d{4}-\d\d-\d\d ")
        self.assertRegex(
            text, r"(?m)^removed +2 streams: 2 in-flight, 0 completed, 0 released$")
        self.assertRegex(
            text, r"(?m)^retained +1 stream: 0 in-flight, 1 completed, 0 released$")
        self.assertRegex(text, r"(?m)^next expiry +.*\(in (1d|23h59m|24h)\)$")
        self.assertRegex(text, r"(?m)^NAMESPACE +IN-FLIGHT +COMPLETED +RELEASED +RETAINED$")
        self.assertRegex(text, r"(?m)^default +2 +0 +0 +1$")
        unanswered = text.split("without an answer:\n")[1].splitlines()
        self.assertEqual([line.split()[0] for line in unanswered], ["CLAIM", "1", "2"])
        self.assertEqual([line.split()[-1] for line in unanswered], ["KEY", "old", "older"])
        self.assertIn("worker-3", unanswered[1])
        self.assertNotIn("evicted", text)
        self.assertNotIn("not finished", text)
        self.assertNotIn("\033", text, "colour and bar only on a terminal")

    def test_report_as_json(self):
        self.claim_and_let_expire("old")
        self.dedupctl("-n", "other", "remember", "young", expect=OK)
        report = self.sweep_json()
        self.assertEqual(report["removed"], {"in_flight": 1, "completed": 0, "released": 0})
        self.assertEqual(report["retained"], {"in_flight": 0, "completed": 1, "released": 0})
        self.assertEqual(report["namespaces"], [
            {"namespace": "default",
             "removed": {"in_flight": 1, "completed": 0, "released": 0},
             "retained": {"in_flight": 0, "completed": 0, "released": 0}}])
        [claim] = report["unanswered"]
        self.assertEqual((claim["namespace"], claim["key"], claim["key_base64"], claim["owner"],
                          claim["claim_sequence"]),
                         ("default", "old", cli.b64(b"old"), "worker-3", 1))
        self.assertEqual(claim["expired_at_ms"], claim["claimed_at_ms"] + 1)
        self.assertEqual((claim["attempt"], claim["event_id"], claim["note"]), (1, "", ""))
        self.assertEqual((report["dry_run"], report["finished"], report["interrupted"],
                          report["evicted"]), (False, True, False, 0))
        self.assertGreater(report["next_expiry_ms"], report["now_ms"])
        for name in ("segments_scanned", "segments_dropped", "segments_compacted",
                     "records_scanned", "records_dropped", "records_moved", "bytes_before",
                     "bytes_after", "bytes_reclaimed", "longest_pause_us", "duration_us"):
            self.assertGreaterEqual(report[name], 0)

    def test_nothing_to_do(self):
        self.dedupctl("claim", "k", "--ttl", "never", expect=OK)
        report = self.sweep_json()
        self.assertEqual(sum(report["removed"].values()), 0)
        self.assertIsNone(report["next_expiry_ms"])
        self.assertEqual(self.dedupctl("sweep", "--history", expect=OK).out, b"")
        self.assertRegex(self.dedupctl("sweep", expect=OK).text, r"(?m)^next expiry +never$")

    def test_a_swept_key_is_new_again(self):
        self.claim_and_let_expire("k")
        self.sweep_json()
        self.assertEqual(self.dedupctl("ls", expect=OK).out, b"")
        again = self.dedupctl("--json", "claim", "k", expect=OK).json
        self.assertGreater(again["claim_sequence"], 1)
        self.assertEqual(again["attempt"], 1)
        self.dedupctl("complete", "k", "--claim", "1", expect=cli.STALE)

    def test_a_dry_run_says_the_same_and_changes_nothing(self):
        self.claim_and_let_expire("a", "b")
        said = self.sweep_json("--dry-run")
        self.assertTrue(said["dry_run"])
        self.assertEqual(self.expired(), {"a", "b"})
        self.assertEqual(self.history(), [])
        self.assertRegex(self.dedupctl("sweep", "--dry-run", expect=OK).text,
                         r"(?m)^would remove +2 streams: ")
        done = self.sweep_json()
        for name in ("removed", "retained", "namespaces", "unanswered", "next_expiry_ms"):
            self.assertEqual(done[name], said[name], name)

    def test_a_dry_run_and_the_history_take_no_lock(self):
        self.claim_and_let_expire("a")
        holder = self.hold_store()
        self.assertEqual(self.sweep_json("--dry-run")["removed"]["in_flight"], 1)
        self.assertEqual(self.history(), [])
        busy = self.dedupctl("--lock-timeout", "10ms", "sweep", expect=BUSY)
        self.assertInError([self.store, f"process {holder.pid}", "--lock-timeout"], busy)

    def test_history_lists_past_sweeps_newest_first(self):
        self.claim_and_let_expire("a", "b")
        first = self.sweep_json()
        self.claim_and_let_expire("c")
        second = self.sweep_json()
        listed = self.history()
        self.assertEqual([report["now_ms"] for report in listed],
                         [second["now_ms"], first["now_ms"]])
        self.assertEqual([report["removed"]["in_flight"] for report in listed], [1, 2])
        self.assertEqual(listed[1]["unanswered"], first["unanswered"])
        self.assertGreater(min(report["duration_us"] for report in listed), 0)
        lines = self.dedupctl("sweep", "--history", expect=OK).text.splitlines()
        self.assertEqual(len(lines), 2, "one a line, and titles on a terminal only")
        self.assertEqual([line.split()[2:4] for line in lines], [["1", "1"], ["2", "2"]])

    def test_many_lines_are_new_again_after_a_sweep(self):
        lines = self.lines(0, 30_000)
        self.dedupctl("filter", "--ttl", "1ms", stdin=lines, expect=OK)
        self.wait_until(lambda: self.sweep_json("--dry-run")["removed"]["completed"] == 30_000,
                        "all lines have expired")
        report = self.sweep_json("--max-time", "1h")
        self.assertEqual(report["removed"]["completed"], 30_000)
        self.assertEqual(report["unanswered"], [])
        self.assertEqual(self.dedupctl("--json", "stats", expect=OK).json["streams"], 0)
        self.dedupctl("verify", expect=OK)
        self.assertEqual(self.dedupctl("filter", stdin=lines, expect=OK).out, lines)
        self.assertEqual(self.dedupctl("filter", stdin=lines, expect=OK).out, b"")
        self.dedupctl("verify", expect=OK)

    def test_stats_say_what_the_next_sweep_removes_and_when_the_last_one_was(self):
        self.dedupctl("remember", "young", expect=OK)
        stats = self.dedupctl("--json", "stats", expect=OK).json
        self.assertEqual((stats["next_sweep"]["streams"], stats["evicted"],
                          stats["last_sweep_ms"]), (0, 0, None))
        self.assertRegex(self.dedupctl("stats", expect=OK).text, r"(?m)^last sweep +none$")
        self.claim_and_let_expire("a", "b")
        stats = self.dedupctl("--json", "stats", expect=OK).json
        self.assertEqual(stats["next_sweep"]["streams"], 2)
        self.assertGreaterEqual(stats["next_sweep"]["bytes"], 0)
        self.assertRegex(self.dedupctl("stats", expect=OK).text,
                         r"(?m)^next sweep +2 streams, ")
        report = self.sweep_json()
        stats = self.dedupctl("--json", "stats", expect=OK).json
        self.assertEqual(stats["next_sweep"]["streams"], 0)
        self.assertEqual(stats["last_sweep_ms"], report["now_ms"])
        self.assertNotIn("sweep_error", stats)
        text = self.dedupctl("stats", expect=OK).text
        self.assertRegex(text, r"(?m)^last sweep +\d{4}-")
        self.assertRegex(text, r"(?m)^evicted +0$")

    def start_every(self, *options):
        return self.start(*options, "sweep", "--every", "10ms", stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)

    def test_every_keeps_sweeping_lets_others_write_and_ends_cleanly(self):
        self.dedupctl("remember", "young", expect=OK)
        for number in (signal.SIGINT, signal.SIGTERM):
            sweeping = self.start_every("--json")
            self.assertEqual(sum(json.loads(sweeping.stdout.readline())["removed"].values()), 0)
            self.dedupctl("--lock-timeout", "1h", "claim", "k", "--ttl", "1ms", expect=OK)
            removed = 0
            while removed == 0:
                report = json.loads(sweeping.stdout.readline())
                removed = report["removed"]["in_flight"]
            self.assertEqual(removed, 1)
            sweeping.send_signal(number)
            _, err = sweeping.communicate(timeout=cli.HANG_SECONDS)
            self.assertEqual((sweeping.returncode, err), (OK, b""))
            self.assertIn(report["now_ms"], [past["now_ms"] for past in self.history()])
        self.dedupctl("verify", expect=OK)

    def test_every_prints_a_line_a_sweep(self):
        self.dedupctl("remember", "young", expect=OK)
        sweeping = self.start_every()
        for _ in range(3):
            self.assertRegex(sweeping.stdout.readline().decode(),
                             r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S+ +0 +0 +0 +1 ")
        sweeping.send_signal(signal.SIGTERM)
        sweeping.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(sweeping.returncode, OK)

    def test_every_tries_again_after_an_error(self):
        self.dedupctl("remember", "young", expect=OK)
        sweeping = self.start_every("--lock-timeout", "1ms")
        self.assertNotEqual(sweeping.stdout.readline(), b"")
        # The holder itself waits for a moment between two sweeps.
        holder = self.start("--lock-timeout", "1h", "filter", stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        holder.stdin.write(b"held\n")
        holder.stdin.flush()
        self.assertEqual(holder.stdout.readline(), b"held\n")
        self.assertIn(f"process {holder.pid}", sweeping.stderr.readline().decode())
        holder.stdin.close()
        self.assertEqual(holder.wait(cli.HANG_SECONDS), OK)
        # Reports go on; two streams are there now.
        while sweeping.stdout.readline().split()[5] != b"2":
            pass
        sweeping.send_signal(signal.SIGTERM)
        sweeping.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(sweeping.returncode, OK)

    def test_a_signal_ends_the_wait_for_another_writer(self):
        self.hold_store()
        waiting = self.start("--lock-timeout", "1h", "sweep", stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        waiting.send_signal(signal.SIGTERM)
        out, _ = waiting.communicate(timeout=cli.HANG_SECONDS)
        # By the default action if it comes before the command has begun.
        self.assertIn(waiting.returncode, (128 + signal.SIGTERM, -signal.SIGTERM))
        self.assertEqual(out, b"")

    def test_a_sweep_creates_no_store(self):
        for options in ((), ("--dry-run",), ("--history",), ("--every", "1s")):
            self.assertInError(self.store, self.dedupctl("sweep", *options, expect=ERROR))
        self.assertFalse(os.path.exists(self.store))

    def test_compacting_leaves_one_record_a_key(self):
        keys = [f"key-{number}" for number in range(50)]
        for key in keys[:25]:
            self.dedupctl("claim", key, expect=OK)
            self.dedupctl("complete", key, "--receipt", "r-" + key, expect=OK)
        plan = self.sweep_json("--compact", "--dry-run")
        self.assertTrue(plan["dry_run"])
        report = self.sweep_json("--compact")
        self.assertEqual((report["removed"]["completed"], report["retained"]["completed"]), (0, 25))
        self.assertLess(report["bytes_after"], report["bytes_before"])
        stats = self.dedupctl("--json", "stats", expect=OK).json
        self.assertEqual(stats["records"], 25)
        for key in keys[:25]:
            self.assertEqual(self.dedupctl("lookup", key, expect=COMPLETED).out,
                             ("r-" + key).encode())

    def test_options_that_make_no_sense(self):
        for options in (("--history", "--dry-run"), ("--history", "--every", "1s"),
                        ("--history", "--compact"),
                        ("--history", "--max-time", "1s"), ("--dry-run", "--every", "1s"),
                        ("--every", "0s"), ("--every", "10"), ("--every", ""),
                        ("--max-time", "soon"), ("--max-time", "never"), ("extra",)):
            self.dedupctl("sweep", *options, expect=USAGE)
        self.assertFalse(os.path.exists(self.store))

    def test_completed_keys_that_live_are_still_duplicates(self):
        self.dedupctl("remember", "k", "--receipt", "r", expect=OK)
        self.claim_and_let_expire("old")
        self.sweep_json()
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"r")


if __name__ == "__main__":
    cli.main()
