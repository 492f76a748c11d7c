"""Stores, caches, and what they say; and that the package speaks the library's interface."""

import ctypes
import dataclasses
import datetime
import inspect
import os
import sys
import threading

from base import ROOT, StoreTest, dedupstore
from dedupstore import (
    FOREVER, Absent, Claim, Claimed, Closed, Code, Completed, DedupError, End, Held, InFlight,
    InvalidArgument, Mismatch, New, NotClaimed, ReceiptMismatch, StaleClaim, Store, Unanswered,
    _library, claim_options, outcomes, reports,
)


class Interface(StoreTest):
    def test_structures_are_those_of_the_library(self):
        written = {}
        for line in (ROOT / "tests/c/dedup.abi").read_text().splitlines():
            kind, name, *numbers = line.split()
            if kind in ("struct", "field"):
                written[name] = [int(number) for number in numbers]
        here = {}
        for name, structure in _library.STRUCTS.items():
            here[name] = [ctypes.sizeof(structure)]
            for field in structure._fields_:
                place = getattr(structure, field[0])
                here[f"{name}.{field[0]}"] = [place.offset, place.size]
        self.assertEqual(here, written)
        self.assertEqual(outcomes.ROW_BYTES, ctypes.sizeof(_library.Answer))

    def test_the_library_has_the_name_of_its_interface(self):
        first = (ROOT / "tests/c/dedup.abi").read_text().splitlines()[0]
        self.assertEqual(first, "library " + _library.LIBRARY)

    def test_codes_and_kinds_are_those_of_the_library(self):
        constants = {}
        for line in (ROOT / "tests/c/dedup.abi").read_text().splitlines():
            if line.startswith("constant "):
                constants[line.split()[1]] = int(line.split()[2])
        for code in Code:
            self.assertEqual(constants["DEDUP_" + code.name], code)
        for end in End:
            self.assertEqual(constants["DEDUP_END_" + end.name], end)
        for unanswered in Unanswered:
            self.assertEqual(constants["DEDUP_" + unanswered.name], unanswered)
        for kind in ("ERROR", "CLAIMED", "COMPLETED", "IN_FLIGHT", "MISMATCH", "HELD", "ABSENT",
                     "NEW", "DONE", "NOTHING"):
            self.assertEqual(constants["DEDUP_" + kind], getattr(outcomes, "_" + kind))
        self.assertEqual(dedupstore.NEVER, constants["DEDUP_NEVER"])

    def test_reports_say_all_that_the_library_says(self):
        made_of = {reports.SweepReport: {"namespaces_count", "unanswered_count"},
                   reports.Stats: set(), reports.Counts: set(), reports.SweptNamespace: {"ns"},
                   reports.UnansweredClaim: {"reserved"}}
        for kind, left_out in made_of.items():
            structure = getattr(_library, kind.__name__.replace("UnansweredClaim", "Unanswered"))
            names = {name for name, _ in structure._fields_}
            self.assertEqual({field.name for field in dataclasses.fields(kind)}, names - left_out)
        options = {name for name, _ in _library.SweepOptions._fields_} - {"size", "context"}
        taken = set(inspect.signature(Store.sweep).parameters) - {"self"}
        self.assertEqual({name.replace("time_max_ms", "time_max") for name in options}, taken)

    def test_every_call_of_the_library_is_declared(self):
        for line in (ROOT / "tests/c/dedup.abi").read_text().splitlines():
            kind, name, *_ = line.split()
            if kind == "symbol" and name not in ("dedup_outcome_count", "dedup_code_name"):
                function = getattr(_library.library, name)
                self.assertTrue(function.argtypes is not None or name == "dedup_version", name)

    def test_answers_of_a_newer_library_are_understood(self):
        row = outcomes._row_of(outcomes.ROW_BYTES + 16)
        self.assertEqual(row.size, outcomes.ROW_BYTES + 16)


