"""dedupctl on a store in PostgreSQL: every command that makes sense there, and what the others say."""

import glob
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import unittest

from cli import (ABSENT, COMPLETED, DEDUPCTL, ERROR, HANG_SECONDS, IN_FLIGHT, MISMATCH, OK, STALE,
                 UNAVAILABLE, USAGE, Result)

BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1:]


class Server:
    """A server of these tests' own, on a Unix socket."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="dedup-test-")
        self.owner = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self.owner = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}",
                          "--clear-groups"]
        data = os.path.join(self.directory, "data")
        subprocess.run([*self.owner, f"{BIN[0]}/initdb", "-D", data, "-U", "dedup", "-A", "trust",
                        "-E", "UTF8", "--locale=C", "--no-sync"],
                       check=True, cwd="/", stdout=subprocess.DEVNULL)
        self.log = open(os.path.join(self.directory, "log"), "wb")
        self.process = subprocess.Popen(
            [*self.owner, f"{BIN[0]}/postgres", "-D", data, "-c", "listen_addresses=",
             "-c", f"unix_socket_directories={self.directory}"],
            cwd="/", stdout=self.log, stderr=self.log)
        for _ in range(1000):
            ready = subprocess.run([f"{BIN[0]}/pg_isready", "-q", "-h", self.directory], check=False)
            if ready.returncode == 0:
                return
            time.sleep(0.02)
        raise RuntimeError("the server did not start")

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory)

    def url(self, schema):
        return f"postgresql://dedup:secret@/postgres?host={self.directory}&schema={schema}"


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

    def test_what_is_for_directories_says_so(self):
        self.ctl("init")
        for command in (["verify"], ["repair", "target"], ["clock", "--reset"], ["bench"]):
            refused = self.ctl(*command, code=USAGE)
            self.assertIn("in a database", refused.error)

    def test_a_server_that_is_not_there(self):
        refused = self.run_on("postgresql:///x?host=/nowhere", "lookup", "k", code=UNAVAILABLE)
        self.assertIn("/nowhere", refused.error)

    def test_init_of_a_directory(self):
        path = os.path.join(self.directory, "store")
        self.assertIn("created", self.run_on(path, "init").text)
        self.assertIn("was there", self.run_on(path, "init").text)


if __name__ == "__main__":
    unittest.main()
