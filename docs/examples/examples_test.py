"""The examples do what they say, and the README shows code that compiles.

Usage: examples_test.py CLAIM_PROGRAM SOURCE_ROOT
"""

import math
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest

CLAIM, SOURCE_ROOT = sys.argv[1], pathlib.Path(sys.argv[2])


def claim(store, invoice):
    return subprocess.run([CLAIM, store, invoice], capture_output=True, text=True, timeout=60)


class ClaimExample(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="dedup-example-")
        self.addCleanup(directory.cleanup)
        self.store = directory.name + "/store"

    def test_first_run_works_and_second_replays(self):
        first = claim(self.store, "invoice-17")
        self.assertEqual(first.stderr, "")
        self.assertEqual(first.stdout, "sending invoice-17\ncompleted: sent invoice-17\n")
        self.assertEqual(first.returncode, 0)

        second = claim(self.store, "invoice-17")
        self.assertEqual(second.stderr, "")
        self.assertEqual(second.stdout, "replayed: sent invoice-17\n")
        self.assertEqual(second.returncode, 0)

    def test_invoices_are_told_apart(self):
        for invoice in ("a", "b"):
            self.assertIn("sending " + invoice, claim(self.store, invoice).stdout)

    def test_of_many_at_once_one_sends(self):
        runs = [
            subprocess.Popen(
                [CLAIM, self.store, "invoice-18"], stdout=subprocess.PIPE, text=True
            )
            for _ in range(8)
        ]
        printed = [run.communicate(timeout=60)[0] for run in runs]
        self.assertEqual([run.returncode for run in runs], [0] * 8)
        self.assertEqual(sum("sending" in text for text in printed), 1)
        self.assertEqual(sum("replayed" in text for text in printed), 7)

    def test_failed_work_can_be_tried_again_at_once(self):
        # /dev/full makes the work fail.
        with open("/dev/full", "w") as full:
            failed = subprocess.run([CLAIM, self.store, "invoice-19"], stdout=full, timeout=60)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("completed", claim(self.store, "invoice-19").stdout)

    def test_error_names_the_thing(self):
        not_a_store = self.store + "-file"
        pathlib.Path(not_a_store).write_text("no store\n")
        run = claim(not_a_store, "invoice-20")
        self.assertEqual(run.returncode, 1)
        self.assertIn(not_a_store, run.stderr)


class Readme(unittest.TestCase):
    def setUp(self):
        self.text = (SOURCE_ROOT / "README.md").read_text()

    def test_code_is_that_of_the_example(self):
        example = (SOURCE_ROOT / "docs/examples/claim.cpp").read_text()
        blocks = re.findall(r"^```cpp\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)
        self.assertTrue(blocks)
        for block in blocks:
            self.assertIn(textwrap.dedent(block).strip(), textwrap.dedent(example))

    def test_limits_are_those_of_the_headers(self):
        headers = "".join(
            path.read_text() for path in (SOURCE_ROOT / "include/dedup").glob("*.hpp")
        )
        # The row of the table, the constant, and the unit that the table gives it in.
        for row, constant, unit in (
            ("key", "kKeyBytesMax", 1),
            ("namespace", "kNamespaceBytesMax", 1),
            ("receipt", "kReceiptBytesMax", 1024 * 1024),
            ("metadata", "kMetadataBytesMax", 1024),
            ("batch", "kBatchItemsMax", 1),
        ):
            value = re.search(constant + r" = ([0-9'* ]+);", headers)[1].replace("'", "")
            limit = math.prod(int(factor) for factor in value.split("*"))
            shown = re.search(rf"^\| {row} \|(.*)\|$", self.text, re.MULTILINE)[1]
            numbers = [int(n.replace(",", "")) for n in re.findall(r"[0-9][0-9,]*", shown)]
            self.assertEqual(numbers[-1] * unit, limit, row)

    def test_links_lead_somewhere(self):
        for target in re.findall(r"\]\(([^)#]+)\)", self.text):
            self.assertTrue((SOURCE_ROOT / target).exists(), target)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