class Keys(StoreTest):
    def test_a_key_is_claimed_completed_and_replayed(self):
        claimed = self.assertIsA(Claimed, self.cache.claim(
            "key", lease=datetime.timedelta(minutes=1), owner="me", event_id="e", metadata=b"\0m"))
        self.assertEqual((claimed.claim.key, claimed.claim.attempt), (b"key", 1))
        held = self.assertIsA(InFlight, self.cache.claim(b"key"))
        self.assertEqual((held.owner, held.event_id, held.metadata), ("me", "e", b"\0m"))
        self.assertEqual(held.claim_sequence, claimed.claim.claim_sequence)
        self.cache.note(claimed.claim, "going")
        self.assertGreater(self.cache.renew(claimed.claim, 100).deadline_ms,
                           claimed.claim.deadline_ms)
        self.assertIsA(InFlight, self.cache.wait("key", 0.001))
        self.cache.complete(claimed.claim, b"\0receipt\0")
        done = self.assertIsA(Completed, self.cache.claim("key"))
        self.assertEqual((done.receipt, done.metadata), (b"\0receipt\0", b"going"))
        self.assertEqual(done, self.cache.lookup("key"))
        with self.assertRaises(ReceiptMismatch) as raised:
            self.cache.complete(claimed.claim, b"other")
        self.assertEqual(raised.exception.code, Code.RECEIPT_MISMATCH)
        self.assertIn("key", str(raised.exception))
        self.assertTrue(self.cache.forget("key", reason="by hand", by="ann"))
        self.assertFalse(self.cache.forget("key", reason="by hand"))
        again = self.assertIsA(Claimed, self.cache.claim("key"))
        self.assertEqual((again.previous.end, again.previous.by), (End.FORGOTTEN, "ann"))

    def test_a_wait_ends_when_there_is_nothing_to_wait_for(self):
        # Longer than a wait in the library is: it takes several.
        self.cache.claim("short", lease=0.4)
        self.assertIsA(InFlight, self.cache.wait("short", FOREVER))
        claim = self.cache.claim("k").claim
        self.assertIsA(InFlight, self.cache.wait("k", 0.4))
        end = threading.Timer(0.4, self.cache.hold, (claim, "cannot say"))
        end.start()
        self.assertTrue(self.cache.wait("k", datetime.timedelta(hours=1)).held)
        end.join()
        self.assertIsA(Absent, self.cache.wait("other", 0))
        with self.assertRaises(ValueError):
            self.cache.wait("k", -1)

    def test_releases_and_current_claims(self):
        claim = self.cache.claim("k").claim
        self.assertTrue(self.cache.release(claim))
        self.assertFalse(self.cache.release(claim))
        self.cache.claim("k")
        with self.assertRaises(StaleClaim):
            self.cache.complete(claim, b"")
        self.assertTrue(self.cache.release_current("k"))
        with self.assertRaises(NotClaimed):
            self.cache.complete_current("k", b"r")
        self.cache.claim("k")
        self.cache.complete_current("k", "r", ttl=10, metadata=b"new")
        done = self.cache.lookup("k")
        self.assertEqual(done.metadata, b"new")
        self.assertEqual(done.expires_at_ms - done.completed_at_ms, 10_000)

    def test_held_keys_are_resolved(self):
        claim = self.cache.claim("k", lease=100, unanswered=Unanswered.HOLD).claim
        self.cache.hold(claim, "cannot say")
        held = self.assertIsA(Held, self.cache.claim("k"))
        self.assertEqual(held.previous.reason, "cannot say")
        self.assertTrue(self.cache.lookup("k").held)
        self.cache.resolve("k", claim.claim_sequence, receipt=None, reason="looked")
        claim = self.cache.claim("k", lease=100).claim
        self.cache.hold(claim, "again")
        self.cache.resolve("k", claim.claim_sequence, receipt=b"", reason="looked", by="ann")
        self.assertEqual(self.cache.lookup("k").receipt, b"")

    def test_who_remembers_is_told_who_was_there_before(self):
        self.assertIsNone(self.cache.remember("fresh").previous)
        claim = self.cache.claim("k", owner="me").claim
        self.cache.note(claim, "reference 8125")
        self.cache.release(claim)
        previous = self.assertIsA(New, self.cache.remember("k")).previous
        self.assertEqual((previous.end, previous.owner, previous.note),
                         (End.RELEASED, "me", b"reference 8125"))

    def test_fingerprints_and_remember(self):
        self.assertIsA(New, self.cache.remember("k", "r", fingerprint="one"))
        self.assertEqual(self.cache.remember("k", "x", fingerprint="one").receipt, b"r")
        other = self.assertIsA(Mismatch, self.cache.remember("k", "r", fingerprint="two"))
        self.assertEqual((other.fingerprint, other.completed), ("one", True))

    def test_texts_that_are_no_unicode_come_back(self):
        self.cache.claim(b"\xff\0", owner=b"\xfe")
        owner = self.cache.lookup(b"\xff\0").owner
        self.assertEqual(owner.encode("utf-8", "surrogateescape"), b"\xfe")
        self.assertIsA(InFlight, self.cache.lookup("\udcff\0"))

    def test_namespaces_are_apart(self):
        self.cache.claim("k")
        self.assertIsA(Absent, self.store.cache("other", ttl=FOREVER).lookup("k"))


