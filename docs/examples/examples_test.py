"""The examples do what they say, and the README shows code that compiles.

Usage: examples_test.py PROGRAM_DIR SOURCE_ROOT LIBRARY
"""

import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAMS, SOURCE_ROOT = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
LIBRARY = pathlib.Path(sys.argv[3]) if sys.argv[3] else None  # None: only its own programs load it
HERE = pathlib.Path(__file__).resolve().parent
DEDUPCTL = os.environ.get("DEDUPCTL", "")
# For examples in Python.
os.environ["PYTHONPATH"] = str(SOURCE_ROOT / "lib/python")
os.environ["DEDUP_LIBRARY"] = str(LIBRARY)
needs_library = unittest.skipIf(LIBRARY is None, "the library has a sanitizer")


class Example(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="dedup-example-")
        self.addCleanup(directory.cleanup)
        self.store = directory.name + "/store"

    def run_example(self, name, *arguments, **options):
        """What the example prints; it has to end well and complain of nothing."""
        run = subprocess.run(
            [PROGRAMS / ("example_" + name), self.store, *arguments],
            capture_output=True, text=True, timeout=60, **options
        )
        self.assertEqual((run.stderr, run.returncode), ("", 0), run.stdout)
        return run.stdout


class ClaimExample(Example):
    command = [PROGRAMS / "example_claim"]

    def place(self):
        """The store, as dedupctl is told of it."""
        return self.store

    @classmethod
    def place_for_program(cls):
        directory = tempfile.TemporaryDirectory(prefix="dedup-example-")
        cls.addClassCleanup(directory.cleanup)
        return directory.name

    def claim(self, invoice, store=None):
        return subprocess.run([*self.command, store or self.store, invoice], capture_output=True,
                              text=True, timeout=60)

    def test_first_run_works_and_second_replays(self):
        first = self.claim("invoice-17")
        self.assertEqual(first.stderr, "")
        self.assertEqual(first.stdout, "sending invoice-17\ncompleted: sent invoice-17\n")
        self.assertEqual(first.returncode, 0)

        second = self.claim("invoice-17")
        self.assertEqual(second.stderr, "")
        self.assertEqual(second.stdout, "replayed: sent invoice-17\n")
        self.assertEqual(second.returncode, 0)

    def test_invoices_are_told_apart(self):
        for invoice in ("a", "b"):
            self.assertIn("sending " + invoice, self.claim(invoice).stdout)

    def test_of_many_at_once_one_sends(self):
        runs = [
            subprocess.Popen(
                [*self.command, self.store, "invoice-18"], stdout=subprocess.PIPE, text=True
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
            failed = subprocess.run([*self.command, self.store, "invoice-19"], stdout=full,
                                    timeout=60)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("completed", self.claim("invoice-19").stdout)

    def test_a_wrong_usage_says_the_right_one(self):
        run = subprocess.run(self.command, capture_output=True, text=True, timeout=60)
        self.assertEqual((run.stdout, run.returncode), ("", 2))
        self.assertIn("usage: claim", run.stderr)

    @unittest.skipUnless(DEDUPCTL, "needs dedupctl")
    def test_what_nobody_answered_waits_for_a_decision(self):
        for namespace in ("default", "invoices"):  # the one in C++ has a namespace of its own
            subprocess.run([DEDUPCTL, "-s", self.place(), "-n", namespace, "claim", "invoice-21",
                            "--hold", "--lease", "1ms"],
                           check=True, capture_output=True, timeout=60)
        deadline = time.monotonic() + 60
        while (run := self.claim("invoice-21")).returncode == 10 and time.monotonic() < deadline:
            pass  # its lease still runs
        self.assertEqual((run.stdout, run.returncode), ("", 17))
        self.assertIn("invoice-21", run.stderr)
        self.assertIn("see `dedupctl held`", run.stderr)

    def test_error_names_the_thing(self):
        not_a_store = self.store + "-file"
        pathlib.Path(not_a_store).write_text("no store\n")
        run = self.claim("invoice-20", not_a_store)
        self.assertEqual(run.returncode, 1)
        self.assertIn(not_a_store, run.stderr)


@needs_library
class ClaimInC(ClaimExample):
    @classmethod
    def setUpClass(cls):
        directory = cls.place_for_program()
        program = directory + "/claim"
        subprocess.run(
            ["gcc", "-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror",
             f"-I{SOURCE_ROOT}/include", HERE / "claim.c", "-o", program, f"-L{LIBRARY.parent}",
             "-ldedup", f"-Wl,-rpath,{LIBRARY.parent}"], check=True)
        cls.command = [program]


@needs_library
@unittest.skipUnless(shutil.which("go"), "needs go")
class ClaimInGo(ClaimExample):
    @classmethod
    def setUpClass(cls):
        directory = cls.place_for_program()
        program = directory + "/claim"
        settings = {
            "CGO_CFLAGS": f"-I{SOURCE_ROOT}/include",
            "CGO_LDFLAGS": f"-L{LIBRARY.parent} -Wl,-rpath,{LIBRARY.parent}",
            "GOCACHE": directory + "/cache",
            "GO111MODULE": "off",
        }
        subprocess.run(["go", "build", "-o", program, HERE / "claim.go"], check=True,
                       env=os.environ | settings)
        cls.command = [program]


@needs_library
class ClaimInPython(ClaimExample):
    command = [sys.executable, HERE / "claim.py"]


@unittest.skipUnless(shutil.which("node") and DEDUPCTL, "needs node, and dedupctl")
class ClaimInNode(ClaimExample):
    """Through a server, whose socket takes the place of the store."""

    command = ["node", HERE / "claim.mjs"]

    def place(self):
        return "unix:" + self.store

    def setUp(self):
        super().setUp()
        store, self.store = self.store, self.store + ".sock"
        server = subprocess.Popen([DEDUPCTL, "-s", store, "serve", "--unix", self.store],
                                  stderr=subprocess.PIPE)
        self.addCleanup(server.stderr.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        while b"listening" not in (line := server.stderr.readline()):
            self.assertNotEqual(line, b"", "the server has ended")

    def test_of_many_at_once_one_sends(self):
        # Here they meet, and do not wait: who comes while one sends is told so.
        runs = [subprocess.Popen([*self.command, self.store, "invoice-18"], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
        printed = [run.communicate(timeout=60)[0] for run in runs]
        self.assertEqual(sum("sending" in text for text in printed), 1)
        for run, text in zip(runs, printed):
            self.assertEqual(run.returncode, 0 if text else 10)


class ConsumeExample(Example):
    def test_each_message_is_handled_once_across_runs(self):
        messages = "".join(f'{{"id": {n % 1000}, "body": "x"}}\n' for n in range(1500))
        first = self.run_example("consume", input=messages).splitlines()
        self.assertEqual(sum(": handled, " in line for line in first), 1000)
        self.assertEqual(sum(": handled before, " in line for line in first), 500)
        second = self.run_example("consume", input=messages).splitlines()
        self.assertEqual(sum(": handled before, " in line for line in second), 1500)

    def test_failed_and_nameless_messages(self):
        for _ in range(2):
            run = subprocess.run(
                [PROGRAMS / "example_consume", self.store],
                input='{"id": "a", "fail": 1}\n{"name": "b"}\n',
                capture_output=True, text=True, timeout=60,
            )
            self.assertEqual(run.returncode, 1)
            self.assertEqual(run.stdout, "a: failed, it asked for that\n")
            self.assertIn("event id", run.stderr)


class EventLoopExample(Example):
    def test_each_key_is_done_by_one_line_and_known_to_the_others(self):
        keys = "".join(f"key-{n % 300}\n" for n in range(900))
        first = self.run_example("event_loop", input=keys).splitlines()
        self.assertEqual(len(first), 900)
        self.assertEqual(sum(line.endswith(": done") for line in first), 300)
        again = self.run_example("event_loop", input="key-7\n")
        self.assertRegex(again, r"^line 1: as line \d+\n$")


@unittest.skipUnless((PROGRAMS / "example_coroutines").exists(), "asio is not there")
class CoroutinesExample(Example):
    def test_one_works_and_the_others_await_its_receipt(self):
        printed = self.run_example("coroutines", *["a", "b", "a", "a"]).splitlines()
        self.assertEqual(sorted(printed), ["a: done", "a: found receipt of a",
                                           "a: found receipt of a", "b: done"])


class PipelineExample(Example):
    def test_goes_on_where_it_stopped_and_knows_repetitions(self):
        events = ['{"idempotency_key": "a"}', "{}", '{"idempotency_key": "a"}']
        first = self.run_example("pipeline", input="\n".join(events))
        self.assertEqual(
            first,
            "orders-1: charged\norders-2: charged\norders-3: repeats orders-1\n"
            "1 keys, 3 receipts, 1 offsets\n",
        )
        events += ['{"idempotency_key": "b"}']
        second = self.run_example("pipeline", input="\n".join(events))
        self.assertEqual(second, "orders-4: charged\n2 keys, 4 receipts, 1 offsets\n")


class ReserveExample(Example):
    def test_repetitions_conflicts_and_other_tenants(self):
        first = self.run_example("reserve", "acme", "key-1", "3 chairs")
        self.assertRegex(first, r"^charged: invoice-\d+\n$")
        again = self.run_example("reserve", "acme", "key-1", "3 chairs")
        self.assertEqual(again, first.replace("charged:", "charged before:"))
        other = subprocess.run(
            [PROGRAMS / "example_reserve", self.store, "acme", "key-1", "3", "chairs"],
            capture_output=True, text=True, timeout=60,
        )
        self.assertEqual(other.returncode, 9)
        self.assertIn("another order\n", other.stdout)
        elsewhere = self.run_example("reserve", "acme2", "key-1", "3", "chairs")
        self.assertRegex(elsewhere, r"^charged: ")

    @unittest.skipUnless(DEDUPCTL, "needs dedupctl")
    def test_what_nobody_knows_waits_for_a_decision(self):
        def reserve(*order, status):
            run = subprocess.run([PROGRAMS / "example_reserve", self.store, "acme", "key-2", *order],
                                 capture_output=True, text=True, timeout=60)
            self.assertEqual((run.stderr, run.returncode), ("", status), run.stdout)
            return run.stdout

        fence = re.search(r"invoice-(\d+) was paid", reserve("timeouts", status=17))[1]
        note = f"POST bank/payments, invoice-{fence}"
        for _ in range(2):
            self.assertEqual(reserve("timeouts", status=17),
                             f"to be decided: {note} (the bank did not answer)\n")
        subprocess.run([DEDUPCTL, "-s", self.store, "-n", "reservations", "resolve",
                        "4:acme,4:shop,-6:charge,key-2", "--claim", fence, "--not-done",
                        "--reason", "the bank has none"],
                       check=True, capture_output=True, timeout=60)
        self.assertRegex(reserve("3 chairs", status=0),
                         rf"^before: {note}, resolved\ncharged: invoice-\d+\n$")


class StreamCacheExample(Example):
    def test_calls_and_their_answers(self):
        calls = [
            ("lookup a", "absent"),
            ("claim_or_get a e-1", "claimed, attempt 1"),
            ("claim_or_get a e-2", "in flight for e-1"),
            ("release_claim a", "released"),
            ("release_claim a", "nothing to release"),
            ("claim_or_get a e-3", "claimed, attempt 2"),
            ("complete_receipt a paid", "completed"),
            ("complete_receipt a paid", "completed"),
            ("complete_receipt a other", "receipt_mismatch"),
            ("claim_or_get a e-4", "completed by e-3: paid"),
            ("complete_receipt b paid", "not_claimed"),
            # Two keys with one hash are two keys.
            ("key_hash 5mc4mmqtgfpga", "default:42adfe0e11646182"),
            ("key_hash obvhalzhbrwfn", "default:42adfe0e11646182"),
            ("claim_or_get 5mc4mmqtgfpga e-5", "claimed, attempt 1"),
            ("lookup obvhalzhbrwfn", "absent"),
            ("sweep", "2 scanned, 0 expired, 2 retained"),
        ]
        printed = self.run_example(
            "stream_cache", input="".join(call + "\n" for call, _ in calls)
        )
        self.assertEqual(printed.splitlines(), [answer for _, answer in calls])


def unindented(text):
    return re.sub(r"^ +", "", text, flags=re.MULTILINE).strip()


def cpp_blocks(page):
    return re.findall(r"^```cpp\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


class Pages(unittest.TestCase):
    """Whatever a page for newcomers from elsewhere names as ours exists."""

    def test_code_is_that_of_a_program(self):
        for page, program in (
            ("coming-from-tenant-reservations", "docs/examples/reserve.cpp"),
            ("coming-from-an-exactly-once-registry", "tests/registry/registry_test.cpp"),
        ):
            blocks = cpp_blocks(SOURCE_ROOT / f"docs/{page}.md")
            self.assertTrue(blocks, page)
            text = unindented((SOURCE_ROOT / program).read_text())
            for block in blocks:
                self.assertIn(unindented(block), text, page)

    def test_links_lead_somewhere(self):
        pages = sorted((SOURCE_ROOT / "docs").glob("coming-from-*.md"))
        self.assertTrue(pages)
        for page in pages:
            for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
                self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")

    def test_calls_are_those_of_the_headers(self):
        headers = "".join(
            path.read_text() for path in (SOURCE_ROOT / "include/dedup").glob("*.hpp")
        )
        for page in sorted((SOURCE_ROOT / "docs").glob("coming-from-*.md")):
            # The last part of `Guard::process_batch` and the like.
            for name in re.findall(r"`(?:[A-Z]\w*|dedup)::(\w+)", page.read_text()):
                self.assertRegex(headers, rf"\b{name}\b", page.name)


class Readme(unittest.TestCase):
    def setUp(self):
        self.text = (SOURCE_ROOT / "README.md").read_text()

    def test_code_is_that_of_the_example(self):
        examples = "\n".join(unindented(path.read_text())
                             for path in sorted((SOURCE_ROOT / "docs/examples").glob("*.cpp")))
        blocks = cpp_blocks(SOURCE_ROOT / "README.md")
        self.assertTrue(blocks)
        for block in blocks:
            self.assertTrue(unindented(block) in examples, block)

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
