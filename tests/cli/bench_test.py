"""bench: prints its rows and leaves nothing behind. How fast is no matter here."""

import os
import signal
import subprocess

import cli
from cli import OK


class Bench(cli.CliTest):
    def scratch(self):
        return [name for name in os.listdir(self.dir) if name.startswith("dedup-bench-")]

    def test_rows_and_ratios(self):
        result = self.dedupctl("bench", "--json", "--keys", "2000", "--seconds", "1",
                               "--rounds", "1", expect=OK).json
        rows = {row["name"]: row for row in result["rows"]}
        for group in (1, 16, 64, 256, 1024):
            self.assertGreater(rows[f"claims_group_{group}"]["ratio_to_disk"], 0)
        for name in ("claims_threads_64", "lookups_threads_1", "lookups_threads_2"):
            self.assertGreater(rows[name]["per_second"], 0)
        self.assertGreater(result["disk_flushes_per_second"], 0)
        self.assertEqual(self.scratch(), [])
        self.assertFalse(os.path.exists(self.store), "the store itself is not touched")

    def test_ctrl_c_removes_the_scratch_store(self):
        running = self.start("bench", "--keys", "1000", stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        self.assertIn(b"loading", running.stderr.readline())
        self.assertEqual(len(self.scratch()), 1)
        running.send_signal(signal.SIGINT)
        self.assertEqual(running.wait(cli.HANG_SECONDS), 130)
        self.assertEqual(self.scratch(), [])


if __name__ == "__main__":
    cli.main()
