"""Bad input: each gets an error that names the thing and what to do, and loses nothing."""

import glob
import os
import subprocess

import cli
from cli import COMPLETED, ERROR, OK, USAGE

READERS = (("lookup", "k"), ("inspect", "k"), ("ls",), ("stats",), ("verify",))


class BadInput(cli.CliTest):
    def test_keys(self):
        for command in ("claim", "complete", "release", "lookup", "remember", "inspect", "hash"):
            self.assertInError("key is empty", self.dedupctl(command, "", expect=USAGE))
            long = self.dedupctl(command, "k" * 1025, expect=USAGE)
            self.assertInError(["1,025", "1,024"], long)
        self.assertFalse(os.path.exists(self.store), "a usage error makes no store")

    def test_namespaces(self):
        for name in ("", "n" * 256, "tab\t", "schlüssel", b"\xff"):
            wrong = self.dedupctl("-n", name, "claim", "k", expect=USAGE)
            self.assertInError("--namespace", wrong)

    def test_command_lines(self):
        for wrong, what in (
                ((), "no command"), (("frobnicate",), "'frobnicate' is not a command"), (("claim",), "KEY"),
                (("claim", "a", "b"), "b"), (("claim", "k", "--no-such"), "--no-such"),
                (("lookup", "-k"), "goes after '--'"),
                (("complete", "k", "--claim", "0"), "--claim"),
                (("complete", "k", "--claim", "-1"), "--claim"),
                (("complete", "k", "--claim", "1x"), "--claim"),
                (("complete", "k", "--claim", "18446744073709551616"), "--claim"),
                (("complete", "k", "--receipt", "a", "--receipt-file", "b"), "--receipt"),
                (("renew", "k", "--claim", "1"), "--lease"),
                (("hold", "k", "--claim", "1"), "--reason"),
                (("hold", "k", "--reason", "r"), "--claim"),
                (("hold", "k", "--claim", "1", "--reason", ""), "--reason"),
                (("complete", "-", "--claims", "csv"), "--claims"),
                (("complete", "k", "--http-type", "text/plain"), "--http-status"),
                (("ls", "--limit", "many"), "--limit"),
                (("-s", "", "claim", "k"), "--store"),
                (("--lock-timeout", "soon", "claim", "k"), "--lock-timeout")):
            self.assertInError(what, self.dedupctl(*wrong, expect=USAGE))

    def test_durations(self):
        for wrong in ("5", "-5s", "s", "1.5h", "1h1h", "1m1h", "1y", "1 h", "0s", "+1s",
                      "99999999999999999999d", "9223372036854775807d"):
            result = self.dedupctl("claim", "k", "--ttl", wrong, expect=USAGE)
            self.assertInError("30s", result)
        for right in ("500ms", "30s", "15m", "24h", "7d", "1h30m", "1d2h3m4s5ms", "never"):
            self.dedupctl("claim", "k" + right, "--ttl", right, expect=OK)
        self.dedupctl("claim", "k", "--lease", "never", expect=USAGE)
        # What `--ttl "$TTL"` gives without the variable must not pass for the default.
        self.assertInError("--ttl: is empty",
                           self.dedupctl("claim", "k", "--ttl", "", expect=USAGE))

    def test_receipts_above_the_limit(self):
        self.dedupctl("claim", "k", expect=OK)
        big = self.path("big")
        with open(big, "wb") as file:
            file.truncate(16 * 1024 * 1024 + 1)
        result = self.dedupctl("complete", "k", "--receipt-file", big, expect=ERROR)
        self.assertInError([big, "16.0 MiB", "nothing was stored"], result)
        self.dedupctl("lookup", "k", expect=cli.IN_FLIGHT)
        os.truncate(big, 16 * 1024 * 1024)
        self.dedupctl("complete", "k", "--receipt-file", big, expect=OK)
        self.assertEqual(len(self.dedupctl("lookup", "k", expect=COMPLETED).out), 16 * 1024 * 1024)
        missing = self.dedupctl("complete", "k", "--receipt-file", "no-such-file", expect=ERROR)
        self.assertInError("no-such-file: No such file", missing)

    def test_a_store_path_that_is_a_file(self):
        with open(self.store, "w") as file:
            file.write("precious")
        for command in (*READERS, ("claim", "k")):
            self.assertInError([self.store, "not a directory"],
                               self.dedupctl(*command, expect=ERROR))
        with open(self.store) as file:
            self.assertEqual(file.read(), "precious")

    def test_a_store_that_is_missing(self):
        for command in READERS:
            self.assertInError(["no store", self.store], self.dedupctl(*command, expect=ERROR))
            self.assertFalse(os.path.exists(self.store), f"{command} made a store")

    def test_a_new_store_in_a_directory_that_is_missing(self):
        path = os.path.join(self.store, "inner")
        result = self.dedupctl("-s", path, "claim", "k", expect=ERROR)
        self.assertInError([path, "create the one that it is to lie in first"], result)
        self.assertFalse(os.path.exists(self.store))

    def test_an_unrelated_directory(self):
        os.mkdir(self.store)
        with open(os.path.join(self.store, "file"), "w") as file:
            file.write("precious")
        for command in (*READERS, ("claim", "k")):
            self.assertInError(self.store, self.dedupctl(*command, expect=ERROR))
        self.assertEqual(os.listdir(self.store), ["file"])

    def test_a_store_of_a_newer_format(self):
        self.dedupctl("remember", "k", expect=OK)
        [segment] = glob.glob(os.path.join(self.store, "log", "*.log"))
        # A segment header of version 77 with a valid checksum; see docs/format.md.
        newer = bytes.fromhex(
            "44454455504c4f47" "4d00000050000000" "101112131415161718191a1b1c1d1e1f"
            "0100000000000000" + "00" * 16 + "0100000000000000" + "00" * 8 + "563dddd7abd96659")
        with open(segment, "r+b") as file:
            file.write(newer)
        with open(segment, "rb") as file:
            before = file.read()
        for command in (("lookup", "k"), ("claim", "x"), ("verify",), ("repair", self.dir + "/r")):
            result = self.dedupctl("--json", *command, expect=ERROR)
            self.assertEqual(result.json["error"]["code"], "unsupported_version")
            self.assertInError([segment, "version 77", "newer"], result)
        with open(segment, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_a_version_that_its_checksum_denies_is_damage(self):
        self.dedupctl("remember", "k", expect=OK)
        [segment] = glob.glob(os.path.join(self.store, "log", "*.log"))
        with open(segment, "r+b") as file:
            file.seek(8)
            file.write((99).to_bytes(4, "little"))
        for command in (("lookup", "k"), ("claim", "x")):
            result = self.dedupctl("--json", *command, expect=ERROR)
            self.assertEqual(result.json["error"]["code"], "corruption")
            self.assertInError([segment, "damaged at offset 0", "dedupctl repair"], result)
        self.dedupctl("repair", self.dir + "/r", expect=ERROR)
        self.assertIn("k", self.dedupctl("-s", self.dir + "/r", "ls", expect=OK).text)

    def test_a_directory_that_may_not_be_written(self):
        self.dedupctl("remember", "k", "--receipt", "r", expect=OK)
        if os.geteuid() != 0:
            for path, _, files in os.walk(self.store):
                os.chmod(path, 0o500)
                for file in files:
                    os.chmod(os.path.join(path, file), 0o400)
            self.addCleanup(subprocess.run, ["chmod", "-R", "u+w", self.store])
        elif not self.mount("--bind", self.store, "-o", "ro"):
            self.skipTest("root writes anywhere, and mounting read-only is not permitted here")
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"r")
        self.dedupctl("verify", expect=OK)
        self.assertInError(self.store, self.dedupctl("claim", "x", expect=ERROR))


