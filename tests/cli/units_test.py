"""systemd's units: it takes them, and what they start does what they say."""

import glob
import os
import re
import shutil
import subprocess
import unittest

import cli
from cli import OK

UNITS = sorted(glob.glob(os.path.join(os.environ["SYSTEMD_UNITS"], "dedup-*@.*")))


class Units(cli.CliTest):
    def read(self, name):
        path, = (path for path in UNITS if path.endswith("/" + name))
        with open(path, encoding="utf-8") as file:
            return file.read()

    def command(self, name):
        """What the unit starts, for the store of this test."""
        line = re.search(r"^ExecStart=(.*)$", self.read(name), re.MULTILINE).group(1)
        words = line.replace("%S/dedup/%i", self.store).split()
        self.assertEqual(os.path.basename(words[0]), "dedupctl")
        return words[1:]

    @unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd-analyze")
    def test_systemd_takes_them(self):
        self.assertEqual(len(UNITS), 4)
        for path in UNITS:
            with open(path, encoding="utf-8") as file:
                unit = re.sub(r"^(ExecStart=)\S+", rf"\1{os.path.abspath(cli.DEDUPCTL)}", file.read(),
                              flags=re.MULTILINE)
            # As root, users need not be there; what is asked for here is the rest.
            unit = re.sub(r"^((?:Socket)?(?:User|Group))=.*$", r"\1=root", unit, flags=re.MULTILINE)
            with open(self.path(os.path.basename(path)), "w", encoding="utf-8") as file:
                file.write(unit)
        for path in UNITS:
            name = self.path(os.path.basename(path)).replace("@.", "@x.")
            shutil.copy(self.path(os.path.basename(path)), name)
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", name],
                                  capture_output=True, text=True, check=False)
            mine = [line for line in done.stderr.splitlines() if "dedup" in line]
            self.assertEqual(mine, [], done.stderr)

    def test_the_sweep(self):
        self.dedupctl("remember", "k", "--ttl", "1ms", expect=OK)
        self.wait_until(lambda: self.dedupctl("--json", "sweep", "--dry-run", expect=OK)
                        .json["removed"]["completed"] == 1, "it has expired")
        self.dedupctl(*self.command("dedup-sweep@.service"), expect=OK)
        self.assertEqual(self.dedupctl("--json", "stats", expect=OK).json["completed"], 0)

    def test_the_server(self):
        server = self.start(*self.command("dedup-serve@.service"))
        self.wait_until(lambda: os.path.exists(self.store + ".sock"), "it listens")
        self.stop(server)


if __name__ == "__main__":
    cli.main()
