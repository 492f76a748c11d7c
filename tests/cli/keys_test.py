"""done, and many keys at once: keys on standard input, answers one a line in order."""

import fcntl
import json
import os
import subprocess
import time

import cli
from cli import ABSENT, COMPLETED, DONE_ERROR, ERROR, HELD, IN_FLIGHT, OK, STALE, USAGE


class Keys(cli.CliTest):
    def answers(self, *command, keys, expect=OK):
        done = self.dedupctl(*command, stdin=keys, expect=expect)
        return [line.split("\t") for line in done.text.splitlines()]

    def test_done_answers_with_its_exit_code_alone(self):
        self.dedupctl("remember", "known", "--receipt", "r", expect=OK)
        self.dedupctl("claim", "held", expect=OK)
        for key, code in (("known", 0), ("held", 1), ("absent", 1)):
            found = self.dedupctl("done", key, expect=code)
            self.assertEqual((found.out, found.err), (b"", b""))
        self.assertEqual(self.dedupctl("--json", "done", "known").json["done"], True)

    def test_an_error_of_done_is_no_answer(self):
        missing = self.dedupctl("done", "k", expect=DONE_ERROR)
        self.assertInError(self.store, missing)
        for wrong in (("done",), ("done", ""), ("done", "k", "--no-such")):
            self.dedupctl(*wrong, expect=USAGE)
        self.dedupctl("remember", "a", expect=OK)
        self.dedupctl("done", "-", stdin=b"a\n\n", expect=DONE_ERROR)
        self.assertInError("no key", self.dedupctl("done", "-", expect=DONE_ERROR))
        with open("/dev/null", "w") as closed:  # not to be read
            self.dedupctl("done", "-0", stdin=None, preexec_fn=lambda: os.close(0), stdout=closed,
                          expect=DONE_ERROR)

    def test_many_keys_and_their_answers_in_order(self):
        keys = b"a\nb\na\nlast without end"
        self.assertEqual(self.answers("claim", "-", "--owner", "w", keys=keys),
                         [["claimed", "1", "a"], ["claimed", "2", "b"], ["in-flight", "1", "a"],
                          ["claimed", "3", "last without end"]])
        self.assertEqual(self.answers("complete", "-", "--receipt", "r", keys=b"b\n"),
                         [["completed", "2", "b"]])
        self.assertEqual(self.answers("lookup", "-", keys=b"b\na\nc\n"),
                         [["completed", "2", "b"], ["in-flight", "1", "a"], ["absent", "-", "c"]])
        self.assertEqual(self.answers("done", "-", keys=b"b\na\n", expect=ERROR),
                         [["yes", "2", "b"], ["no", "1", "a"]])
        self.dedupctl("done", "-", stdin=b"b\nb\n", expect=OK)
        self.assertEqual(self.answers("release", "-", keys=b"a\nb\nc\n"),
                         [["released", "1", "a"], ["completed", "2", "b"], ["absent", "-", "c"]])
        self.assertEqual([answer[0] for answer in
                          self.answers("remember", "-", keys=b"b\nnew\nnew\n")],
                         ["duplicate", "new", "duplicate"])
        self.assertEqual(self.dedupctl("lookup", "b", expect=COMPLETED).out, b"r")

    def test_keys_of_any_bytes_end_with_a_nul(self):
        keys = [b"a\nb", b"\xff\t", b"-"]
        self.dedupctl("remember", "-0", stdin=b"\0".join(keys), expect=OK)
        listed = [json.loads(line)["key_base64"] for line in
                  self.dedupctl("--json", "ls", expect=OK).out.splitlines()]
        self.assertEqual(sorted(listed), sorted(cli.b64(key) for key in keys))
        found = self.answers("done", "-", "-0", keys=b"a\nb\0")
        self.assertEqual(found[0][0::2], ["yes", "a\\x0ab"])

    def test_a_bad_key_keeps_no_other_from_its_answer(self):
        done = self.dedupctl("remember", "-", stdin=b"a\n\n" + b"x" * 1025 + b"\nb\n", expect=ERROR)
        self.assertEqual([line.split("\t")[0] for line in done.text.splitlines()],
                         ["new", "error", "error", "new"])
        self.assertInError("1 to 1,024 bytes", done)
        self.assertNotIn("x" * 100, done.error)
        missing = self.dedupctl("complete", "-", stdin=b"b\nnobody\n", expect=ABSENT)
        self.assertInError('key "nobody"', missing)

    def test_each_outcome_is_an_answer(self):
        self.dedupctl("remember", "-", stdin=b"known\n", expect=OK)
        self.dedupctl("claim", "held", "--lease", "1ms", "--hold", expect=OK)
        self.dedupctl("claim", "works", "--fingerprint", "f", expect=OK)
        time.sleep(0.01)
        keys = b"known\nheld\nworks\n"
        for command, words in ((("claim", "--fingerprint", "g"), ["completed", "held", "mismatch"]),
                               (("remember",), ["duplicate", "held", "in-flight"]),
                               (("lookup",), ["completed", "in-flight", "in-flight"])):
            got = self.answers(command[0], "-", *command[1:], keys=keys, expect=OK)
            self.assertEqual([answer[0] for answer in got], words)

    def test_json_has_one_object_a_key(self):
        done = self.dedupctl("--json", "remember", "-", stdin=b"a\na\n", expect=OK)
        found = [json.loads(line) for line in done.out.splitlines()]
        self.assertEqual([one["outcome"] for one in found], ["new", "duplicate"])

    def test_a_batch_costs_one_flush(self):
        self.dedupctl("remember", "-", stdin=b"".join(b"k%d\n" % i for i in range(5000)), expect=OK)
        dump = self.dedupctl("--json", "dump", "1", expect=OK).out.splitlines()
        items = [json.loads(line) for line in dump]
        flushed = {item["flushed_bytes"] for item in items if item["item"] == "record"}
        self.assertLessEqual(len(flushed), 2, "as many as the pipe gave at once")

    def test_a_coprocess_is_answered_as_it_asks_and_holds_nothing_meanwhile(self):
        asked = self.start("remember", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL)
        for key in (b"one", b"two"):
            asked.stdin.write(key + b"\n")
            asked.stdin.flush()
            self.assertRegex(asked.stdout.readline(), b"^new\t\\d+\t" + key + b"$")
            self.dedupctl("remember", b"other " + key, expect=OK)

    def test_claims_whose_answers_were_not_written_are_released(self):
        for form in ((), ("--json",)):
            with open("/dev/full", "wb") as full:
                done = self.dedupctl(*form, "claim", "-", stdin=b"x1\nx2\n", stdout=full, expect=ERROR)
            self.assertInError("what was claimed and not printed was released again: 2 keys", done)
        read_end, write_end = os.pipe()
        os.close(read_end)
        with open(write_end, "wb") as gone:
            self.dedupctl("claim", "-", stdin=b"x1\nx2\n", stdout=gone, expect=ERROR)
        self.assertEqual(self.dedupctl("ls", "--state", "in-flight", expect=OK).out, b"")

    def test_claims_whose_answers_were_written_are_kept(self):
        keys = [b"%05d" % number + b"x" * 200 for number in range(3000)]
        with open(self.path("keys"), "wb") as file:
            file.write(b"\n".join(keys))
        with open(self.path("keys"), "rb") as file:
            claiming = self.start("claim", "-", stdin=file, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
            read = b""
            while len(read) < 300_000:
                read += os.read(claiming.stdout.fileno(), 65_536)
            pipe_bytes = fcntl.fcntl(claiming.stdout, fcntl.F_GETPIPE_SZ)
            claiming.stdout.close()
            self.assertEqual(claiming.wait(cli.HANG_SECONDS), ERROR)
        answered = [line.split(b"\t")[2] for line in read.split(b"\n")[:-1]]
        held = [json.loads(line)["key"].encode() for line in
                self.dedupctl("--json", "ls", "--state", "in-flight", expect=OK).out.splitlines()]
        self.assertEqual(held, keys[:len(held)], "a part that was written, and no other")
        self.assertLessEqual(len(answered), len(held))
        self.assertLessEqual(len(held), (len(read) + pipe_bytes) // len(b"claimed\t1\t" + keys[0]))

    def test_what_is_done_and_not_printed_is_said_to_be_done(self):
        full = open("/dev/full", "wb")
        self.addCleanup(full.close)
        self.dedupctl("claim", "-", stdin=b"a\nb\nc\nd\n", expect=OK)
        for command, keys, facts in (
                (("remember", "new"), b"", ["but the key is recorded, as new"]),
                (("complete", "a"), b"", ["but the key is completed"]),
                (("renew", "b", "--claim", "2", "--lease", "1h"), b"", ["renewed  claim_sequence=2"]),
                (("release", "b"), b"", ["but the answer is: released"]),
                (("remember", "-"), b"c\nn1\nn2\n", ['but 2 keys are recorded as new, from "n1" on']),
                (("complete", "-"), b"nobody\nc\n", ['but 1 key is recorded as completed, from "c" on']),
                (("release", "-"), b"d\n", ['but 1 key is recorded as released, from "d" on'])):
            done = self.dedupctl(*command, stdin=keys, stdout=full, expect=ERROR)
            for fact in facts + ["cannot write to standard output: No space left on device\n"]:
                self.assertIn(fact, done.error, done)
            self.assertNotIn("try again", done.error)
        self.assertEqual([word for word, *_ in self.answers("lookup", "-", keys=b"new\na\nb\nc\nd\nn2\n")],
                         ["completed", "completed", "absent", "completed", "absent", "completed"])

    def test_what_is_done_is_said_to_a_pipe_that_is_closed(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        with open(write_end, "wb") as gone:
            done = self.dedupctl("remember", "k", stdout=gone, expect=ERROR)
        self.assertInError(["nobody reads standard output any more", "recorded, as new"], done)

    def take_over(self, key):
        """The claim_sequences of a claim that was lost, and of another, whose lease runs."""
        lost = self.dedupctl("claim", key, "--lease", "1ms", "--print", "sequence", expect=OK).text.strip()
        taken = self.dedupctl("claim", key, "--wait", "1m", "--lease", "1h", "--owner", "w2",
                              "--print", "sequence", expect=OK).text.strip()
        self.assertNotEqual(lost, taken)
        return lost, taken

    def test_a_list_of_claims_touches_no_other_claims(self):
        # Guards against a list that is acted on when somebody else has taken a key over meanwhile.
        for form, line in (("tabs", lambda key, fence: f"{key}\t{fence}\n"),
                           ("json", lambda key, fence: json.dumps({"key": key, "claim_sequence": int(fence)}) + "\n")):
            key = f"a\tkey of {form}"
            lost, taken = self.take_over(key)
            for command in ("release", "complete"):
                done = self.dedupctl(command, "-", "--claims", form, stdin=line(key, lost).encode(), expect=STALE)
                self.assertInError(f"claim {taken} by \"w2\" replaced it", done)
                self.assertRegex(done.text, rf"^error\t.*\ta\\x09key of {form}\n$")
            self.assertEqual(self.answers("complete", "-", "--claims", form, keys=line(key, taken).encode()),
                             [["completed", taken, f"a\\x09key of {form}"]])
            self.assertEqual(self.answers("release", "-", "--claims", form, keys=line(key, taken).encode()),
                             [["completed", taken, f"a\\x09key of {form}"]])

    def test_what_ls_lists_can_be_released(self):
        self.dedupctl("claim", "-", "--lease", "1ms", stdin=b"a\nb\xff\n", expect=OK)
        self.dedupctl("-n", "elsewhere", "claim", "a", "--lease", "1ms", expect=OK)
        self.wait_until(lambda: len(self.dedupctl("ls", "--stuck", "-A").text.splitlines()) == 3, "all are stuck")
        listed = self.dedupctl("--json", "ls", "--stuck", "-A", expect=OK).out
        done = self.dedupctl("--json", "release", "-", "--claims", "json", stdin=listed, expect=ERROR)
        words = [json.loads(line)["outcome"] for line in done.out.splitlines()]
        self.assertEqual(sorted(words), ["error", "released", "released"])
        self.assertInError('the claim is of namespace "elsewhere"', done)
        self.assertEqual(len(self.dedupctl("ls", "--stuck", "-A", expect=OK).text.splitlines()), 1)
        again = self.dedupctl("-n", "elsewhere", "release", "-", "--claims", "json", stdin=listed, expect=ERROR)
        self.assertEqual(again.text.count("released\t"), 1)

    def test_the_answers_of_claim_are_a_list_of_claims(self):
        self.dedupctl("claim", "theirs", "--owner", "w2", expect=OK)
        answered = self.dedupctl("--json", "claim", "-", stdin=b"mine\ntheirs\n", expect=OK).out
        done = self.dedupctl("complete", "-", "--claims", "json", stdin=answered, expect=ERROR)
        self.assertEqual([line.split("\t")[0] for line in done.text.splitlines()], ["completed", "error"])
        self.assertInError("somebody else's", done)
        self.dedupctl("lookup", "theirs", expect=IN_FLIGHT)

    def test_a_list_of_keys_releases_nobody_who_works(self):
        _, taken = self.take_over("k")
        done = self.dedupctl("release", "-", stdin=b"k\n", expect=IN_FLIGHT)
        self.assertEqual(done.text, f"in-flight\t{taken}\tk\n")
        self.assertInError([f"claim {taken} of w2 has a lease that still runs", "--claims"], done)
        self.dedupctl("lookup", "k", expect=IN_FLIGHT)
        self.assertEqual(self.answers("release", "-", "--claims", "tabs", keys=f"k\t{taken}\n".encode()),
                         [["released", taken, "k"]])

    def test_a_held_key_is_decided_by_nobody_who_does_not_name_its_claim(self):
        fence = self.dedupctl("claim", "k", "--owner", "w1", "--print", "sequence", expect=OK).text.strip()
        self.dedupctl("hold", "k", "--claim", fence, "--reason", "timeout", expect=OK)
        for command in ("release", "complete"):
            for arguments in ((command, "k"), (command, "-")):
                done = self.dedupctl(*arguments, stdin=b"k\n", expect=STALE)
                self.assertInError([f"nobody has answered claim {fence} by w1", "dedupctl -s", "resolve --claim",
                                    "--not-done"], done)
        failed = self.dedupctl("--json", "release", "k", expect=STALE).json
        self.assertEqual(failed["error"]["code"], "stale_claim")
        self.assertEqual(self.answers("release", "-", keys=b"k\n", expect=STALE), [["held", fence, "k"]])
        self.dedupctl("claim", "k", expect=HELD)
        self.dedupctl("release", "k", "--claim", fence, expect=OK)  # its holder, who knows

    def test_lines_that_name_no_claim(self):
        self.dedupctl("claim", "k", expect=OK)
        for form, lines in (("tabs", [b"k", b"k\t", b"k\t0", b"k\t1x", b"k\t-1", b"\t1", b""]),
                            ("json", [b"k", b"[]", b"{}", b'{"key":"k"}', b'{"key":1,"claim_sequence":1}',
                                      b'{"key":"k","claim_sequence":"1"}', b'{"key":"k","claim_sequence":0}',
                                      b'{"key":"k","claim_sequence":1,"namespace":7}',
                                      b'{"key_base64":"?","key":"k","claim_sequence":1}', b"{" * 100_000])):
            done = self.dedupctl("release", "-", "--claims", form, stdin=b"\n".join(lines) + b"\n", expect=ERROR)
            self.assertEqual([line.split("\t")[0] for line in done.text.splitlines()], ["error"] * len(lines))
        self.dedupctl("lookup", "k", expect=IN_FLIGHT)

    def test_what_does_not_go_together(self):
        for wrong in (("claim", "k", "-0"), ("claim", "-", "--wait", "1s"),
                      ("complete", "-", "--claim", "1"), ("release", "-", "--claim", "1"),
                      ("complete", "k", "--claims", "tabs"), ("release", "k", "--claims", "json"),
                      ("release", "-", "--claims", "csv"),
                      ("remember", "-", "--receipt-file", "-")):
            self.dedupctl(*wrong, stdin=b"k\n", expect=USAGE)
        self.assertFalse(os.path.exists(self.store))

    def test_the_sequence_alone(self):
        got = self.dedupctl("claim", "k", "--print", "sequence", expect=OK)
        self.assertEqual(got.text, "1\n")
        again = self.dedupctl("claim", "k", "--print", "sequence", expect=cli.IN_FLIGHT)
        self.assertEqual(again.out, b"")
        self.dedupctl("complete", "k", "--claim", got.text.strip(), "--receipt", "r", expect=OK)
        self.assertEqual(self.dedupctl("claim", "k", "--print", "sequence").out, b"")


if __name__ == "__main__":
    cli.main()