class Arguments(StoreTest):
    """What is no text, or no number that has room, is refused and not made into one."""

    def test_numbers_and_lists_are_no_texts(self):
        for wrong in (17, 0, True, None, 1.5, [1, 2], ["k"], {"k": 1}):
            for call in (self.cache.claim, self.cache.lookup, self.cache.remember,
                         self.store.cache):
                with self.assertRaises(TypeError, msg=f"{wrong!r}"):
                    call(wrong)
            for call in (self.cache.claim_many, self.cache.lookup_many):
                with self.assertRaises(TypeError, msg=f"{wrong!r}"):
                    call([wrong])
        claim = self.cache.claim("k").claim
        for wrong in (5, 0, False, [1]):
            with self.assertRaises(TypeError):
                self.cache.complete(claim, wrong)
            with self.assertRaises(TypeError):
                self.cache.complete(claim, b"", metadata=wrong)
            with self.assertRaises(TypeError):
                self.cache.claim("l", owner=wrong)
            with self.assertRaises(TypeError):
                self.cache.resolve("k", claim.claim_sequence, receipt=wrong, reason="looked")
        self.assertEqual(self.store.stats().records, 1)

    def test_what_holds_bytes_is_a_text(self):
        for key in (b"k", bytearray(b"k"), memoryview(b"k"), "k"):
            self.cache.claim(key)
        self.assertEqual(self.store.stats().records, 1)

    def test_one_text_is_not_many_keys(self):
        for keys in ("order", b"order"):
            with self.assertRaises(TypeError):
                self.cache.claim_many(keys)

    def test_numbers_without_room_are_refused(self):
        # Guards against what ctypes does: -1 as attempts_max would be NEVER, 2**32 no limit at all.
        claim = self.cache.claim("k", lease=10).claim
        for options in ({"attempts_max": -1}, {"attempts_max": 2**32}, {"expires_at_ms": 2**63},
                        {"reclaim_before_ms": 2**64 + 1}, {"unanswered": 2**32 + 1}):
            with self.assertRaisesRegex(ValueError, next(iter(options)), msg=options):
                self.cache.claim("l", **options)
        for options in ({"keys_max": 2**64 + 1}, {"bytes_max": -1}, {"segment_bytes": 2**64},
                        {"mode": 2**32 + 0o700}):
            with self.assertRaisesRegex(ValueError, next(iter(options)), msg=options):
                Store(self.path + "-2", **options)
        for options in ({"records_max": -1}, {"bytes_max": 2**64}, {"now_ms": 2**64 + 1}):
            with self.assertRaisesRegex(ValueError, next(iter(options)), msg=options):
                self.store.sweep(**options)
        with self.assertRaisesRegex(ValueError, "attempts_max"):
            self.store.cache(attempts_max=2**32 + 1)
        for fence in (claim.claim_sequence + 2**64, -1):
            wrong = Claim(claim.key, fence)
            cache = self.cache
            for call in (lambda: cache.complete(wrong), lambda: cache.release(wrong),
                         lambda: cache.note(wrong, b""), lambda: cache.hold(wrong, "why"),
                         lambda: cache.renew(wrong, 1), lambda: cache.release_many([wrong]),
                         lambda: cache.complete_many([(wrong, b"")]),
                         lambda: cache.note_many([(wrong, b"")]),
                         lambda: cache.resolve("k", fence, receipt=b"", reason="looked"),
                         lambda: cache.forget("k", claim_sequence=fence, reason="looked")):
                with self.assertRaisesRegex(ValueError, "claim_sequence"):
                    call()
        self.cache.complete(claim, b"")

    def test_options_are_given_in_one_way(self):
        made = claim_options(owner="me")
        for call, what in ((self.cache.claim, "k"), (self.cache.claim_many, ["k"])):
            with self.assertRaisesRegex(TypeError, "lease"):
                call(what, made, lease=10)
        self.cache.claim("k", made)
        self.assertEqual(self.cache.lookup("k").owner, "me")

    def test_a_path_ends_where_it_is_said_to_end(self):
        for call in (Store, dedupstore.init_postgres):
            with self.assertRaisesRegex(ValueError, "zero byte"):
                call(self.path + "-2\0x")
        self.assertFalse(os.path.exists(self.path + "-2"))

    def test_no_grace_is_no_grace(self):
        for grace in (0, 0.0, datetime.timedelta(0)):
            Store(None, grace=grace).close()


