"""The type hints hold, as mypy sees them."""

import shutil
import subprocess
import unittest

from base import ROOT


class Types(unittest.TestCase):
    @unittest.skipUnless(shutil.which("mypy"), "needs mypy")
    def test_hold(self):
        run = subprocess.run(
            ["mypy", "--strict", "--cache-dir=/dev/null", ROOT / "lib/python/dedupstore"],
            capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
