"""--json: the fields that scripts rely on."""

import json
import os
import re

import cli
from cli import ABSENT, COMPLETED, ERROR, IN_FLIGHT, MISMATCH, OK, STALE, USAGE

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "dedupctl.md")


class JsonOutput(cli.CliTest):
    def run_json(self, *arguments, expect):
        return self.dedupctl("--json", *arguments, expect=expect).json

    def test_every_outcome_has_its_word(self):
        claimed = self.run_json("claim", "k", "--fingerprint", "f", "--lease", "1h", expect=OK)
        self.assertEqual((claimed["outcome"], claimed["namespace"], claimed["key"],
                          claimed["claim_sequence"], claimed["attempt"]),
                         ("claimed", "default", "k", 1, 1))
        self.assertGreater(claimed["deadline_ms"], 0)
        in_flight = self.run_json("claim", "k", expect=IN_FLIGHT)
        self.assertEqual((in_flight["outcome"], in_flight["claim_sequence"]), ("in_flight", 1))
        mismatch = self.run_json("claim", "k", "--fingerprint", "g", expect=MISMATCH)
        self.assertEqual((mismatch["outcome"], mismatch["state"], mismatch["conflicts"]),
                         ("mismatch", "in_flight", 1))
        renewed = self.run_json("renew", "k", "--claim", "1", "--lease", "2h", expect=OK)
        self.assertEqual((renewed["outcome"], renewed["claim_sequence"]), ("renewed", 1))
        self.assertEqual(self.run_json("complete", "k", "--receipt", "r", expect=OK)["outcome"],
                         "completed")
        completed = self.run_json("lookup", "k", expect=COMPLETED)
        self.assertEqual((completed["outcome"], completed["receipt"], completed["receipt_base64"],
                          completed["attempt"]), ("completed", "r", cli.b64(b"r"), 1))
        self.assertEqual(completed["expires_at_ms"] - completed["completed_at_ms"], 24 * 3600 * 1000)
        self.dedupctl("remember", "kept", "--ttl", "never", expect=OK)
        self.assertIsNone(self.run_json("lookup", "kept", expect=COMPLETED)["expires_at_ms"])
        self.assertEqual(self.run_json("remember", "n", expect=OK)["outcome"], "new")
        self.assertEqual(self.run_json("remember", "n", expect=COMPLETED)["outcome"], "duplicate")
        self.assertEqual(self.run_json("lookup", "none", expect=ABSENT)["outcome"], "absent")
        self.run_json("claim", "free", expect=OK)
        self.assertEqual(self.run_json("release", "free", expect=OK)["outcome"], "released")
        self.assertEqual(self.run_json("release", "free", expect=OK)["outcome"], "absent")

    def test_bytes_that_are_not_utf8_come_in_base64_alone(self):
        self.dedupctl("remember", b"\xff", "--receipt-file", "-", stdin=b"\x00\xfe", expect=OK)
        found = self.run_json("lookup", b"\xff", expect=COMPLETED)
        self.assertNotIn("key", found)
        self.assertNotIn("receipt", found)
        self.assertEqual((found["key_base64"], found["receipt_base64"]),
                         (cli.b64(b"\xff"), cli.b64(b"\x00\xfe")))
        self.assertEqual(self.run_json("hash", "a", expect=OK)["hash"], "af63dc4c8601ec8c")

    def test_what_cannot_be_seen_is_escaped_everywhere(self):
        # C1 controls, a line separator, overrides and isolates of direction, zero width, a tag.
        for character in "\x7f\x85\x9b\u061c\u200b\u200f\u2028\u202e\u2066\u2069\ufeff\U000e0041":
            key = f"a{character}b"
            self.dedupctl("remember", key, expect=OK)
            for command in ("lookup", "ls", "export", "inspect"):
                with self.subTest(command=command, character=ascii(character)):
                    keys = () if command in ("ls", "export") else (key,)
                    done = self.dedupctl("--json", command, *keys)
                    self.assertNotIn(character, done.text)
                    self.assertIn(ascii(character)[1:-1].replace("\\x", "\\u00")
                                  if ord(character) < 0x10000 else "\\udb40\\udc41", done.text)
            for arguments in (("ls",), ("inspect", key), (key,), ("-s", key, "stats"),
                              ("import", key), ("claim", "k", "--lease", key)):
                with self.subTest(arguments=arguments):
                    done = self.dedupctl(*arguments)
                    shown = (done.out + done.err).decode()
                    self.assertNotIn(character, shown)
                    self.assertIn("a" + "".join(f"\\x{byte:02x}" for byte in character.encode())
                                  + "b", shown.replace("\\\\", "\\"))

    def test_no_deadline_is_null(self):
        self.assertIsNone(self.run_json("claim", "k", "--ttl", "never", expect=OK)["deadline_ms"])

    def test_ls_prints_one_object_a_line(self):
        for key in ("a", "b", "c"):
            self.dedupctl("remember", key, expect=OK)
        self.dedupctl("claim", "d", expect=OK)
        found = [json.loads(line) for line in
                 self.dedupctl("ls", "--json", expect=OK).out.splitlines()]
        self.assertEqual({head["key"]: head["state"] for head in found},
                         {"a": "completed", "b": "completed", "c": "completed", "d": "in_flight"})

    def test_inspect_stats_and_verify_print_one_object(self):
        self.dedupctl("claim", "k", "--owner", "o", expect=OK)
        self.dedupctl("complete", "k", "--receipt", "r", expect=OK)
        seen = self.run_json("inspect", "k", expect=OK)
        self.assertEqual(seen["state"], "completed")
        self.assertEqual([record["state"] for record in seen["records"]],
                         ["in_flight", "completed"])
        self.assertEqual(seen["records"][1]["owner"], "o")
        self.assertGreater(seen["records"][1]["offset"], seen["records"][0]["offset"])
        stats = self.run_json("stats", expect=OK)
        self.assertEqual((stats["streams"], stats["completed"], stats["records"]), (1, 1, 2))
        self.assertEqual(len(stats["store_id"]), 32)
        verified = self.run_json("verify", expect=OK)
        self.assertEqual((verified["ok"], verified["records"], verified["problems"]),
                         (True, 2, []))

    def documented(self, begin, end):
        """The names between backticks in a part of the page."""
        with open(PAGE) as page:
            part = page.read().split(begin, 1)[1].split(end, 1)[0]
        return set(re.findall(r"`([a-z_]+)`", part))

    def assertDocumented(self, objects, begin, end):
        names = set().union(*objects)
        plain = {name.removesuffix("_base64") for name in names}
        self.assertEqual(plain - self.documented(begin, end), set())

    def test_the_page_names_every_word_and_member(self):
        # Guards against a reference that lacks what scripts would need most.
        def run(*arguments):
            return self.dedupctl("--json", *arguments).json

        def fence(key):
            return str(run("lookup", key)["claim_sequence"])

        claims = [run("claim", "k", "--lease", "1h", "--fingerprint", "f"), run("claim", "k"),
                  run("claim", "k", "--fingerprint", "g"), run("claim", "held", "--lease", "1ms",
                                                               "--hold", "--owner", "w")]
        self.wait_until(lambda: run("claim", "held")["outcome"] == "held", "the lease has run out")
        others = [run("renew", "k", "--claim", fence("k"), "--lease", "2h"),
                  run("note", "k", "--claim", fence("k"), "text"), run("complete", "k"),
                  run("remember", "k"), run("forget", "k", "--reason", "why", "--by", "ada"),
                  run("lookup", "k"), run("remember", "n"), run("claim", "free"),
                  run("release", "free")]
        claims += [run("claim", "held"), run("claim", "k"), run("claim", "n")]
        words = {answer["outcome"] for answer in claims + others}
        self.assertEqual(words, self.documented("`outcome` is one of", "`claim_sequence` is"))
        common = {"outcome", "namespace", "key"}
        for answer in claims:
            flat = (set(answer) | set(answer.get("previous", ()))) - common - {"key_base64"}
            self.assertDocumented([flat], "### claim KEY", "### complete KEY")
        self.dedupctl("resolve", "held", "--claim", fence("held"), "--not-done", "--reason", "why",
                      expect=OK)
        self.dedupctl("claim", "still held", "--lease", "1ms", "--hold", expect=OK)
        for key in ("k", "held"):
            found = run("inspect", key)
            records = [set(record) | set(record.get("verdict", ())) for record in found["records"]]
            self.assertDocumented(records, "### inspect KEY", "### ls")
        exported = [json.loads(line) for line in self.dedupctl("export").text.splitlines()[1:-1]]
        self.assertDocumented([set(line) | set(line.get("verdict", ())) for line in exported],
                              "### export", "### import")

    def test_errors_are_objects_too(self):
        for arguments, code, name in (
                (("lookup", "k"), ERROR, "invalid_argument"),
                (("claim", ""), USAGE, "usage"),
                (("claim",), USAGE, "usage"),
                (("init",), OK, None),
                (("complete", "k"), ABSENT, "not_claimed"),
                (("complete", "k", "--claim", "7"), STALE, "stale_claim")):
            result = self.dedupctl("--json", *arguments, expect=code)
            if name is None:
                continue
            self.assertEqual(result.json["error"]["code"], name, result)
            self.assertIn(result.json["error"]["message"], result.error)

    def test_filter_takes_the_flag_before_and_a_pointer_after_its_name(self):
        lines = b'{"id":1}\n{"id":2}\n{"id":1,"x":0}\n'
        result = self.dedupctl("--json", "filter", "--json", "/id", stdin=lines, expect=OK)
        self.assertEqual(result.out, b'{"id":1}\n{"id":2}\n')
        summary = json.loads(result.err)
        self.assertEqual((summary["read"], summary["new"], summary["repeated"]), (3, 2, 1))
        plain = self.dedupctl("filter", "--json", "/id", stdin=lines, expect=OK)
        self.assertEqual(plain.out, b"")
        self.assertInError("3 lines read: 0 new, 3 repeated", plain)


if __name__ == "__main__":
    cli.main()
