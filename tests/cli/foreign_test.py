"""import --from: the records of other systems, mapped as docs/dedupctl.md says."""

import json
import time

import cli
from cli import ABSENT, COMPLETED, ERROR, IN_FLIGHT, OK, USAGE

NOW = int(time.time())


class Foreign(cli.CliTest):
    def run_import(self, text, *options, expect=OK):
        data = text if isinstance(text, bytes) else text.encode()
        return self.dedupctl("--json", "import", "--from", self.FORMAT, *options, stdin=data,
                             expect=expect)

    def inspect(self, key):
        return self.dedupctl("--json", "inspect", key, expect=OK).json["records"][-1]


class Reservations(Foreign):
    FORMAT = "reservations"
    RECORDS = {
        "held": {"status": "reserved", "owner": "w-1", "fingerprint": "f", "created_at": NOW - 60,
                 "expires_at": NOW + 3600},
        "text": {"status": "completed", "created_at": "2026-01-01T12:00:00Z", "outcome": "sent"},
        "json": {"status": "done", "created_at": NOW - 0.5, "outcome": {"b": [1, None], "a": "é"},
                 "attempts": 2, "note": None},
        "none": {"status": "completed", "created_at": NOW - 60, "outcome": None},
        "gone": {"status": "cancelled", "created_at": NOW - 60, "expires_at": None},
    }

    def test_both_forms_give_the_same(self):
        for form, document in (("new", {"version": 1, "records": self.RECORDS}),
                               ("old", self.RECORDS)):
            self.store = self.path(form)
            result = self.run_import(json.dumps(document))
            self.assertEqual(result.json["imported"], 5, result)
            held = self.inspect("held")
            self.assertEqual((held["state"], held["owner"], held["fingerprint"]),
                             ("in_flight", "w-1", "f"))
            self.assertEqual((held["timestamp_ms"], held["expires_at_ms"]),
                             ((NOW - 60) * 1000, (NOW + 3600) * 1000))
            self.dedupctl("lookup", "held", expect=IN_FLIGHT)
            self.assertEqual(self.dedupctl("lookup", "text", expect=COMPLETED).out, b"sent")
            self.assertEqual(self.inspect("text")["timestamp_ms"], 1767268800000)
            self.assertIsNone(self.inspect("text")["expires_at_ms"])
            self.assertEqual(self.dedupctl("lookup", "json", expect=COMPLETED).out,
                             '{"b":[1,null],"a":"é"}'.encode())
            self.assertEqual(self.inspect("json")["metadata"], '{"attempts":2,"note":null}')
            self.assertEqual(self.inspect("json")["timestamp_ms"], NOW * 1000 - 500)
            self.assertEqual(self.dedupctl("lookup", "none", expect=COMPLETED).out, b"")
            self.assertEqual(self.inspect("gone")["state"], "released")
            again = self.run_import(json.dumps(document))
            self.assertEqual(again.json["equal"], 5)

    def test_a_key_named_version_is_a_key(self):
        one = {"status": "done", "created_at": NOW - 1}
        self.run_import(json.dumps({"version": one, "records": one}))
        self.dedupctl("lookup", "version", expect=COMPLETED)
        self.dedupctl("lookup", "records", expect=COMPLETED)

    def test_namespace_and_ttl(self):
        document = json.dumps({"k": {"status": "done", "created_at": NOW - 60},
                               "old": {"status": "done", "created_at": NOW - 7200}})
        result = self.run_import(document, "-n", "ns", "--ttl", "1h")
        self.assertEqual((result.json["imported"], result.json["expired"]), (1, 1))
        record = self.dedupctl("--json", "-n", "ns", "inspect", "k", expect=OK).json["records"][0]
        self.assertEqual(record["expires_at_ms"], (NOW - 60 + 3600) * 1000)

    def test_a_key_named_records_in_the_old_form(self):
        record = {"status": "done", "created_at": NOW - 1, "outcome": {"a": 1}, "more": {"b": 2}}
        self.run_import(json.dumps({"records": record, "k": record}))
        for key in ("records", "k"):
            self.assertEqual(self.dedupctl("lookup", key, expect=COMPLETED).out, b'{"a":1}')
            self.assertEqual(self.inspect(key)["metadata"], '{"more":{"b":2}}')

    def test_records_without_their_version_are_refused(self):
        one = {"status": "done", "created_at": NOW - 1}
        text = json.dumps({"records": {f"k{number}": one for number in range(1001)}})
        self.assertInError("no version", self.run_import(text, expect=ERROR))

    def test_what_is_there_twice(self):
        one = json.dumps({"status": "done", "created_at": NOW - 1})
        for form in ('{"version": 1, "records": {%s}}', "{%s}"):
            doubled = form % f'"k": {one}, "k": {one}'
            result = self.run_import(doubled, expect=ERROR)
            self.assertInError(["record 'k'", "another record with that key"], result)
            self.assertEqual(self.run_import(doubled, "--skip-bad").json["bad"], 1)
            member = form % ('"m": ' + one.replace("{", '{"status": "reserved", '))
            self.assertInError(["record 'm'", "twice"], self.run_import(member, expect=ERROR))
        both = '{"version": 1, "records": {}, "records": {}}'
        self.assertInError("two objects", self.run_import(both, expect=ERROR))

    def test_a_wrong_ttl_makes_no_store(self):
        self.dedupctl("import", "--from", "reservations", "--ttl", "soon", expect=USAGE)
        self.dedupctl("lookup", "k", expect=ERROR)

    def test_what_cannot_be_read_imports_nothing(self):
        for text, code in (
                (json.dumps({"version": 2, "records": self.RECORDS}), "unsupported_version"),
                (json.dumps({"records": self.RECORDS, "version": 2}), "unsupported_version"),
                (json.dumps({"version": "1", "records": {}}), "unsupported_version"),
                (json.dumps({"version": 1}), "invalid_argument"),
                (json.dumps({"version": 1, "records": []}), "invalid_argument"),
                ("[]", "invalid_argument"), ("", "invalid_argument"),
                (json.dumps(self.RECORDS)[:-1], "invalid_argument")):
            result = self.run_import(text, "--skip-bad", expect=ERROR)
            self.assertEqual(result.json["error"]["code"], code, text)
            self.assertInError("nothing has been imported", result)
        self.dedupctl("lookup", "text", expect=ABSENT)

    def test_bad_records(self):
        good = {"status": "done", "created_at": NOW - 1}
        for number, (change, what) in enumerate((
                ({"status": "lost"}, "lost"), ({"status": None}, "no status"),
                ({"created_at": None}, "created_at"), ({"created_at": "yesterday"}, "created_at"),
                ({"created_at": -1}, "created_at"), ({"created_at": 1e300}, "created_at"),
                ({"created_at": NOW + 7200}, "yet to come"), ({"expires_at": "soon"}, "expires"),
                ({"status": "reserved", "outcome": 1}, "outcome"))):
            self.store = self.path(f"store-{number}")
            document = json.dumps({"a": good, "bad": {**good, **change}, "z": good})
            stopped = self.run_import(document, expect=ERROR)
            self.assertInError(["record 'bad'", what, "1 record imported"], stopped)
            result = self.run_import(document, "--skip-bad")
            self.assertEqual((result.json["equal"], result.json["imported"], result.json["bad"]),
                             (1, 1, 1))
            self.dedupctl("lookup", "bad", expect=ABSENT)
        self.store = self.path("last")
        self.assertInError("not a JSON object", self.run_import('{"a": 1}', expect=ERROR))


