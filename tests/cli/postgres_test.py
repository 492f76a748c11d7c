"""dedupctl on a store in PostgreSQL: every command that makes sense there, and what the others say."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

from cli import (ABSENT, COMPLETED, DEDUPCTL, ERROR, HANG_SECONDS, HELD, IN_FLIGHT, MISMATCH, OK, STALE,
                 UNAVAILABLE, USAGE, Result)
from postgres_server import BIN, Server


@unittest.skipUnless(BIN, "no PostgreSQL server is installed: run tools/setup")
class Postgres(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def setUp(self):
        self.url = self.server.url("s_" + self._testMethodName)
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def run_on(self, store, *arguments, stdin=b"", code=OK):
        done = subprocess.run([DEDUPCTL, "-s", store, *arguments], input=stdin, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=HANG_SECONDS)
        result = Result(arguments, done)
        self.assertEqual(result.code, code, result.error)
        return result

    def ctl(self, *arguments, stdin=b"", code=OK):
        return self.run_on(self.url, *arguments, stdin=stdin, code=code)

    def test_the_protocol(self):
        missing = self.ctl("claim", "k", code=ERROR)
        self.assertIn("dedupctl init", missing.error)
        self.assertIn("created", self.ctl("init").text)
        self.assertIn("was there", self.ctl("init").text)
        fence = str(self.ctl("--json", "claim", "k", "--lease", "1h", "--owner", "me")
                    .json["claim_sequence"])
        self.ctl("claim", "k", code=IN_FLIGHT)
        self.ctl("renew", "k", "--claim", fence, "--lease", "2h")
        self.ctl("complete", "k", "--claim", fence, "--receipt", "paid")
        self.assertEqual(self.ctl("lookup", "k", code=COMPLETED).text, "paid")
        self.ctl("complete", "k", "--claim", fence, "--receipt", "other", code=STALE)
        self.ctl("lookup", "none", code=ABSENT)
        self.ctl("remember", "r", "--receipt", "x")
        self.ctl("remember", "r", "--receipt", "y", code=COMPLETED)
        self.ctl("claim", "c")
        self.ctl("release", "c")

    def test_looking(self):
        self.ctl("init")
        self.ctl("remember", "k", "--receipt", "x")
        self.assertIn("k", self.ctl("ls").text)
        self.assertIn("completed", self.ctl("inspect", "k").text)
        stats = self.ctl("--json", "stats").json
        self.assertEqual(stats["completed"], 1)
        self.assertNotIn("secret", stats["store"])
        self.assertIn("dedup_", self.ctl("stats", "--format", "prometheus").text)
        self.ctl("clock")

    def test_decisions_beside_sql(self):
        """What an operator's dedupctl and the SQL functions write, the other one reads."""
        self.ctl("init")

        def sql(text):
            return self.server.sql("SELECT " + text.replace("@", "s_" + self._testMethodName))

        fence = sql("fence FROM @.claim('default', 'k', 'w', 60000, unanswered => 'hold')")
        self.assertEqual(sql(f"@.note('default', 'k', {fence}, 'reference 42')"), "noted")
        sql(f"@.hold('default', 'k', {fence}, 'no answer')")
        held = self.ctl("--json", "held").json
        self.assertEqual((held["key"], held["claim_sequence"], held["metadata"]),
                         ("k", int(fence), "reference 42"))
        self.ctl("claim", "k", code=HELD)
        self.ctl("resolve", "k", "--claim", fence, "--not-done", "--reason", "no 42", "--by", "ada")
        self.assertEqual(sql("outcome, previous_end, encode(previous_reason, 'escape') "
                             "FROM @.claim('default', 'k')"), "claimed|resolved|no 42")
        sql("@.release('default', 'k', 0)")

        fence = str(self.ctl("--json", "claim", "stuck", "--lease", "1ms").json["claim_sequence"])
        self.ctl("hold", "stuck", "--claim", fence, "--reason", "asking the bank")
        self.ctl("claim", "stuck", code=HELD)
        self.assertEqual(sql("encode(previous_reason, 'escape') FROM @.held()"), "asking the bank")
        self.ctl("release", "stuck", code=STALE)
        self.ctl("resolve", "stuck", "--claim", fence, "--not-done", "--reason", "no")

        fence = str(self.ctl("--json", "claim", "k", "--hold", "--lease", "1ms")
                    .json["claim_sequence"])
        time.sleep(0.01)
        self.assertEqual(sql("fence FROM @.held()"), fence)
        self.assertEqual(sql(f"@.resolve('default', 'k', {fence}, true, 'in the list', 'bob', "
                             "'paid')"), "completed")
        self.assertEqual(self.ctl("lookup", "k", code=COMPLETED).text, "paid")
        said = self.ctl("inspect", "k").text
        for word in ("resolved: it had been done", "bob", "in the list"):
            self.assertIn(word, said)
        self.assertEqual(sql("@.forget('default', 'k', 0, 'refunded', 'eve')"), "forgotten")
        said = self.ctl("inspect", "k").text
        for word in ("forgotten", "eve", "refunded"):
            self.assertIn(word, said)
        self.ctl("forget", "k", "--reason", "again", code=ABSENT)

    def test_sweep(self):
        self.ctl("init")
        self.ctl("claim", "short", "--ttl", "1ms", "--owner", "gone")
        time.sleep(1.2)
        self.assertEqual(self.ctl("--json", "sweep", "--dry-run").json["removed"]["in_flight"], 1)
        swept = self.ctl("--json", "sweep").json
        self.assertEqual(swept["removed"]["in_flight"], 1)
        self.assertEqual(swept["unanswered"][0]["owner"], "gone")
        self.assertIn("1", self.ctl("sweep", "--history").text)
        self.ctl("lookup", "short", code=ABSENT)

    def test_streams_of_lines_and_commands(self):
        self.ctl("init")
        self.assertEqual(self.ctl("filter", stdin=b"a\nb\na\n").text, "a\nb\n")
        self.assertEqual(self.ctl("filter", stdin=b"b\nc\n").text, "c\n")
        self.assertEqual(self.ctl("exec", "--key", "job", "--lease", "1m", "--", "echo", "hi").text,
                         "hi\n")
        self.assertEqual(self.ctl("exec", "--key", "job", "--lease", "1m", "--", "echo", "no").text,
                         "hi\n")

    def test_there_and_back(self):
        """Every field goes from a directory into a database and back."""
        directory = os.path.join(self.directory, "store")
        self.run_on(directory, "claim", "in flight", "--lease", "1h", "--owner", "w \u00e9",
                    "--fingerprint", "f")
        self.run_on(directory, "claim", "in flight", "--fingerprint", "g", code=MISMATCH)
        self.run_on(directory, "remember", "done", "--receipt", "r", "--ttl", "never")
        self.run_on(directory, "claim", "free")
        self.run_on(directory, "release", "free")
        self.ctl("init")
        exported = self.run_on(directory, "export").out
        self.ctl("import", stdin=exported)
        self.ctl("import", stdin=exported)  # safe to repeat
        back = os.path.join(self.directory, "back")
        self.run_on(back, "import", stdin=self.ctl("export").out)

        def heads(store):
            lines = self.run_on(store, "export").out.splitlines()[1:-1]
            # A store numbers its records itself, and so its fences.
            return sorted((json.dumps({name: value for name, value in json.loads(line).items()
                                       if name not in ("sequence", "claim_sequence")})
                           for line in lines))

        self.assertEqual(len(heads(directory)), 3)
        self.assertEqual(heads(self.url), heads(directory))
        self.assertEqual(heads(back), heads(directory))

    def test_migrate(self):
        """A service moves while it runs: what the new store has is newer, and stays."""
        old = os.path.join(self.directory, "old")
        self.run_on(old, "remember", "done", "--receipt", "r", "--ttl", "never")
        self.run_on(old, "claim", "busy", "--lease", "1h", "--owner", "w")
        self.run_on(old, "remember", "taken", "--receipt", "old")
        self.run_on(old, "claim", "gone", "--ttl", "1ms")
        time.sleep(1.2)
        self.ctl("init")
        self.ctl("remember", "taken", "--receipt", "new")

        def migrate(*arguments, code=OK):
            done = subprocess.run([DEDUPCTL, "--json", "migrate", *arguments], check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=HANG_SECONDS)
            self.assertEqual(done.returncode, code, done.stderr)
            return json.loads(done.stdout)

        counts = migrate(old, self.url)
        self.assertEqual(counts, {"read": 4, "migrated": 2, "equal": 0, "newer": 1, "expired": 1})
        again = migrate(old, self.url)
        self.assertEqual(again, {"read": 4, "migrated": 0, "equal": 2, "newer": 1, "expired": 1})
        self.assertEqual(self.ctl("lookup", "done", code=COMPLETED).text, "r")
        self.assertEqual(self.ctl("lookup", "taken", code=COMPLETED).text, "new")
        self.assertEqual(self.ctl("--json", "lookup", "busy", code=IN_FLIGHT).json["owner"], "w")
        back = os.path.join(self.directory, "back")
        self.assertEqual(migrate(self.url, back)["migrated"], 3)
        self.assertIn("the same", json.dumps(migrate(old, old, code=USAGE)))
        self.assertIn("no store", json.dumps(migrate(old + "x", back, code=ERROR)))

    @unittest.skipUnless(shutil.which("pgbouncer"), "pgbouncer is not installed: run tools/setup")
    def test_behind_pgbouncer(self):
        """In transaction mode each transaction may get another session."""
        port = self.server.pooler()
        pooled = self.url.replace(f"host={self.server.directory}",
                                  f"host={self.server.directory}&port={port}&prepared=false")
        self.run_on(pooled, "init")
        self.run_on(pooled, "remember", "r", "--receipt", "x")
        fence = str(self.run_on(pooled, "--json", "claim", "k").json["claim_sequence"])
        self.run_on(pooled, "complete", "k", "--claim", fence, "--receipt", "paid")
        self.assertEqual(self.run_on(pooled, "lookup", "k", code=COMPLETED).text, "paid")
        lines = b"".join(b"line %d\n" % number for number in range(3000))
        workers = [subprocess.Popen([DEDUPCTL, "-s", pooled, "filter"], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                   for _ in range(4)]
        outputs = [b""] * len(workers)

        def feed(number):
            outputs[number] = workers[number].communicate(lines, timeout=HANG_SECONDS)[0]

        threads = [threading.Thread(target=feed, args=(n,)) for n in range(len(workers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([worker.returncode for worker in workers], [0] * len(workers))
        # A filter prints a line before it remembers it, so two at a time may both print it.
        self.assertEqual({line for output in outputs for line in output.splitlines()},
                         set(lines.splitlines()))
        self.assertEqual(self.run_on(pooled, "--json", "stats").json["completed"], 3002)
        self.assertEqual(self.run_on(pooled, "filter", stdin=lines).text, "")
        self.run_on(pooled, "sweep")

    def test_what_is_for_directories_says_so(self):
        self.ctl("init")
        for command in (["verify"], ["repair", "target"], ["clock", "--reset"], ["bench"]):
            refused = self.ctl(*command, code=USAGE)
            self.assertIn("in a database", refused.error)

    def test_a_server_that_is_not_there(self):
        refused = self.run_on("postgresql:///x?host=/nowhere", "lookup", "k", code=UNAVAILABLE)
        self.assertIn("/nowhere", refused.error)
        self.assertNotIn("\\x09", refused.error)

    def test_init_of_a_directory(self):
        path = os.path.join(self.directory, "store")
        self.assertIn("created", self.run_on(path, "init").text)
        self.assertIn("was there", self.run_on(path, "init").text)


if __name__ == "__main__":
    unittest.main()
