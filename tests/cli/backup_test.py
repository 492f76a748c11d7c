"""Copies by the command line: one beside a writer, an older one replaced, one put back."""

import os
import signal
import subprocess

from cli import COMPLETED, ERROR, OK, STALE, USAGE, CliTest, main


class Backup(CliTest):
    def test_back_up_and_restore(self):
        self.dedupctl("remember", "one", "--receipt", "first")
        done = self.dedupctl("backup", self.path("copy"), expect=OK)
        self.assertIn("1 key in", done.text)
        self.dedupctl("remember", "two", "--receipt", "second")
        lost = self.dedupctl("claim", "three", "--json").json["claim_sequence"]
        again = self.dedupctl("backup", self.path("copy"), "--json", expect=OK).json
        self.assertEqual((again["keys"], again["target"]), (3, self.path("copy")))
        self.assertEqual(self.dedupctl("-s", self.path("copy"), "lookup", "two", expect=COMPLETED).text,
                         "second")

        self.dedupctl("complete", "three", "--claim", str(lost), "--receipt", "late")
        late = self.dedupctl("claim", "four", "--json").json["claim_sequence"]
        back = self.path("back")
        restored = self.dedupctl("-s", back, "restore", self.path("copy"), expect=OK)
        self.assertIn("3 keys", restored.text)
        self.assertIn("runs again", restored.error)
        # The claim that the copy knows holds; the one from after it is dead.
        self.dedupctl("-s", back, "complete", "four", "--claim", str(late), "--receipt", "x", expect=STALE)
        self.dedupctl("-s", back, "complete", "three", "--claim", str(lost), "--receipt", "x", expect=OK)
        fresh = self.dedupctl("-s", back, "claim", "four", "--json").json["claim_sequence"]
        self.assertGreater(fresh, late + 1_000_000)

    def test_as_it_was(self):
        self.dedupctl("remember", "one", "--receipt", "first")
        self.dedupctl("backup", self.path("copy"), expect=OK)
        both = self.dedupctl("-s", self.path("back"), "restore", self.path("copy"), "--raise",
                           "--as-it-was", expect=USAGE)
        self.assertIn("exclude", both.error)
        told = self.dedupctl("-s", self.path("back"), "restore", self.path("copy"),
                           "--as-it-was", "--json", expect=OK).json
        self.assertEqual((told["next_sequence"], told["raised"]), (2, False))

    def test_what_is_in_the_way_stays(self):
        self.dedupctl("remember", "one", "--receipt", "first")
        os.mkdir(self.path("letters"))
        self.dedupctl("backup", self.path("letters"), expect=ERROR)
        self.dedupctl("backup", self.path("copy"), expect=OK)
        there = self.dedupctl("restore", self.path("copy"), expect=ERROR)
        self.assertIn("nothing is replaced", there.error)
        self.assertEqual(self.dedupctl("lookup", "one", expect=COMPLETED).text, "first")
        none = self.dedupctl("-s", self.path("none"), "backup", self.path("copy"), expect=ERROR)
        self.assertIn("there is no store", none.error)
        self.assertFalse(os.path.exists(self.path("none")))
        database = self.dedupctl("-s", "postgresql://nobody@localhost/none", "backup",
                               self.path("copy"), expect=USAGE)
        self.assertIn("own tools", database.error)

    def test_killed_in_the_middle(self):
        lines = "".join(f"key-{i}\n" for i in range(50_000))
        self.dedupctl("remember", "-", "--receipt", "done", stdin=lines.encode(), expect=OK)
        self.dedupctl("backup", self.path("copy"), expect=OK)
        self.dedupctl("remember", "late", "--receipt", "later")
        for _ in range(5):
            process = self.start("backup", self.path("copy"), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            while process.poll() is None and not os.path.exists(self.path("copy.partial")):
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.dedupctl("-s", self.path("copy"), "verify", expect=OK)
        self.dedupctl("backup", self.path("copy"), expect=OK)
        self.assertFalse(os.path.exists(self.path("copy.partial")))
        self.assertEqual(self.dedupctl("-s", self.path("copy"), "lookup", "late", expect=COMPLETED).text,
                         "later")


if __name__ == "__main__":
    main()