class Csv(Foreign):
    FORMAT = "csv"

    def test_a_table(self):
        text = ("id,event_id,processed_at,metadata\r\n"
                "1,plain,2026-01-01T12:00:00Z,\r\n"
                '2,"with ""quotes"", commas\r\nand lines",2026-01-01 12:00:00.123456+00,'
                '"{""a"": 1}"\r\n'
                "\r\n"
                "3,zone,2026-01-01 17:30:00.5+05:30,é\n"
                "4,bare,2026-01-01 12:00:00,x")
        result = self.run_import(text)
        self.assertEqual((result.json["read"], result.json["imported"]), (4, 4))
        start = 1767268800000
        for key, row, time_ms, metadata in (
                ("plain", "1", start, ""),
                ('with "quotes", commas\r\nand lines', "2", start + 123, '{"a": 1}'),
                ("zone", "3", start + 500, "é"), ("bare", "4", start, "x")):
            record = self.inspect(key)
            self.assertEqual((record["state"], record["event_id"], record["timestamp_ms"],
                              record["metadata"], record["receipt"], record["expires_at_ms"]),
                             ("completed", row, time_ms, metadata, "", None))
        self.assertEqual(self.run_import(text).json["equal"], 4)

    def test_columns_in_any_order_and_a_byte_order_mark(self):
        self.run_import(b"\xef\xbb\xbfprocessed_at,event_id\n2026-01-01T12:00:00+01,k\n")
        self.assertEqual(self.inspect("k")["timestamp_ms"], 1767265200000)
        self.assertEqual(self.inspect("k")["metadata"], "")

    def test_keys_may_be_any_bytes(self):
        self.run_import(b'event_id,processed_at\n\xff\x01,2026-01-01T12:00:00Z\n')
        self.dedupctl("lookup", b"\xff\x01", expect=COMPLETED)

    def test_titles_that_make_no_sense(self):
        for text in ("", "\n", "event_id\nk\n", "event_id,processed_at,colour\n",
                     "event_id,processed_at,event_id\n", '"event_id\n', "1,k,2026-01-01,x\n"):
            result = self.run_import(text, "--skip-bad", expect=ERROR)
            self.assertInError(["Nothing has been imported", "event_id"], result)

    def test_bad_rows(self):
        for number, (row, what) in enumerate((
                ("k", "1 field"), ("k,2026-01-01T12:00:00Z,x", "3 fields"),
                ("k,yesterday", "processed_at"), ("k,2026-02-30T12:00:00Z", "processed_at"),
                ("k,1969-12-31T12:00:00Z", "processed_at"), ("k,2026-01-01", "processed_at"),
                ("k,2026-01-01T24:00:00Z", "processed_at"),
                ("k,2026-01-01T12:00:00.Z", "processed_at"),
                ("k,2026-01-01T12:00:00+5", "processed_at"),
                ("k,2026-01-01T12:00:00Zx", "processed_at"), ("k,infinity", "processed_at"),
                ("k,9999-01-01T12:00:00Z", "yet to come"), (",2026-01-01T12:00:00Z", "key"),
                ('a"b,2026-01-01T12:00:00Z', "quote"), ('"a"b,2026-01-01T12:00:00Z', "quote"))):
            self.store = self.path(f"store-{number}")
            text = (f'event_id,processed_at\n"two\nlines",2026-01-01T12:00:00Z\n{row}\n'
                    "last,2026-01-01T12:00:00Z\n")
            stopped = self.run_import(text, expect=ERROR)
            self.assertInError(["line 4: ", what, "1 record imported"], stopped)
            result = self.run_import(text, "--skip-bad")
            self.assertEqual((result.json["equal"], result.json["imported"], result.json["bad"]),
                             (1, 1, 1), row)
            self.dedupctl("lookup", "last", expect=COMPLETED)
        self.assertInError("not closed", self.run_import(
            'event_id,processed_at\n"k,2026-01-01T12:00:00Z\n', expect=ERROR))

    def test_many_rows_that_cross_the_pieces_in_which_they_are_read(self):
        rows = "".join(f'{n},"key ""{n}"",\n{"x" * (n % 97)}",2026-01-01T12:00:00Z,\n'
                       for n in range(30_000))
        text = "id,event_id,processed_at,metadata\n" + rows
        self.assertEqual(self.run_import(text).json["imported"], 30_000)
        self.dedupctl("lookup", f'key "29999",\n{"x" * (29999 % 97)}', expect=COMPLETED)


if __name__ == "__main__":
    cli.main()
