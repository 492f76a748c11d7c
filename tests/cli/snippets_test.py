"""The pieces of docs/in-scripts.md do what the page says, at the first and at the second time."""

import os
import re
import subprocess

import cli
from cli import OK

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "in-scripts.md")


class Snippets(cli.CliTest):
    def snippets(self):
        with open(PAGE) as page:
            return [re.sub(r"(?m)^    ", "", block) for block in
                    re.findall(r"(?m)((?:^    .*\n|^\n(?=    ))+)", page.read())]

    def write(self, name, text, mode=0o600):
        with open(self.path(name), "w") as file:
            file.write(text)
        os.chmod(self.path(name), mode)

    def test_each_of_them(self):
        for name in ("report", "sync", "deploy", "lint"):
            self.write(name, f'#!/bin/sh\necho {name} "$@" >> ran\necho output of {name} "$@"\n', 0o700)
        self.write("pay", '#!/bin/sh\necho pay "$@" >> ran\n'
                   'if [ "$1" = o1 ] && [ ! -e declined ]; then touch declined; echo declined; exit 1; fi\n'
                   'echo output of pay "$@"\n', 0o700)
        self.write("app.log", '{"request_id":"a"}\n{"request_id":"b"}\n{"request_id":"a"}\n')
        self.write("orders.tsv", "o1\tx\no2\ty\n")
        os.mkdir(self.path("bin"))
        os.symlink(os.path.abspath(cli.DEDUPCTL), self.path("bin/dedupctl"))
        environment = dict(os.environ, DEDUP_CONFIG="/dev/null", PATH=self.path("bin") + ":" + os.environ["PATH"])
        snippets = self.snippets()
        self.assertGreater(len(snippets), 8)
        script = "\n".join(snippets)
        self.store = self.path("dedup-store")
        for state in (cli.ABSENT, cli.COMPLETED):
            done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", script], cwd=self.dir,
                                  env=environment, capture_output=True, timeout=cli.HANG_SECONDS)
            self.assertEqual((done.returncode, done.stderr.count(b"rror")), (0, 0), done)
            self.dedupctl("lookup", "pay-o1", expect=state)  # what was declined is not paid
        with open(self.path("ran")) as ran:
            lines = sorted(re.sub(r" payout-.*", " payout", line) for line in ran.read().splitlines())
        self.assertEqual(lines, ["deploy 0123abc", "lint", "pay o1", "pay o1", "pay o2", "pay payout", "report", "sync"])
        self.store = self.path("dedup-store")
        self.assertEqual(self.dedupctl("lookup", "pay-o1").out, b"output of pay o1")
        self.assertEqual(self.dedupctl("lookup", "o2").out, b"shipped")
        self.dedupctl("verify", expect=OK)


if __name__ == "__main__":
    cli.main()
