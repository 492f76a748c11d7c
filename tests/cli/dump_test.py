"""dump: what lies in a segment or its index, as people and as programs read it."""

import json
import os
import re
import shutil

import cli
from cli import ERROR, OK, USAGE

RECEIPT_BYTES = 16 * 1024 * 1024


class Dump(cli.CliTest):
    def segment(self, number=1, ending="log"):
        return os.path.join(self.store, "log", f"{number:016}.{ending}")

    def items(self, *arguments, expect=OK):
        lines = self.dedupctl("--json", "dump", *arguments, expect=expect).text.splitlines()
        return [json.loads(line) for line in lines]

    def of(self, kind, items):
        return [item for item in items if item["item"] == kind]

    def seal(self):
        """Fills the first segment, which then gets an index."""
        receipt = self.path("receipt")
        with open(receipt, "wb") as file:
            file.truncate(RECEIPT_BYTES)
        for number in range(20):
            if os.path.exists(self.segment(1, "idx")):
                return
            self.dedupctl("remember", f"large {number}", "--receipt-file", receipt, expect=OK)
        self.fail("the first segment is never full")

    def test_a_segment_for_people(self):
        self.dedupctl("claim", "k", "--owner", "me", "--lease", "1h", expect=OK)
        self.dedupctl("complete", "k", "--receipt", "paid", expect=OK)
        self.dedupctl("-n", "other", "remember", b"tab\t\xff", expect=OK)
        text = self.dedupctl("dump", "1", expect=OK).text
        self.assertRegex(text, r"^segment 1 of store [0-9a-f]{32}, format version \d+, [\d,]+ bytes\n")
        rows = text.split("\n\n")[1].splitlines()
        self.assertEqual(rows[0].split(), ["OFFSET", "BYTES", "KIND", "SEQUENCE", "WHAT"])
        self.assertEqual([row.split()[2] for row in rows[1:]],
                         ["manifest", "records", "mark", "records", "mark", "records", "mark"])
        self.assertRegex(rows[2], r" 1  in-flight  default:[0-9a-f]{16}  key k  .*owner me")
        self.assertRegex(rows[4], r" 2  completed  .*receipt 4 B, after in-flight in segment 1 at ")
        self.assertRegex(rows[6], r" 3  completed  other:[0-9a-f]{16}  key tab\\x09\\xff  ")
        by_file = self.dedupctl("dump", self.segment(), expect=OK).text
        self.assertEqual(by_file, text, "a number and the file are the same")

    def test_a_segment_for_programs(self):
        self.dedupctl("claim", "k", "--owner", "me", expect=OK)
        self.dedupctl("release", "k", expect=OK)
        items = self.items("1")
        self.assertEqual([item["item"] for item in items],
                         ["segment", "manifest", "record", "mark", "record", "mark"])
        first, second = self.of("record", items)
        self.assertEqual(first["record"]["key"], "k")
        self.assertEqual(first["record"]["owner"], "me")
        self.assertEqual((second["state"], second["sequence"]), ("released", 2))
        self.assertEqual(second["previous_offset"], first["offset"])
        inspected = self.dedupctl("--json", "inspect", "k", expect=OK).json["records"]
        self.assertEqual([(record["segment"], record["offset"]) for record in inspected],
                         [(1, first["offset"]), (1, second["offset"])])

    def test_damage_is_shown_and_what_lies_behind_it(self):
        for key in "abc":
            self.dedupctl("remember", key, "--receipt", "receipt", expect=OK)
        records = self.of("record", self.items("1"))
        copy = self.path("from a customer")
        shutil.copy(self.segment(), copy)
        with open(copy, "r+b") as file:
            file.seek(records[1]["offset"] + records[1]["bytes"] - 1)
            file.write(b"?")
        items = self.items(copy, expect=ERROR)
        [damage] = self.of("damage", items)
        self.assertEqual((damage["offset"], damage["bytes"], damage["at_end"]),
                         (records[1]["offset"], records[1]["bytes"], False))
        self.assertEqual([one["key"] for one in damage["may_hold"]], ["b"])
        self.assertEqual([item["record"]["key"] for item in self.of("record", items)], ["a", "c"])
        text = self.dedupctl("dump", copy, expect=ERROR).text
        self.assertRegex(text, rf"(?m)^ +{damage['offset']} .* DAMAGED .*checksum.* key b$")
        os.truncate(copy, records[2]["offset"] + 40)
        torn = self.of("damage", self.items(copy, expect=ERROR))[-1]
        self.assertTrue(torn["at_end"])

    def test_a_torn_end_alone_is_no_damage(self):
        self.dedupctl("remember", "a", expect=OK)
        with open(self.segment(), "ab") as file:
            file.write(b"torn")
        self.assertIn("TORN", self.dedupctl("dump", "1", expect=OK).text)

    def test_an_index(self):
        self.seal()
        items = self.items("1", "--index")
        [index] = self.of("index", items)
        # As text: the receipts are large, and JSON has all of them.
        records = {(int(sequence), int(offset)) for offset, sequence in
                   re.findall(r"(?m)^ +(\d+) +\d+ +records +(\d+) ", self.dedupctl("dump", "1").text)}
        self.assertEqual(index["segment_bytes"], os.path.getsize(self.segment()))
        self.assertEqual(index["records"], {"in_flight": 0, "completed": len(records), "released": 0})
        self.assertEqual({(entry["sequence"], entry["offset"]) for entry in self.of("entry", items)},
                         records)
        text = self.dedupctl("dump", self.segment(1, "idx"), expect=OK).text
        self.assertRegex(text, r"^index of segment 1 of store [0-9a-f]{32}, ")
        self.assertRegex(text, r"(?m)^entries at \d+: [\d,]+ bytes in 1 block, intact$")
        self.assertRegex(text, r"(?m)^ +0 +\d+  completed +\d+  [0-9a-f]{16}  expires from 20")

        table = self.of("table", items)[0]
        with open(self.segment(1, "idx"), "r+b") as file:
            file.seek(table["offset"])
            byte = file.read(1)
            file.seek(table["offset"])
            file.write(bytes([byte[0] ^ 1]))
        damaged = self.items("1", "--index", expect=ERROR)
        self.assertEqual(self.of("table", damaged)[0]["damaged_blocks"], [0])
        self.assertEqual(self.of("entry", damaged), [], "nothing of a damaged block is shown")
        self.assertIn("DAMAGED: 0", self.dedupctl("dump", "1", "--index", expect=ERROR).text)

    def test_what_is_no_segment(self):
        self.dedupctl("remember", "a", expect=OK)
        text = self.path("notes.txt")
        with open(text, "w") as file:
            file.write("precious")
        for wrong, what in ((text, "begins with"), (self.store, "a directory"), (os.devnull, "no regular"),
                            (os.path.join(self.store, "catalog", "data.mdb"), "LMDB")):
            result = self.dedupctl("dump", wrong, expect=ERROR)
            self.assertInError([wrong, what, "neither a segment nor the index", "0000000000000001.log"], result)
            self.assertEqual(result.out, b"")
        self.assertInError("0000000000000007.log", self.dedupctl("dump", "7", expect=ERROR))
        with open(self.segment(), "r+b") as file:
            file.write(b"?")
        self.assertInError([self.segment(), "damaged at offset 0"], self.dedupctl("dump", "1", expect=ERROR))
        for usage in (("dump",), ("dump", ""), ("dump", "0"), ("dump", "99999999999999999999"),
                      ("dump", text, "--index")):
            self.dedupctl(*usage, expect=USAGE)


if __name__ == "__main__":
    cli.main()
