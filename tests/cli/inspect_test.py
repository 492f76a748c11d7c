"""inspect, ls, stats, verify: what people look at."""

import glob
import json
import os
import re
import shutil

import cli
from cli import ABSENT, ERROR, OK, USAGE


class Looking(cli.CliTest):
    def keys(self, *options):
        return [line.split()[-1] for line in
                self.dedupctl("ls", *options, expect=OK).text.splitlines()]

    def test_inspect_shows_each_record_of_a_key(self):
        self.dedupctl("claim", "k", "--owner", "me", "--lease", "1h", expect=OK)
        text = self.dedupctl("inspect", "k", expect=OK).text
        self.assertIn("in-flight, lease runs out in 1h", text)
        self.dedupctl("complete", "k", "--receipt", "tab\there " + "x" * 100, expect=OK)
        text = self.dedupctl("inspect", "k", expect=OK).text
        self.assertRegex(text, r"state now +completed now, expires in 1d")
        self.assertRegex(text, r"stream +default:[0-9a-f]{16}")
        self.assertIn("tab\\x09here xxx", text)
        self.assertIn("109 B", text)
        rows = text.split("\n\n")[1].splitlines()
        self.assertEqual(len(rows), 3, text)
        self.assertEqual(rows[0].split()[0], "SEQUENCE")
        self.assertEqual(rows[0].index("STATE"), rows[1].index("in-flight"))
        self.assertNotIn("\033", text, "colour only on a terminal")

    def test_inspect_keeps_telling_who_decided_what_and_why(self):
        # Guards against a decision that can be seen no more once the key is claimed again.
        claim = ("claim", "k", "--owner", "w1", "--lease", "1h", "--print", "sequence")
        first = self.dedupctl(*claim, expect=OK).text.strip()
        self.dedupctl("note", "k", "--claim", first, "POST api.bank/payments", expect=OK)
        self.dedupctl("note", "k", "--claim", first, "reference 8125", expect=OK)
        self.dedupctl("complete", "k", "--claim", first, "--receipt", "paid", expect=OK)
        why = "refunded by the bank; " + "it took them long enough to say so. " * 8 + "x" * 100
        self.dedupctl("forget", "k", "--reason", why, "--by", "ada", expect=OK)
        second = self.dedupctl("claim", "k", "--owner", "w2", "--print", "sequence", expect=OK).text.strip()
        self.dedupctl("resolve", "k", "--claim", second, "--not-done", "--reason", "w2 is gone",
                      "--by", "bob", expect=OK)
        third = self.dedupctl(*claim, expect=OK).text.strip()
        self.dedupctl("renew", "k", "--claim", third, "--lease", "2h", expect=OK)
        text = self.dedupctl("inspect", "k", expect=OK).text
        said = text.split("WHAT WAS SAID")[1].splitlines()[1:]
        self.assertEqual([line for line in said if len(line) > 80], [])
        heads = [line.split("  ", 1)[1] for line in said if line[0] != " "]
        self.assertEqual(heads, [
            f"claim {first} noted", f"claim {first} noted",
            f"claim {first} forgotten: its receipt counts no more",
            f"claim {second} resolved: it had not been done"])
        words = " ".join(" ".join(said).split())
        for part in ("by w1 note POST api.bank/payments", "by w1 note reference 8125", "by ada when 2",
                     "reason refunded by the bank; it took", "long enough to say so. x",
                     "by bob when 2", "reason w2 is gone"):
            self.assertIn(part, words)
        self.assertNotIn("...", words)
        # What stands in the list is found in the table above it.
        sequences = [line.split()[0] for line in text.split("\n\n")[1].splitlines()[1:]]
        for line in said:
            self.assertTrue(line[0] == " " or line.split()[0] in sequences, text)

    def test_inspect_tells_what_is_noted_of_a_held_key(self):
        note = f"{cli.DEDUPCTL} note k --claim $DEDUP_CLAIM 'asked the bank' >&2 && kill -9 $$"
        self.dedupctl("exec", "--key", "k", "--hold", "--", "sh", "-c", note)
        said = self.dedupctl("inspect", "k", expect=OK).text.split("WHAT WAS SAID")[1]
        self.assertRegex(said, r"(?s) noted\n.*note +asked the bank\n.*"
                         r"held: nobody knows what became of it.*ended by signal 9")
        self.assertEqual(said.count("held:"), 1, said)

    def test_a_reservation_without_a_note_has_none(self):
        # Its metadata says when it was seen; that answers no question of the night.
        def reserve(key, metadata):
            record = {"namespace": "default", "key": "4:acme,4:shop,-6:charge," + key, "state": "in_flight",
                      "timestamp_ms": 1700000000000, "lease_until_ms": 1700000001000, "hold": True,
                      "owner": "w1", "metadata": metadata}
            self.dedupctl("import", stdin=json.dumps(record).encode() + b"\n", expect=OK)
            return record["key"]
        seen = "13:1700000000000,13:1700000000000,"
        for metadata, note in (("1:1," + seen, None), ("1:2," + seen + "14:reference 8125,", "reference 8125"),
                               ("not stamps", "not stamps")):
            key = reserve(f"k{len(metadata)}", metadata)
            shown = self.dedupctl("inspect", key, expect=OK).text
            [held] = [line for line in map(json.loads, self.dedupctl("--json", "held").out.splitlines())
                      if line["key"] == key]
            self.assertEqual((held.get("note"), held["metadata"]), (note, metadata))
            self.assertEqual("WHAT WAS SAID" in shown, note is not None, shown)
            text = self.dedupctl("held", expect=OK).text.split(key)[1].split("done")[0]
            self.assertEqual("    note " in text, note is not None, text)
            if note:
                self.assertRegex(shown.split("WHAT WAS SAID")[1], f"note +{note}\n")
                self.assertIn(f"note      {note}\n", text)
            self.assertEqual(self.dedupctl("--json", "lookup", key).json.get("note"), note)

    def test_a_reservation_gets_nothing_that_its_program_cannot_read(self):
        key = "4:acme,4:shop,-6:charge,key-1"
        record = {"namespace": "default", "key": key, "state": "in_flight", "timestamp_ms": 1700000000000,
                  "lease_until_ms": 1700000001000, "hold": True, "owner": "w1",
                  "metadata": "1:1,13:1700000000000,13:1700000000000,"}
        self.dedupctl("import", stdin=json.dumps(record).encode() + b"\n", expect=OK)
        fence = str(self.dedupctl("--json", "lookup", key).json["claim_sequence"])
        for command in (("resolve", "--receipt", "r", "--reason", "there"), ("complete", "--receipt", "r"),
                        ("note", "text")):
            done = self.dedupctl(command[0], key, "--claim", fence, *command[1:], expect=USAGE)
            self.assertInError(f"Reservations::{command[0]}", done)
        line = json.dumps({"namespace": "default", "key": key, "claim_sequence": int(fence)}).encode()
        done = self.dedupctl("complete", "-", "--claims", "json", "--receipt", "r", stdin=line + b"\n",
                             expect=ERROR)
        self.assertIn("Reservations::complete", done.text + done.error)
        self.assertEqual(self.dedupctl("--json", "lookup", key).json["outcome"], "in_flight")
        self.assertIn("done      Reservations::resolve, in a program\n", self.dedupctl("held", expect=OK).text)
        self.dedupctl("resolve", key, "--claim", fence, "--not-done", "--reason", "not there", expect=OK)

    def test_inspect_tells_a_note_that_was_written_again(self):
        fence = str(self.dedupctl("--json", "claim", "k", "--lease", "1h", expect=OK).json["claim_sequence"])
        for _ in range(2):
            self.dedupctl("note", "k", "--claim", fence, "reference 8125", expect=OK)
        self.dedupctl("renew", "k", "--claim", fence, "--lease", "2h", expect=OK)
        self.assertEqual(self.dedupctl("inspect", "k", expect=OK).text.count(" noted\n"), 2)

    def test_inspect_says_what_a_lost_lease_means(self):
        self.dedupctl("claim", "k", "--lease", "1ms", expect=OK)
        self.wait_until(lambda: "lease ran out" in self.dedupctl("inspect", "k").text,
                        "the lease has run out")
        self.assertIn("the next claim takes it over", self.dedupctl("inspect", "k").text)

    def test_inspect_of_an_unknown_key(self):
        self.dedupctl("remember", "other", expect=OK)
        self.assertEqual(self.dedupctl("inspect", "k", expect=ABSENT).text, "absent\n")

    def test_ls_chooses_by_state_prefix_and_number(self):
        self.dedupctl("remember", "user/1", expect=OK)
        self.dedupctl("remember", "user/2", expect=OK)
        self.dedupctl("claim", "job/1", "--owner", "w", expect=OK)
        self.dedupctl("claim", "job/2", expect=OK)
        self.dedupctl("release", "job/2", expect=OK)
        self.dedupctl("-n", "elsewhere", "remember", "user/3", expect=OK)
        self.assertEqual(sorted(self.keys()), ["job/1", "job/2", "user/1", "user/2"])
        self.assertEqual(self.keys("--state", "in-flight"), ["job/1"])
        self.assertEqual(sorted(self.keys("--state", "completed")), ["user/1", "user/2"])
        self.assertEqual(self.keys("--state", "released"), ["job/2"])
        self.assertEqual(self.keys("--state", "expired"), [])
        self.assertEqual(sorted(self.keys("--prefix", "job/")), ["job/1", "job/2"])
        self.assertEqual(len(self.keys("--limit", "3")), 3)
        self.assertEqual(self.keys("--older-than", "1h"), [])
        self.dedupctl("ls", "--state", "lost", expect=USAGE)

    def test_ls_tells_expired_keys_from_others(self):
        self.dedupctl("claim", "old", "--ttl", "1ms", expect=OK)
        self.dedupctl("claim", "young", expect=OK)
        self.wait_until(lambda: self.keys("--state", "expired") == ["old"], "it expires")
        self.assertEqual(self.keys("--state", "in-flight"), ["young"])

    def test_ls_escapes_what_a_terminal_would_obey(self):
        self.dedupctl("remember", b"red \x1b[31m\xff\n", expect=OK)
        text = self.dedupctl("ls", expect=OK).text
        self.assertTrue(text.endswith("red \\x1b[31m\\xff\\x0a\n"), text)

    def test_ls_gives_every_key_of_many_pages(self):
        self.dedupctl("filter", stdin=self.lines(0, 5000), expect=OK)
        lines = self.dedupctl("ls", expect=OK).text.splitlines()
        self.assertEqual(len({line.split()[-1] for line in lines}), 5000)
        self.assertEqual(len(lines), 5000)

    def test_ls_into_head_ends_quietly(self):
        self.dedupctl("filter", stdin=self.lines(0, 20000), expect=OK)
        listing = self.start("ls", stdout=cli.subprocess.PIPE, stderr=cli.subprocess.PIPE)
        listing.stdout.readline()
        listing.stdout.close()
        self.assertEqual(listing.wait(cli.HANG_SECONDS), ERROR)
        self.assertEqual(listing.stderr.read(), b"")

    def test_stats_counts_streams_by_state(self):
        self.dedupctl("remember", "a", expect=OK)
        self.dedupctl("claim", "b", expect=OK)
        self.dedupctl("claim", "c", expect=OK)
        self.dedupctl("release", "c", expect=OK)
        text = self.dedupctl("stats", expect=OK).text
        for name, value in (("keys", "3"), ("in-flight", "1"), ("completed", "1"),
                            ("released", "1"), ("records", "4"), ("last sequence", "4")):
            self.assertRegex(text, rf"(?m)^ *{name} +{value}$")
        self.assertRegex(text, r"(?m)^store id +[0-9a-f]{32}$")

    def test_verify_finds_nothing_in_a_sound_store(self):
        self.dedupctl("filter", stdin=self.lines(0, 3000), expect=OK)
        text = self.dedupctl("verify", expect=OK).text
        self.assertIn("3,000 records", text)
        self.assertIn("no problem found", text)

    def test_damage_in_a_segment_is_found_and_named(self):
        self.dedupctl("filter", stdin=self.lines(0, 3000), expect=OK)
        self.dedupctl("remember", "later", expect=OK)
        [segment] = glob.glob(os.path.join(self.store, "log", "*.log"))
        with open(segment, "r+b") as file:
            file.seek(4096)
            file.write(b"garbage garbage garbage")
        verified = self.dedupctl("verify")
        self.assertEqual(verified.code, ERROR, verified)
        self.assertIn(os.path.basename(segment), verified.text + verified.error)
        # Nothing is skipped in silence, and nothing is written over the damage.
        with open(segment, "rb") as file:
            before = file.read()
        claimed = self.dedupctl("claim", "k", expect=ERROR)
        self.assertInError([os.path.basename(segment), "dedupctl verify"], claimed)
        with open(segment, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_verify_names_the_way_out_and_never_itself(self):
        self.dedupctl("filter", stdin=self.lines(0, 3000), expect=OK)
        self.dedupctl("remember", "later", expect=OK)
        [segment] = glob.glob(os.path.join(self.store, "log", "*.log"))
        with open(segment, "r+b") as file:
            for offset in (4096, 20000):
                file.seek(offset)
                file.write(b"garbage")
        advice = re.compile(r"`dedupctl -s (\S+) repair (\S+)`")
        for damage in ("in frames", "of the first sector", "of the catalog, too"):
            verified = self.dedupctl("verify", expect=ERROR)
            self.assertNotIn("dedupctl verify", verified.text + verified.error, damage)
            self.assertRegex(verified.text, r"(?m)^read 1 segment", damage)
            self.assertRegex(verified.text, r"(?m)damaged at offset [0-9]{4}\b.*\n"
                             r"(.*\n)?.*damaged at offset (19|20)[0-9]{3}\b", verified)
            store, target = advice.search(verified.text).groups()
            self.assertEqual(store, self.store)
            report = self.dedupctl("--json", "verify", expect=ERROR).json
            self.assertEqual((report["ok"], report["log_damaged"]), (False, True))
            # As it says.
            self.dedupctl("-s", store, "repair", target, expect=ERROR)
            self.dedupctl("-s", target, "verify", expect=OK)
            self.assertIn("later", self.dedupctl("-s", target, "ls", expect=OK).text)
            shutil.rmtree(target)
            zeroed = segment if damage == "in frames" else glob.glob(self.store + "/catalog/data*")[0]
            with open(zeroed, "r+b") as file:
                file.write(bytes(512))
        refused = self.dedupctl("lookup", "later", expect=ERROR)
        self.assertInError(["dedupctl verify", "dedupctl repair"], refused)

    def test_verify_reads_the_log_of_a_store_without_a_catalog(self):
        self.dedupctl("filter", stdin=self.lines(0, 3000), expect=OK)
        shutil.rmtree(os.path.join(self.store, "catalog"))
        verified = self.dedupctl("verify", expect=ERROR)
        self.assertIn("3,000 records", verified.text)
        self.assertIn("1 problem found\nthe log is intact", verified.text)
        self.assertNotIn("dedupctl repair", verified.text)
        self.assertEqual(self.dedupctl("--json", "verify").json["log_damaged"], False)
        self.dedupctl("remember", "more", expect=OK)  # as it says
        self.dedupctl("verify", expect=OK)

    def test_repair_waits_for_no_writer_and_says_who_it_is(self):
        holder = self.hold_store()
        target = self.store + "-repaired"
        self.assertInError(["open for writing", str(holder.pid)], self.dedupctl("repair", target))
        self.assertEqual(self.dedupctl("--json", "repair", target).json["error"]["code"], "busy")
        self.assertFalse(os.path.exists(target))
        holder.stdin.close()
        holder.wait(cli.HANG_SECONDS)
        self.dedupctl("repair", target, expect=OK)

    def test_repair_saves_what_is_intact_and_says_what_is_lost(self):
        self.dedupctl("filter", stdin=self.lines(0, 3000), expect=OK)
        self.dedupctl("remember", "later", expect=OK)
        [segment] = glob.glob(os.path.join(self.store, "log", "*.log"))
        with open(segment, "r+b") as file:
            file.seek(4096)
            file.write(b"garbage")
        with open(segment, "rb") as file:
            before = file.read()
        target = self.store + "-repaired"
        repaired = self.dedupctl("--json", "repair", target, expect=ERROR)
        report = json.loads(repaired.text)
        self.assertEqual(report["ok"], False)
        [loss] = report["losses"]
        self.assertEqual(loss["file"], segment)
        lost = loss["before_sequence"] - loss["after_sequence"] - 1
        self.assertEqual(report["records"], 3001 - lost)
        self.assertGreater(lost, 0)
        with open(segment, "rb") as file:
            self.assertEqual(file.read(), before, "the damaged store is left as it was")
        text = self.dedupctl("-s", target, "verify", expect=OK).text
        self.assertIn("no problem found", text)
        # Again, as a table; and nothing is written over what is there.
        self.dedupctl("repair", target, expect=ERROR)
        text = self.dedupctl("repair", target + "2", expect=ERROR).text
        self.assertIn("SEQUENCES", text)
        self.assertIn(os.path.basename(segment), text)
        self.assertIn("nothing was lost",
                      self.dedupctl("-s", target, "repair", target + "3", expect=OK).text)

    def test_a_truncated_or_missing_catalog_is_rebuilt(self):
        self.dedupctl("filter", stdin=self.lines(0, 3000), expect=OK)
        catalog = os.path.join(self.store, "catalog")
        for file in glob.glob(os.path.join(catalog, "*")):
            os.truncate(file, os.path.getsize(file) // 2)
        # A reader changes nothing, so it can only say what is wrong and who mends it.
        self.assertInError(["catalog/data.mdb", "for writing rebuilds"],
                           self.dedupctl("lookup", "line 000007", expect=ERROR))
        self.assertEqual(self.dedupctl("filter", stdin=self.lines(0, 3001), expect=OK).out,
                         self.lines(3000, 3001))
        cli.shutil.rmtree(catalog)
        self.assertEqual(self.dedupctl("filter", stdin=self.lines(0, 3002), expect=OK).out,
                         self.lines(3001, 3002))
        self.dedupctl("verify", expect=OK)


if __name__ == "__main__":
    cli.main()