class Many(StoreTest):
    def test_an_answer_of_a_newer_library_costs_no_other(self):
        # Guards against claims that are durable and that nobody hears of.
        self.cache.claim("k", lease=10)
        outcome = ctypes.c_void_p()
        _library.call(_library.library.dedup_lookup, self.cache._handle.pointer, b"k", 1, outcome)
        self.addCleanup(_library.library.dedup_outcome_free, outcome)
        (row,), text = outcomes.take_rows(outcome)
        row = list(row)
        row[outcomes._UNANSWERED] = 77
        answer = self.assertIsA(InFlight, outcomes.decode(tuple(row), text, b"k"))
        self.assertEqual((answer.unanswered, answer.attempt), (77, 1))

    def test_answers_come_in_order(self):
        keys = [b"a", "b", "a", b"", "c" * 2000]
        claims = self.cache.claim_many(keys, owner="me")
        self.assertEqual([type(each) for each in claims],
                         [Claimed, Claimed, InFlight, InvalidArgument, InvalidArgument])
        self.assertEqual(claims[1].claim.key, b"b")
        lost = Claim(b"b", claims[0].claim.claim_sequence)
        notes = self.cache.note_many([(claims[0].claim, "ä"), (lost, b"n"), (claims[1].claim, b"b")])
        self.assertEqual((notes[0], type(notes[1]), notes[2]), (True, StaleClaim, True))
        self.assertEqual([each.metadata for each in self.cache.lookup_many(["a", "b"])],
                         ["ä".encode(), b"b"])
        self.assertEqual(self.cache.note_many([]), [])
        self.assertEqual(self.cache.complete_many([(claims[0].claim, "r"), (claims[1].claim, b"")]),
                         [True, True])
        answers = self.cache.lookup_many(keys[:3] + ["new"])
        self.assertEqual([getattr(each, "receipt", None) for each in answers],
                         [b"r", b"", b"r", None])
        self.assertEqual(self.cache.release_many([claims[0].claim]), [False])
        news = self.cache.remember_many([("a", b"x"), ("n", b"y")])
        self.assertEqual([type(each) for each in news], [Completed, New])
        self.assertEqual(self.cache.claim_many([]), [])
        self.assertEqual(self.cache.lookup_many([]), [])
        stale = self.cache.renew_many([Claim(b"n", 1)], 10)
        self.assertEqual(type(stale[0]), StaleClaim)
        claim = self.cache.claim("z").claim
        self.assertGreater(self.cache.renew_many([claim], 10)[0], self.store.now_ms())

    def test_a_list_is_taken_as_it_is_at_the_call(self):
        # Guards against keys and receipts of two lengths, of which C would read the longer.
        class Shrinking(list):
            def __iter__(self):
                yield from [self[place] for place in range(len(self))]
                self.pop()

        def shrinking(*items):
            return Shrinking(items)

        self.assertEqual([type(each) for each in self.cache.remember_many(shrinking(("a", "x"), ("b", "y")))],
                         [New, New])
        self.assertEqual([each.receipt for each in self.cache.lookup_many(shrinking("a", "b"))], [b"x", b"y"])
        claims = [each.claim for each in self.cache.claim_many(shrinking("c", "d"), lease=10)]
        self.assertEqual(self.cache.note_many(shrinking(*((each, "n") for each in claims))), [True, True])
        self.assertEqual(len(self.cache.renew_many(shrinking(*claims), 20)), 2)
        self.assertEqual(self.cache.release_many(shrinking(*claims)), [True, True])
        claims = [each.claim for each in self.cache.claim_many(["c", "d"])]
        self.assertEqual(self.cache.complete_many(shrinking(*((each, "r") for each in claims))), [True, True])

    def test_large_ones(self):
        keys = [b"%d" % number for number in range(70_000)]
        claims = self.cache.claim_many(keys)
        self.assertTrue(all(type(each) is Claimed for each in claims))
        done = self.cache.complete_many([(each.claim, each.claim.key * 3) for each in claims])
        self.assertTrue(all(each is True for each in done))
        for key, answer in zip(keys, self.cache.lookup_many(keys)):
            self.assertEqual(answer.receipt, key * 3)


