"""What the tests of the Python package share."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lib/python"), str(ROOT / "tests/cli")]

import dedupstore  # noqa: E402

HANG_SECONDS = 60


class StoreTest(unittest.TestCase):
    """One with a store in a directory of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="dedup-python-")
        self.addCleanup(directory.cleanup)
        self.path = directory.name + "/store"
        self.store = dedupstore.Store(self.path)
        self.addCleanup(self.store.close)
        self.cache = self.store.cache()

    def assertIsA(self, kind, outcome):
        self.assertIsInstance(outcome, kind, outcome)
        return outcome

    def wait_until(self, condition):
        deadline = time.monotonic() + HANG_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, "waited in vain")
            time.sleep(0.005)


def run_python(text, *arguments, **options):
    """A Python process of its own that has the package."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "lib/python"))
    return subprocess.Popen([sys.executable, "-c", text, *arguments], env=environment,
                            stdout=subprocess.PIPE, text=True, **options)
