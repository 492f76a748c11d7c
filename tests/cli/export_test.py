"""export and import: every field of every live key arrives, once, and nothing is replaced."""

import base64
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import cli
from cli import COMPLETED, ERROR, IN_FLIGHT, OK, STALE, USAGE

NOW_MS = int(time.time() * 1000)
HOUR_MS = 3_600_000


def encode(name, data):
    """As the format has it: text if it is UTF-8, else base64 under another name."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name + "_base64": base64.b64encode(data).decode()}


def record(key, state="in_flight", **fields):
    line = {"namespace": "default", **encode("key", key), "state": state,
            "timestamp_ms": NOW_MS - HOUR_MS}
    if state == "completed":
        line.update(encode("receipt", fields.pop("receipt", b"")))
    for name, value in fields.items():
        line.update(encode(name, value) if isinstance(value, bytes) else {name: value})
    return line


def jsonl(*lines):
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class ExportTest(cli.CliTest):
    @staticmethod
    def unread(pipe):
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)

    def use(self, name):
        self.store = self.path(name)

    def export(self, *options):
        return self.dedupctl("export", *options, expect=OK).out

    def heads(self, *options):
        """The exported records, without what each store gives itself."""
        lines = [json.loads(line) for line in self.export(*options).splitlines()]
        self.assertEqual(lines[0]["dedup_export"], "heads")
        self.assertEqual(lines[-1]["records"], len(lines) - 2)
        for line in lines[1:-1]:
            self.assertGreater(line.pop("sequence"), 0)
            self.assertGreater(line.pop("claim_sequence"), 0)
        return lines[1:-1]

    def run_import(self, data, *options, expect=OK):
        return self.dedupctl("--json", "import", *options, stdin=data, expect=expect)

    def assertCounts(self, result, **counts):
        expected = {"read": sum(counts.values()), "imported": 0, "equal": 0, "differ": 0,
                    "expired": 0, "bad": 0, **counts}
        self.assertEqual(result.json, expected, result)


class RoundTrip(ExportTest):
    EVERY_BYTE = bytes(range(256))
    LINES = [
        record(b"plain"),
        record(b"\xff\x00\n", owner=b"\xfe", fingerprint=b"\xfd\xfc", event_id=b"\x80",
               metadata=EVERY_BYTE),
        record(EVERY_BYTE * 4, "completed", receipt=EVERY_BYTE * 100),
        record("schlüssel \u2028 \U0001f511".encode(), "completed", receipt="e\u0301\0".encode()),
        record(b"empty receipt", "completed"),
        record(b"released", "released", attempt=3, owner=b"w", expires_at_ms=NOW_MS + HOUR_MS),
        record(b"all", owner=b"worker-3", fingerprint=b"f", event_id=b"e", metadata=b"m",
               attempt=4294967295, ttl_ms=5, lease_until_ms=NOW_MS + HOUR_MS,
               expires_at_ms=NOW_MS + 2 * HOUR_MS,
               conflicts={"count": 18446744073709551615,
                          "fingerprints": [{"fingerprint": "g"},
                                           {"fingerprint_base64": "/w=="}]}),
        dict(record(b"plain", "completed", receipt=b"\"quoted\" \\ \x7f"), namespace="other"),
    ]

    def complete(self, line):
        return {"attempt": 1, **line}

    def test_every_field_survives_both_ways(self):
        self.assertCounts(self.run_import(jsonl(*self.LINES)), imported=len(self.LINES))
        self.assertEqual(self.heads(), [self.complete(line) for line in self.LINES])
        exported = self.export()
        self.use("second")
        self.assertCounts(self.run_import(exported), imported=len(self.LINES))
        self.assertEqual(self.heads(), [self.complete(line) for line in self.LINES])
        self.dedupctl("verify", expect=OK)

    def test_running_it_again_changes_nothing(self):
        self.run_import(jsonl(*self.LINES))
        before = self.export()
        for data in (before, jsonl(*self.LINES)):
            self.assertCounts(self.run_import(data), equal=len(self.LINES))
        lines = before.splitlines()
        after = self.export().splitlines()
        self.assertEqual(lines[1:-1], after[1:-1])

    def test_bytes_that_are_text_are_text_and_others_are_not(self):
        self.run_import(jsonl(*self.LINES))
        heads = self.heads()
        self.assertNotIn("key_base64", heads[0])
        self.assertNotIn("key", heads[1])
        self.assertEqual(heads[3]["receipt"], "e\u0301\0")

    def test_one_namespace(self):
        self.run_import(jsonl(*self.LINES))
        [head] = self.heads("-n", "other")
        self.assertEqual(head["namespace"], "other")
        self.assertEqual(self.heads("-n", "none"), [])

    def test_what_lookups_say_survives(self):
        self.dedupctl("claim", "done", "--fingerprint", "f", expect=OK)
        self.dedupctl("complete", "done", "--receipt", "r", expect=OK)
        self.dedupctl("claim", "held", "--owner", "w", "--lease", "1h", expect=OK)
        before = [self.dedupctl("--json", "inspect", key, expect=OK).json["records"][-1]
                  for key in ("done", "held")]
        exported = self.export()
        self.use("second")
        self.run_import(exported)
        self.assertEqual(self.dedupctl("lookup", "done", expect=COMPLETED).out, b"r")
        self.dedupctl("claim", "done", "--fingerprint", "g", expect=cli.MISMATCH)
        for old, key in zip(before, ("done", "held")):
            new = self.dedupctl("--json", "inspect", key, expect=OK).json["records"][0]
            for place in ("sequence", "claim_sequence", "segment", "offset", "bytes"):
                old.pop(place), new.pop(place)
            self.assertEqual(new, old)

    def test_a_claim_in_flight_gets_a_new_fence(self):
        self.dedupctl("remember", "earlier", expect=OK)
        self.dedupctl("claim", "k", expect=OK)  # claim_sequence 2
        exported = self.export("-n", "default")
        self.use("second")
        for key in ("a", "b", "c"):
            self.dedupctl("remember", key, expect=OK)
        self.run_import(exported)
        self.dedupctl("lookup", "k", expect=IN_FLIGHT)
        self.dedupctl("complete", "k", "--claim", "2", expect=STALE)
        self.dedupctl("release", "k", "--claim", "2", expect=STALE)
        fence = self.dedupctl("--json", "lookup", "k", expect=IN_FLIGHT).json["claim_sequence"]
        self.assertGreater(fence, 3)
        self.dedupctl("complete", "k", "--claim", str(fence), expect=OK)

    def test_expired_keys_stay_behind(self):
        self.dedupctl("claim", "old", "--ttl", "1ms", expect=OK)
        self.dedupctl("claim", "young", expect=OK)
        self.wait_until(lambda: self.dedupctl("ls", "--state", "expired", expect=OK).out,
                        "the claim has expired")
        self.assertEqual([head["key"] for head in self.heads()], ["young"])
        over = record(b"over", expires_at_ms=NOW_MS - HOUR_MS)
        self.assertCounts(self.run_import(jsonl(over)), expired=1)

    def test_an_expired_key_makes_room_for_an_imported_one(self):
        self.dedupctl("claim", "k", "--ttl", "1ms", expect=OK)
        self.wait_until(lambda: self.dedupctl("ls", "--state", "expired", expect=OK).out,
                        "the claim has expired")
        self.assertCounts(self.run_import(jsonl(record(b"k", "completed"))), imported=1)
        self.dedupctl("lookup", "k", expect=COMPLETED)

    def test_many_records_through_a_pipe(self):
        self.dedupctl("filter", stdin=self.lines(0, 20_000), expect=OK)
        exporting = self.start("export", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.use("second")
        importing = self.start("--json", "import", stdin=exporting.stdout,
                               stdout=subprocess.PIPE)
        out, _ = importing.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(exporting.wait(cli.HANG_SECONDS), OK)
        self.assertEqual(json.loads(out)["imported"], 20_000)
        self.assertEqual(self.dedupctl("filter", stdin=self.lines(0, 20_000), expect=OK).out, b"")

    def test_export_works_beside_a_writer(self):
        self.hold_store()
        self.assertEqual([head["key"] for head in self.heads()], ["held"])


class WhatIsThereStays(ExportTest):
    def test_another_record_is_reported_and_not_replaced(self):
        self.dedupctl("remember", "k", "--receipt", "mine", expect=OK)
        other = jsonl(record(b"k", "completed", receipt=b"theirs"), record(b"new"))
        result = self.run_import(other, expect=ERROR)
        self.assertCounts(result, imported=1, differ=1)
        self.assertInError(["line 1: key \"k\"", "with another record; that one stays"], result)
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"mine")

    def test_many_differences_are_counted(self):
        mine = [record(f"k{n}".encode(), "completed", receipt=b"mine") for n in range(103)]
        self.run_import(jsonl(*mine))
        theirs = [dict(line, receipt="theirs") for line in mine]
        result = self.run_import(jsonl(*theirs), expect=ERROR)
        self.assertCounts(result, differ=103)
        self.assertInError(["line 1: key \"k0\"", "line 100: key \"k99\"", "3 more such records"],
                           result)
        self.assertNotIn("line 101", result.error)

    def test_of_two_lines_with_one_key_the_first_stays(self):
        two = jsonl(record(b"k", "completed", receipt=b"1"),
                    record(b"k", "completed", receipt=b"2"))
        self.assertCounts(self.run_import(two, expect=ERROR), imported=1, differ=1)
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"1")

    def test_what_changed_while_it_was_exported_comes_twice_and_the_later_counts(self):
        old = dict(record(b"k"), sequence=5, claim_sequence=5)
        new = dict(record(b"k", "completed", receipt=b"r"), sequence=9, claim_sequence=5)
        first = {"dedup_export": "heads", "version": 1, "last_sequence": 7}
        data = jsonl(first, old, new, dict(first, records=2))
        self.assertCounts(self.run_import(data), imported=2)
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"r")
        # An import that is started anew goes on where it was, and one that is done changes nothing.
        self.assertCounts(self.run_import(data), equal=2)
        self.use("resumed")
        self.assertInError("1 record imported", self.run_import(jsonl(first, old), expect=ERROR))
        self.assertCounts(self.run_import(data), equal=1, imported=1)
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"r")
        # But never what was there before the import, nor from another export.
        self.use("second")
        self.dedupctl("remember", "k", "--receipt", "mine", expect=OK)
        self.assertCounts(self.run_import(data, expect=ERROR), differ=2)
        self.use("third")
        twice = jsonl(first, old, dict(first, records=1), first, new, dict(first, records=1))
        self.assertCounts(self.run_import(twice, expect=ERROR), imported=1, differ=1)

    def test_what_others_write_meanwhile_stays(self):
        self.serve()
        importing = self.start("--json", "import", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        importing.stdin.write(jsonl({"dedup_export": "heads", "version": 1, "last_sequence": 7}))
        importing.stdin.flush()
        self.wait_until(lambda: self.unread(importing.stdin) == 0, "it has read that")
        self.dedupctl("remember", "k", "--receipt", "theirs", expect=OK)
        late = dict(record(b"k", "completed", receipt=b"r"), sequence=9, claim_sequence=5)
        out, _ = importing.communicate(
            jsonl(late, {"dedup_export": "heads", "version": 1, "last_sequence": 7, "records": 1}),
            timeout=cli.HANG_SECONDS)
        self.assertEqual(json.loads(out)["differ"], 1)
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"theirs")


class BadInput(ExportTest):
    GOOD = record(b"good", "completed", receipt=b"r")

    def bad(self, line):
        """Without --skip-bad it stops there; with it, it goes on."""
        for number, options in enumerate(((), ("--skip-bad",))):
            self.use(f"store-{hash(line)}-{number}")
            data = jsonl(self.GOOD) + line + b"\n" + jsonl(record(b"later"))
            result = self.run_import(data, *options, expect=OK if options else ERROR)
            self.assertInError("line 2: ", result)
            self.dedupctl("lookup", "good", expect=COMPLETED)
            if options:
                self.assertCounts(result, imported=2, bad=1)
                self.dedupctl("lookup", "later", expect=IN_FLIGHT)
            else:
                self.assertInError(["--skip-bad", "1 record imported", "again is safe"], result)
                self.dedupctl("lookup", "later", expect=cli.ABSENT)
        return result.error

    def test_bad_lines(self):
        base = record(b"k", "completed", receipt=b"r")
        for change, what in (
                ({"namespace": ""}, "namespace"), ({"namespace": None}, "namespace"),
                ({"key": ""}, "key"), ({"key": "x" * 1025}, "1,024"), ({"key": 5}, "key"),
                ({"key_base64": "eA=="}, "both"), ({"receipt_base64": "eA=="}, "both"),
                ({"owner_base64": "eA="}, "not base64"), ({"owner_base64": "eB=="}, "not base64"),
                ({"owner_base64": "e A="}, "not base64"), ({"state": "gone"}, "state"),
                ({"state": "in_flight"}, "receipt"), ({"attempt": -1}, "attempt"),
                ({"attempt": 4294967296}, "attempt"), ({"attempt": 1.5}, "attempt"),
                ({"timestamp_ms": "now"}, "timestamp_ms"), ({"timestamp_ms": 2**63}, "timestamp"),
                ({"timestamp_ms": NOW_MS + HOUR_MS}, "yet to come"),
                ({"surprise": 1}, "'surprise' is unknown"),
                ({"conflicts": 3}, "conflicts"), ({"conflicts": {"count": 1, "x": 1}}, "'x'"),
                ({"conflicts": {"count": 1, "fingerprints": [1]}}, "fingerprints"),
                ({"metadata": "x" * 65537}, "metadata")):
            self.assertIn(what, self.bad(json.dumps({**base, **change}).encode()))
        for name in ("namespace", "key", "state", "timestamp_ms", "receipt"):
            self.assertIn(name, self.bad(json.dumps(
                {k: v for k, v in base.items() if k != name}).encode()))

    def test_bad_json(self):
        good = json.dumps(record(b"k"))
        for line in (b"{", b"[]", b"1", b'"text"', b"\xff", b"[" * 100_000, b'{"a":1e999}',
                     b"not json", good[:-1].encode(), good.encode() + b"}",
                     good.replace('"key"', '"key": "other", "key"').encode(),
                     b'{"dedup_export":"tails","version":1}'):
            self.bad(line)

    def test_a_newer_export_is_refused(self):
        newer = jsonl({"dedup_export": "heads", "version": 2, "last_sequence": 0}, self.GOOD)
        for options in ((), ("--skip-bad",)):
            result = self.run_import(newer, *options, expect=ERROR)
            self.assertEqual(result.json["error"]["code"], "unsupported_version")
            self.assertInError(["version 2", "newer"], result)
        self.dedupctl("lookup", "good", expect=cli.ABSENT)

    def test_an_export_that_was_cut_short_does_not_pass_for_a_whole_one(self):
        self.dedupctl("filter", stdin=self.lines(0, 10), expect=OK)
        lines = self.export().splitlines(True)
        self.use("second")
        cut = self.run_import(b"".join(lines[:-1]), expect=ERROR)
        self.assertInError(["cut short", "10 records imported"], cut)
        self.use("third")
        missing = self.run_import(b"".join(lines[:5] + lines[6:]), expect=ERROR)
        self.assertInError("lines are missing", missing)
        joined = self.run_import(b"".join(lines[:5] + lines), expect=ERROR)
        self.assertInError("line 6: another export begins", joined)
        self.assertCounts(self.run_import(b"".join(lines)), imported=1, equal=9)
        self.assertCounts(self.run_import(b"".join(lines[3:6])), equal=3)

    def test_missing_lines_are_no_bad_ones_that_could_be_left_out(self):
        self.dedupctl("filter", stdin=self.lines(0, 10), expect=OK)
        lines = self.export().splitlines(True)
        for name, data in (("fewer", lines[:5] + lines[6:]), ("joined", lines[:5] + lines)):
            self.use(name)
            missing = self.run_import(b"".join(data), "--skip-bad", expect=ERROR)
            self.assertInError(["missing", "records imported"], missing)

    def test_nothing_is_no_success(self):
        self.assertInError("is empty", self.run_import(b"", expect=ERROR))
        self.assertInError("nothing but bad",
                           self.run_import(b"no json\n{}\n", "--skip-bad", expect=ERROR))
        empty = self.path("empty")
        self.dedupctl("-s", empty, "init", expect=OK)
        self.run_import(self.dedupctl("-s", empty, "export", expect=OK).out, expect=OK)

    def test_wrong_uses(self):
        self.dedupctl("-n", "x", "import", expect=USAGE)
        self.dedupctl("import", "--ttl", "1h", expect=USAGE)
        self.dedupctl("import", "--from", "xml", expect=USAGE)
        self.assertInError("no-such", self.dedupctl("import", "no-such", expect=ERROR))
        self.assertFalse(os.path.exists(self.store))
        self.assertInError(self.store, self.dedupctl("export", expect=ERROR))


class Interrupted(ExportTest):
    def test_a_signal_ends_an_import_which_then_goes_on(self):
        lines = [record(b"k%d" % number) for number in range(3000)]
        importing = self.start("--json", "import", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        importing.stdin.write(jsonl(*lines[:2000]))
        importing.stdin.flush()
        self.wait_until(lambda: os.path.exists(self.store), "the import has begun")
        self.wait_until(lambda: self.unread(importing.stdin) == 0, "it has read all that there is")
        importing.send_signal(signal.SIGINT)
        out, err = importing.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(importing.returncode, 128 + signal.SIGINT, err)
        imported = json.loads(out)["imported"]
        self.assertLessEqual(imported, 2000)
        self.assertIn(b"again", err)
        self.assertCounts(self.run_import(jsonl(*lines)), equal=imported,
                          imported=3000 - imported)

    def test_a_killed_import_goes_on_where_it_was(self):
        lines = [record(b"k%d" % number, "completed", receipt=b"x" * 5000)
                 for number in range(6000)]
        data = jsonl(*lines)
        with open(self.path("lines"), "wb") as file:
            file.write(data)
        importing = self.start("import", "lines", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        log = os.path.join(self.store, "log")
        self.wait_until(lambda: importing.poll() is not None or (
            os.path.isdir(log) and sum(entry.stat().st_size for entry in os.scandir(log)
                                       if entry.name.endswith(".log")) > 1_000_000),
                        "some of it is written")
        importing.kill()
        importing.communicate()
        self.dedupctl("verify", expect=OK)
        counts = self.run_import(data).json
        self.assertEqual(counts["imported"] + counts["equal"], 6000)
        self.assertEqual(self.run_import(data).json["equal"], 6000)

    def test_a_reader_that_goes_away_ends_an_export_in_silence(self):
        self.dedupctl("filter", stdin=self.lines(0, 20_000), expect=OK)
        exporting = self.start("export", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        exporting.stdout.readline()
        exporting.stdout.close()
        self.assertEqual(exporting.wait(cli.HANG_SECONDS), ERROR)
        self.assertEqual(exporting.stderr.read(), b"")

    def test_a_full_disk_leaves_no_half_export(self):
        self.dedupctl("remember", "k", expect=OK)
        with open("/dev/full", "wb") as full:
            result = self.dedupctl("export", stdout=full, expect=ERROR)
            self.assertIn("No space left", result.error)
        self.assertInError("No space left", self.dedupctl("export", "/dev/full", expect=ERROR))
        self.assertTrue(os.path.exists("/dev/full"))

    def test_a_file_is_there_when_it_is_whole(self):
        self.dedupctl("remember", "k", expect=OK)
        with open(self.path("out"), "w") as file:
            file.write("the last export")
        result = self.dedupctl("export", "out", expect=OK)
        self.assertEqual((result.out, result.error), (b"", "dedupctl: 1 record exported\n"))
        self.assertEqual(sorted(os.listdir(self.dir)), ["out", "store"])
        self.use("second")
        self.dedupctl("import", self.path("out"), expect=OK)
        self.dedupctl("lookup", "k", expect=COMPLETED)
        self.assertInError("no-such-dir", self.dedupctl("export", "no-such-dir/out", expect=ERROR))

    def test_a_progress_bar_on_a_terminal(self):
        self.run_import(jsonl(*[record(b"k%d" % number) for number in range(100)]))
        with open(self.path("lines"), "wb") as file:
            file.write(self.export())
        for command in (("export", "out"), ("import", "lines")):
            ours, theirs = pty.openpty()
            process = self.start(*command, stdout=subprocess.DEVNULL, stderr=theirs)
            os.close(theirs)
            self.assertEqual(process.wait(cli.HANG_SECONDS), OK)
            shown = os.read(ours, 65536)
            os.close(ours)
            self.assertIn(b"\r%s [" % command[0].encode(), shown)


class FullDisk(ExportTest):
    def test_a_full_disk_stops_an_import_which_then_goes_on(self):
        if os.geteuid() != 0 or not self.mount("-t", "tmpfs", "-o", "size=8m", "tmpfs"):
            self.skipTest("a full disk takes a mount, and mounting is not permitted here")
        mounted = self.store
        self.store = os.path.join(mounted, "inner")
        data = jsonl(*[record(b"k%d" % number, "completed", receipt=b"x" * 10_000)
                       for number in range(2000)])
        stopped = self.run_import(data, expect=ERROR)
        self.assertInError(["No space left", "before that: ", "again is safe"], stopped)
        self.dedupctl("verify", expect=OK)
        subprocess.run(["mount", "-o", "remount,size=100m", mounted], check=True)
        counts = self.run_import(data).json
        self.assertGreater(counts["equal"], 0)
        self.assertEqual(counts["imported"] + counts["equal"], 2000)


if __name__ == "__main__":
    cli.main()