class Stores(StoreTest):
    def test_errors_have_codes(self):
        with self.assertRaises(dedupstore.Busy) as raised:
            Store(self.path)
        self.assertEqual(raised.exception.code, Code.BUSY)
        with self.assertRaises(InvalidArgument):
            Store(self.path + "-2", create=False)
        with self.assertRaises(ValueError):
            self.cache.claim("k", lease=0)
        with self.assertRaises(InvalidArgument):
            self.cache.claim("k", metadata=bytes(100_000))
        with self.assertRaises(InvalidArgument):
            self.store.cache("")
        with Store(self.path, read_only=True) as reader:
            with self.assertRaises(dedupstore.ReadOnly):
                reader.cache().claim("k")

    def test_a_closed_store_says_so(self):
        self.store.close()
        self.store.close()
        with self.assertRaises(Closed):
            self.cache.lookup("k")

    def test_one_that_is_forgotten_is_closed(self):
        store = Store(self.path + "-2")
        cache = store.cache()
        del store
        cache.claim("k")  # the cache keeps it
        del cache
        Store(self.path + "-2").close()

    def test_memory(self):
        with Store(None, grace=0) as store:
            self.assertIsA(Claimed, store.cache().claim("k"))

    def test_sweeps_and_statistics(self):
        self.cache.claim("k", ttl=0.001, owner="me")
        now = self.store.now_ms() + 5000
        self.assertEqual(self.store.sweep(dry_run=True, now_ms=now).removed.in_flight, 1)
        calls = []
        report = self.store.sweep(now_ms=now, progress=lambda *step: calls.append(step))
        self.assertEqual(report.removed.in_flight, 1)
        self.assertEqual(report.namespaces["default"].removed.in_flight, 1)
        self.assertEqual(report.namespaces["default"].retained.completed, 0)
        self.assertEqual((report.unanswered[0].key, report.unanswered[0].owner), (b"k", "me"))
        stats = self.store.stats()
        self.assertEqual((len(stats.store_id), stats.sweep_error), (32, ""))

        def fails(*_):
            raise RuntimeError("progress")

        if calls:
            self.cache.claim("l", ttl=0.001)
            with self.assertRaisesRegex(RuntimeError, "progress"):
                self.store.sweep(now_ms=now + 5000, progress=fails)

    def test_threads_win_a_key_once(self):
        won = []

        def claim_all():
            won.extend(key for key in range(300)
                       if isinstance(self.cache.claim(str(key)), Claimed))

        threads = [threading.Thread(target=claim_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(won), list(range(300)))

    def test_errors_of_a_thread_are_its_own(self):
        messages = {}
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)

        def fail(number):
            for _ in range(2000):
                try:
                    self.cache.complete(Claim(b"key-%d" % number, 1), b"")
                except DedupError as error:
                    messages.setdefault(number, set()).add(str(error))

        threads = [threading.Thread(target=fail, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, said in messages.items():
            self.assertEqual(len(said), 1, said)
            self.assertIn(f"key-{number}", said.pop())