class FullDisk(cli.CliTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not self.mount("-t", "tmpfs", "-o", "size=8m", "tmpfs"):
            self.skipTest("a full disk takes a mount, and mounting is not permitted here")

    def fill_up(self):
        """Leaves nothing free; gives the file to remove for space again."""
        ballast = os.path.join(self.store, "ballast")
        with open(ballast, "wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    pass
        return ballast

    def test_claims(self):
        self.store = os.path.join(self.store, "inner")
        self.dedupctl("remember", "before", "--receipt", "r", expect=OK)
        self.dedupctl("claim", "held", expect=OK)
        mounted = self.store
        self.store = os.path.dirname(mounted)
        ballast = self.fill_up()
        self.store = mounted
        # A log whose blocks are allocated beforehand may have room for one more small claim.
        results = []
        for number in range(200_000 // 1000):
            results.append(self.dedupctl("remember", f"k{number}", "--receipt", "x" * 65536))
            if results[-1].code != OK:
                break
        result = results[-1]
        self.assertEqual(result.code, ERROR, result)
        self.assertInError(["No space left", "free some space", "nothing that was"], result)
        self.assertEqual(self.dedupctl("lookup", "before", expect=COMPLETED).out, b"r")
        os.remove(ballast)
        for number in range(len(results) - 1):
            self.dedupctl("lookup", f"k{number}", expect=COMPLETED)
        self.dedupctl("remember", f"k{len(results) - 1}", expect=OK)
        self.dedupctl("complete", "held", expect=OK)
        self.dedupctl("verify", expect=OK)

    def test_filter(self):
        self.store = os.path.join(self.store, "inner")
        lines = self.lines(0, 400_000)  # several times what the disk can remember
        with open(self.path("lines"), "wb") as file:
            file.write(lines)
        first = self.dedupctl("filter", "lines", expect=ERROR)
        self.assertIn("No space left", first.error)
        self.assertIn("free some space", first.error)
        self.assertIn("may come again in the next run", first.error)
        self.assertTrue(lines.startswith(first.out))
        self.dedupctl("verify", expect=OK)
        # What was remembered was printed: on a larger disk the rest comes, and nothing is missing.
        subprocess.run(["mount", "-o", "remount,size=400m", os.path.dirname(self.store)],
                       check=True)
        rest = self.dedupctl("filter", "lines", expect=OK).out
        self.assertTrue(lines.endswith(rest))
        self.assertGreaterEqual(len(first.out) + len(rest), len(lines), "lines were lost")


if __name__ == "__main__":
    cli.main()
