"""Claim, complete, release, renew, lookup, remember: what they print and how they exit."""

import json
import os
import struct
import subprocess
import time

import cli
from cli import ABSENT, COMPLETED, ERROR, HELD, IN_FLIGHT, MISMATCH, OK, STALE, USAGE


class Outcomes(cli.CliTest):
    def claim(self, key, *options):
        return self.dedupctl("--json", "claim", key, *options, expect=OK).json["claim_sequence"]

    def test_a_key_goes_from_claimed_to_completed(self):
        claimed = self.dedupctl("claim", "order-1", "--owner", "worker-1", expect=OK)
        self.assertRegex(claimed.text, r"^claimed  claim_sequence=1  attempt=1  deadline ")
        again = self.dedupctl("claim", "order-1", expect=IN_FLIGHT)
        self.assertRegex(again.text, r"^in-flight  claim_sequence=1 .*owner=worker-1")
        looked = self.dedupctl("lookup", "order-1", expect=IN_FLIGHT)
        self.assertInError("in-flight", looked)
        self.assertEqual(looked.out, b"", "standard output is for receipts")

        self.dedupctl("complete", "order-1", "--claim", "1", "--receipt", "paid", expect=OK)
        for command in ("claim", "lookup"):
            done = self.dedupctl(command, "order-1", expect=COMPLETED)
            self.assertEqual(done.out, b"paid", "the receipt, and nothing but the receipt")
            self.assertInError("completed", done)

    def test_receipts_are_final(self):
        self.claim("k")
        self.dedupctl("complete", "k", "--receipt", "one", expect=OK)
        self.dedupctl("complete", "k", "--receipt", "one", expect=OK)
        other = self.dedupctl("complete", "k", "--receipt", "two", expect=STALE)
        self.assertInError("another receipt", other)
        self.assertEqual(self.dedupctl("release", "k", expect=OK).text,
                         "nothing to release  the key is completed\n")
        self.assertEqual(self.dedupctl("lookup", "k").out, b"one")

    def test_completing_needs_a_claim(self):
        self.dedupctl("init", expect=OK)
        self.assertInError("not claimed", self.dedupctl("complete", "k", expect=ABSENT))
        absent = self.dedupctl("lookup", "k", expect=ABSENT)
        self.assertEqual((absent.out, absent.error), (b"", "dedupctl: absent\n"))

    def test_what_needs_a_claim_makes_no_store(self):
        why = ["--reason", "r"]
        for arguments in (("complete", "k"), ("release", "k"), ("renew", "k", "--claim", "1", "--lease", "1m"),
                          ("note", "k", "--claim", "1", "text"), ("forget", "k", *why),
                          ("hold", "k", "--claim", "1", *why), ("resolve", "k", "--claim", "1", "--not-done", *why)):
            with self.subTest(arguments):
                self.assertInError("no store at", self.dedupctl(*arguments, expect=ERROR))
                self.assertFalse(os.path.exists(self.store))

    def test_holding_is_about_a_lease(self):
        for policy in (("--hold",), ("--attempts-max", "2")):
            self.assertInError("--lease", self.dedupctl("claim", "k", *policy, expect=USAGE))

    def test_release_lets_others_try(self):
        first = self.claim("k")
        self.assertEqual(self.dedupctl("release", "k", expect=OK).text, "released\n")
        self.dedupctl("lookup", "k", expect=ABSENT)
        second = self.dedupctl("--json", "claim", "k", expect=OK).json
        self.assertGreater(second["claim_sequence"], first)
        self.assertEqual(second["attempt"], 2)
        self.assertEqual(self.dedupctl("release", "nobody-had-it", expect=OK).text,
                         "nothing to release  the key is absent\n")

    def test_a_fence_of_the_past_opens_nothing(self):
        old = str(self.claim("k"))
        self.dedupctl("release", "k", expect=OK)
        new = str(self.claim("k"))
        for command in (("complete", "k", "--claim", old), ("release", "k", "--claim", old),
                        ("renew", "k", "--claim", old, "--lease", "1m")):
            self.assertInError(f"claim {old}", self.dedupctl(*command, expect=STALE))
        self.dedupctl("renew", "k", "--claim", new, "--lease", "1m", expect=OK)
        self.dedupctl("complete", "k", "--claim", new, expect=OK)

    def test_without_a_fence_it_says_whose_claim_it_was(self):
        for command in ("complete", "release"):
            with self.subTest(command=command):
                self.claim(command)
                self.dedupctl("release", command, expect=OK)
                fence = self.claim(command, "--owner", "worker-2")
                done = self.dedupctl(command, command, expect=OK)
                self.assertInError([f"claim {fence}, attempt 2, of worker-2", "--claim"], done)
                # Of a first attempt there is nothing to say, nor with a fence.
                first = "first " + command
                self.claim(first)
                self.assertEqual(self.dedupctl(command, first, expect=OK).error, "")
                fence = self.claim("fenced " + command)
                done = self.dedupctl(command, "fenced " + command, "--claim", str(fence), expect=OK)
                self.assertEqual(done.error, "")

    def test_a_note_is_told_to_whoever_comes_next(self):
        fence = str(self.claim("k", "--owner", "w1", "--lease", "1ms"))
        noted = self.dedupctl("note", "k", "--claim", fence, "reference 8125", expect=OK)
        self.assertEqual(noted.text, "noted\n")
        time.sleep(0.01)
        taken = self.dedupctl("claim", "k", "--owner", "w2", expect=OK)
        self.assertInError([f"before: claim {fence} by w1, attempt 1", "lease ran out",
                            "note reference 8125"], taken)
        self.assertInError("replaced", self.dedupctl("note", "k", "--claim", fence, "late",
                                                     expect=STALE))
        self.dedupctl("release", "k", expect=OK)
        again = self.dedupctl("--json", "claim", "k", expect=OK).json["previous"]
        self.assertEqual((again["owner"], again["end"], again["attempt"]), ("w2", "released", 2))
        quiet = self.dedupctl("-q", "claim", "fresh", expect=OK)
        self.assertEqual(quiet.error, "")

    def hold(self, key):
        fence = str(self.claim(key, "--owner", "w1", "--lease", "1h", "--hold"))
        self.dedupctl("note", key, "--claim", fence, "reference 8125", expect=OK)
        self.dedupctl("renew", key, "--claim", fence, "--lease", "1ms", expect=OK)
        time.sleep(0.01)
        return fence

    def test_a_held_key_waits_for_a_decision(self):
        fence = self.hold("k")
        held = self.dedupctl("claim", "k", expect=HELD)
        self.assertRegex(held.text, f"^held  claim {fence} by w1, attempt 1, since .* lease ran out "
                                    ".*note reference 8125")
        self.assertInError(["resolve", f"--claim {fence}"], held)
        self.assertEqual(self.dedupctl("--json", "claim", "k", expect=HELD).json["previous"]["note"],
                         "reference 8125")
        self.dedupctl("remember", "k", expect=HELD)
        self.dedupctl("exec", "--key", "k", "--", "false", expect=HELD)
        self.assertInError("held", self.dedupctl("lookup", "k", expect=IN_FLIGHT))
        listed = self.dedupctl("held", expect=OK).text
        for part in ("k\n", f"claim     {fence}, attempt 1, by w1", "note      reference 8125"):
            self.assertIn(part, listed)
        self.assertEqual(self.dedupctl("--json", "held", "-A", expect=OK).json["state"], "held")
        self.assertRegex(self.dedupctl("ls", "--state", "held", expect=OK).text, "^held ")
        self.assertEqual(self.dedupctl("ls", "--stuck", expect=OK).text, "")
        self.assertEqual(self.dedupctl("--json", "namespaces", expect=OK).json["held"], 1)
        self.assertIn("until somebody resolves it", self.dedupctl("inspect", "k", expect=OK).text)
        self.dedupctl("sweep", expect=OK)
        self.dedupctl("claim", "k", expect=HELD)
        for command in (("release", "k"), ("complete", "k")):  # by whoever has not looked
            self.assertInError("resolve it", self.dedupctl(*command, expect=STALE))
        self.dedupctl("note", "k", "--claim", fence, "late", expect=STALE)

    def test_the_commands_that_decide_can_be_pasted(self):
        fence = self.hold("o'clock -k")
        for option, outcome in (("--receipt ''", COMPLETED), ("--not-done", OK)):
            shown = (self.dedupctl("-n", "default", "claim", "o'clock -k", expect=HELD).error,
                     self.dedupctl("held", "-A", expect=OK).text)
            for text in shown:
                commands = [line[line.index("dedupctl -s"):] for line in text.splitlines()
                            if "resolve" in line and option in line]
                self.assertEqual(len(commands), 1, text)
                command = commands[0].replace("dedupctl", cli.DEDUPCTL, 1)
                refused = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
                self.assertEqual(refused.returncode, USAGE, "without a reason")
            subprocess.run(["bash", "-c", command.replace("--reason ''", "--reason asked")
                                .replace("--receipt ''", "--receipt paid")],
                           capture_output=True, check=True, cwd="/")
            self.dedupctl("claim", "o'clock -k", expect=outcome)
            if outcome == COMPLETED:
                self.dedupctl("forget", "o'clock -k", "--reason", "test", expect=OK)
                self.hold("o'clock -k")
        self.assertNotIn("resolve", self.dedupctl("-q", "held", expect=OK).text)

    def test_whoever_is_called_at_night_stops_a_takeover(self):
        # Guards against a key that the next claim takes over while somebody still looks at it.
        fence = str(self.claim("k", "--owner", "w1", "--lease", "1ms"))
        self.wait_until(lambda: self.dedupctl("ls", "--stuck").text, "the lease has run out")
        why = ("--reason", "w1 is dead; asking the bank")
        self.dedupctl("hold", "k", *why, expect=USAGE)
        self.dedupctl("hold", "k", "--claim", fence, expect=USAGE)
        self.dedupctl("hold", "k", "--claim", "999", *why, expect=STALE)
        self.assertEqual(self.dedupctl("hold", "k", "--claim", fence, *why, expect=OK).text, "held\n")
        self.assertInError("resolve", self.dedupctl("claim", "k", expect=HELD))
        self.assertIn("reason    w1 is dead; asking the bank", self.dedupctl("held", expect=OK).text)
        self.assertEqual(self.dedupctl("ls", "--stuck", expect=OK).text, "")
        told = self.dedupctl("--json", "hold", "k", "--claim", fence, *why, expect=OK).json
        self.assertEqual((told["outcome"], told["key"], told["claim_sequence"]), ("held", "k", int(fence)))
        self.dedupctl("resolve", "k", "--claim", fence, "--not-done", "--reason", "no", expect=OK)
        taken = str(self.claim("k"))
        self.assertInError(f"claim {taken}", self.dedupctl("hold", "k", "--claim", fence, *why, expect=STALE))
        with open("/dev/full", "wb") as full:
            result = self.dedupctl("hold", "k", "--claim", taken, *why, stdout=full, expect=ERROR)
        self.assertIn("is held; only that could not be printed", result.error)

    def test_an_http_response_as_a_receipt(self):
        # Byte by byte as docs/format.md has it: http::serve refuses to replay anything else.
        def response(status, body, *headers):
            packed = b"HR\1" + struct.pack("<HH", status, len(headers))
            for name, value in headers:
                packed += struct.pack("<HI", len(name), len(value)) + name + value
            return packed + body
        kind = (b"Content-Type", b"application/json")
        with open(self.path("body"), "wb") as file:
            file.write(b"\0\xff")
        why = ("--reason", "it is there", "--by", "ada")
        for number, (options, expected) in enumerate((
                (("--http-status", "201", "--http-type", "application/json", "--receipt", '{"id":1}'),
                 response(201, b'{"id":1}', kind)),
                (("--http-status", "204"), response(204, b"")),
                (("--http-status", "200", "--receipt-file", "body"), response(200, b"\0\xff")))):
            fence = self.hold(f"k{number}")
            self.dedupctl("resolve", f"k{number}", "--claim", fence, *options, *why, expect=OK)
            self.assertEqual(self.dedupctl("lookup", f"k{number}", expect=COMPLETED).out, expected)
            fence = str(self.claim(f"c{number}"))
            self.dedupctl("complete", f"c{number}", "--claim", fence, *options, expect=OK)
            self.assertEqual(self.dedupctl("lookup", f"c{number}", expect=COMPLETED).out, expected)
        fence = self.hold("k")
        for wrong in (("--http-status", "99"), ("--http-status", "600"), ("--http-status", "ok"),
                      ("--http-type", "text/plain", "--receipt", "r"), ("--http-status", "200", "--not-done")):
            self.dedupctl("resolve", "k", "--claim", fence, *wrong, *why, expect=USAGE)
        done = self.dedupctl("resolve", "k", "--claim", fence, "--http-status", "200", "--http-type", "a\nb", *why,
                             expect=ERROR)
        self.assertInError("line end", done)
        self.dedupctl("claim", "k", expect=HELD)

    def test_a_decision_is_fenced_and_says_why_and_by_whom(self):
        fence = self.hold("k")
        why = ("--reason", "in the statement", "--by", "ada")
        self.dedupctl("resolve", "k", "--claim", fence, "--receipt", "paid", expect=USAGE)
        self.dedupctl("resolve", "k", "--claim", fence, *why, expect=USAGE)
        self.dedupctl("resolve", "k", "--claim", fence, "--receipt", "paid", "--not-done", *why,
                      expect=USAGE)
        self.dedupctl("resolve", "k", "--claim", "999", "--not-done", *why, expect=STALE)
        self.dedupctl("resolve", "k", "--claim", fence, "--receipt", "paid", *why, expect=OK)
        self.dedupctl("resolve", "k", "--claim", fence, "--receipt", "paid", *why, expect=OK)
        self.dedupctl("resolve", "k", "--claim", fence, "--not-done", *why, expect=STALE)
        self.assertEqual(self.dedupctl("claim", "k", expect=COMPLETED).out, b"paid")
        self.assertIn(f"claim {fence} resolved: it had been done\n    by        ada\n",
                      self.dedupctl("inspect", "k").text)
        self.assertEqual(self.dedupctl("held", expect=OK).text, "")

        fence = self.hold("empty")
        self.assertInError("--receipt is empty", self.dedupctl(
            "resolve", "empty", "--claim", fence, "--receipt", "", *why, expect=USAGE))
        self.dedupctl("resolve", "empty", "--claim", fence, "--receipt-file", "/dev/null", *why,
                      expect=OK)
        self.assertEqual(self.dedupctl("claim", "empty", expect=COMPLETED).out, b"")

        fence = self.hold("not done")
        self.dedupctl("resolve", "not done", "--claim", fence, "--not-done", *why, expect=OK)
        late = self.dedupctl("resolve", "not done", "--claim", fence, "--receipt", "r", "--reason",
                             "other", "--by", "bob", expect=STALE)
        self.assertInError(['"ada" decided that it was not done ("in the statement")',
                            "inspect -- 'not done'"], late)
        taken = self.dedupctl("claim", "not done", expect=OK)
        self.assertInError(["resolved", "reason in the statement", "said by ada"], taken)
        running = str(self.claim("running", "--lease", "1h"))
        self.assertInError("may still answer", self.dedupctl(
            "resolve", "running", "--claim", running, "--not-done", *why, expect=IN_FLIGHT))

    def test_only_forgetting_takes_a_completion_back(self):
        fence = str(self.claim("k"))
        self.dedupctl("forget", "k", expect=USAGE)
        self.dedupctl("forget", "k", "--reason", "why", expect=IN_FLIGHT)
        self.dedupctl("complete", "k", "--receipt", "paid", expect=OK)
        self.dedupctl("forget", "k", "--reason", "why", "--claim", "999", expect=STALE)
        forgot = self.dedupctl("forget", "k", "--reason", "paid back", "--by", "ada", expect=OK)
        self.assertEqual(forgot.text, "forgotten\n")
        self.dedupctl("forget", "k", "--reason", "again", expect=ABSENT)
        records = self.dedupctl("--json", "inspect", "k", expect=OK).json["records"]
        self.assertEqual([r.get("receipt") for r in records], [None, "paid", None])
        verdict = records[-1]["verdict"]
        self.assertEqual((verdict["kind"], verdict["by"], verdict["reason"]),
                         ("forgotten", "ada", "paid back"))
        taken = self.dedupctl("claim", "k", expect=OK)
        self.assertInError([f"before: claim {fence}", "forgotten", "paid back"], taken)

    def test_an_export_keeps_what_was_said(self):
        self.hold("held")
        fence = self.hold("resolved")
        self.dedupctl("resolve", "resolved", "--claim", fence, "--receipt", "r", "--reason", "why",
                      "--by", "\xe4", expect=OK)
        self.claim("released")
        self.dedupctl("release", "released", expect=OK)
        exported = self.dedupctl("export", expect=OK).out
        copy = self.path("copy")
        self.dedupctl("-s", copy, "import", "-", stdin=exported, expect=OK)
        strip = lambda text: sorted(
            {k: v for k, v in json.loads(line).items() if "sequence" not in k}.__repr__()
            for line in text.splitlines() if b"dedup_export" not in line)
        self.assertEqual(strip(self.dedupctl("-s", copy, "export", expect=OK).out), strip(exported))
        self.dedupctl("-s", copy, "claim", "held", expect=HELD)

    def test_what_nobody_answered_is_no_first_attempt(self):
        self.claim("k", "--ttl", "1ms")
        time.sleep(1.1)  # the grace
        self.dedupctl("lookup", "k", expect=ABSENT)
        self.assertEqual(self.dedupctl("--json", "claim", "k", expect=OK).json["attempt"], 2)

    def test_a_lease_that_ran_out_is_taken_over(self):
        old = self.claim("k", "--lease", "1ms", "--owner", "first")
        taken = self.dedupctl("--json", "claim", "k", "--wait", "1m", expect=OK).json
        self.assertEqual(taken["attempt"], 2)
        self.assertGreater(taken["claim_sequence"], old)
        self.dedupctl("complete", "k", "--claim", str(old), expect=STALE)

    def test_claim_waits_for_the_receipt(self):
        self.claim("k")
        waiting = self.start("claim", "k", "--wait", "1h", stdout=cli.subprocess.PIPE,
                             stderr=cli.subprocess.PIPE)
        # It does not hold the store while it waits, or nobody could ever complete the key.
        self.dedupctl("complete", "k", "--receipt", "at last", expect=OK)
        out, _ = waiting.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual((waiting.returncode, out), (COMPLETED, b"at last"))

    def test_claim_stops_waiting(self):
        self.claim("k")
        self.dedupctl("claim", "k", "--wait", "100ms", expect=IN_FLIGHT)

    def test_another_fingerprint_is_a_mismatch(self):
        self.claim("k", "--fingerprint", "sha:1")
        self.dedupctl("claim", "k", "--fingerprint", "sha:1", expect=IN_FLIGHT)
        other = self.dedupctl("claim", "k", "--fingerprint", "sha:2", expect=MISMATCH)
        self.assertRegex(other.text, r"^mismatch .*sha:1")
        self.assertIn("1 with another fingerprint: sha:2",
                      self.dedupctl("inspect", "k", expect=OK).text)

    def test_remember_is_new_once(self):
        self.assertRegex(self.dedupctl("remember", "k", "--receipt", "r", expect=OK).text,
                         r"^new  claim_sequence=1\n$")
        again = self.dedupctl("remember", "k", "--receipt", "other", expect=COMPLETED)
        self.assertEqual(again.out, b"r")
        self.assertInError("duplicate", again)
        self.claim("held")
        self.dedupctl("remember", "held", expect=IN_FLIGHT)

    def test_remember_says_who_was_there_before(self):
        for key in ("k", "l", "m"):
            fence = str(self.claim(key, "--owner", "w1"))
            self.dedupctl("note", key, "--claim", fence, "reference 8125", expect=OK)
            self.dedupctl("release", key, expect=OK)
        self.assertInError(["before: claim", "by w1", "note reference 8125"],
                           self.dedupctl("remember", "k", expect=OK))
        for previous in (self.dedupctl("--json", "remember", "l", expect=OK).json["previous"],
                         self.dedupctl("--json", "remember", "-", stdin=b"m\n",
                                       expect=OK).json["previous"]):
            self.assertEqual((previous["end"], previous["note"]), ("released", "reference 8125"))

    def test_receipts_come_from_files_and_keep_every_byte(self):
        receipt = bytes(range(256)) * 300 + b"\n\n"
        with open(self.path("receipt"), "wb") as file:
            file.write(receipt)
        self.dedupctl("remember", "file", "--receipt-file", "receipt", expect=OK)
        self.dedupctl("remember", "stdin", "--receipt-file", "-", stdin=receipt, expect=OK)
        self.dedupctl("remember", "empty", "--receipt", "", expect=OK)
        for key, expected in (("file", receipt), ("stdin", receipt), ("empty", b"")):
            self.assertEqual(self.dedupctl("lookup", key, expect=COMPLETED).out, expected)

    def test_a_time_to_live_ends(self):
        self.claim("short", "--ttl", "1ms")
        self.claim("never", "--ttl", "never")
        # The store grants a grace of a second; after that the key is anybody's.
        self.wait_until(lambda: self.dedupctl("lookup", "short").code == ABSENT, "it expires")
        self.assertIn("never expires", self.dedupctl("inspect", "never").text)

    def test_any_bytes_make_a_key(self):
        keys = [b"-dash", b"--json", b"claim", b"++", b"[a,b]", b" spaces ", b"\xff\xfe", b"a\nb",
                "schlüssel".encode(), b"k" * 1024]
        for key in keys:
            self.dedupctl("remember", "--receipt", "x", "--", key, expect=OK)
        for key in keys:
            found = self.dedupctl("lookup", "--json", "--", key, expect=COMPLETED).json
            self.assertEqual(found["key_base64"], cli.b64(key))
        for key in (b"claim", b"[a,b]"):  # no dash, no need for "--"
            self.dedupctl("lookup", key, expect=COMPLETED)

    def test_namespaces_keep_keys_apart(self):
        self.dedupctl("-n", "a", "remember", "k", "--receipt", "in a", expect=OK)
        self.dedupctl("remember", "k", "--namespace", "b", "--receipt", "in b", expect=OK)
        self.dedupctl("lookup", "k", expect=ABSENT)
        self.assertEqual(self.dedupctl("lookup", "k", "-n", "a", expect=COMPLETED).out, b"in a")

    def test_globals_go_before_and_after_the_command(self):
        other = self.path("other")
        self.dedupctl("-s", other, "remember", "k", expect=OK)
        self.dedupctl("lookup", "k", "--store", other, expect=COMPLETED)
        self.assertFalse(os.path.exists(self.store), "DEDUP_STORE was not asked for")

    def test_the_store_is_in_the_current_directory_by_default(self):
        environment = self.environment()
        del environment["DEDUP_STORE"]
        self.dedupctl("remember", "k", env=environment, expect=OK)
        self.assertTrue(os.path.isdir(self.path("dedup-store")))

    def test_hash_needs_no_store(self):
        # FNV-1a 64 of "a", from the draft's test vectors.
        self.assertEqual(self.dedupctl("-n", "ns", "hash", "a", expect=OK).text,
                         "af63dc4c8601ec8c  ns:af63dc4c8601ec8c\n")
        self.assertFalse(os.path.exists(self.store))

    def test_help_and_version(self):
        self.assertRegex(self.dedupctl("--version", expect=OK).text, r"^dedupctl \d+\.\d+\.\d+( \([0-9a-f]+\))?\n$")
        for command in ("claim complete release renew lookup remember inspect ls stats verify "
                        "hash filter exec bench").split():
            self.assertIn(command, self.dedupctl("--help", expect=OK).text)
            self.assertIn("Usage", self.dedupctl(command, "--help", expect=OK).text)

    def test_a_full_output_is_an_error(self):
        self.dedupctl("remember", "k", "--receipt", "r", expect=OK)
        with open("/dev/full", "wb") as full:
            result = self.dedupctl("lookup", "k", stdout=full, expect=ERROR)
        self.assertIn("No space left on device", result.err.decode())

    def test_what_was_said_of_a_claim_stays_said_if_the_answer_cannot_be_printed(self):
        claim = self.dedupctl("claim", "k", "--print", "sequence", expect=OK).text.strip()
        for command, outcome in ((("note", "k", "--claim", claim, "soon"), "noted"),
                                 (("complete", "k", "--claim", claim), "completed"),
                                 (("forget", "k", "--reason", "wrong"), "forgotten")):
            with open("/dev/full", "wb") as full:
                result = self.dedupctl(*command, stdout=full, expect=ERROR)
            self.assertIn(f"is {outcome}; only that could not be printed", result.error)

    def test_a_claim_that_nobody_was_told_of_is_released(self):
        for form in ([], ["--json"]):
            with open("/dev/full", "wb") as full:
                result = self.dedupctl(*form, "claim", "k", stdout=full, expect=ERROR)
            self.assertIn("the key was released again", result.err.decode())
        read_end, write_end = os.pipe()
        os.close(read_end)
        with open(write_end, "wb") as gone:
            self.dedupctl("claim", "k", stdout=gone, expect=ERROR)
        self.dedupctl("claim", "k", expect=OK)


if __name__ == "__main__":
    cli.main()
