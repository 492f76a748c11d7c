"""The decorator: a function runs once per key, and what fails is free, or held."""

import asyncio
import threading
import time
from unittest import mock

from base import StoreTest
from dedupstore import (
    FOREVER, NEVER, Absent, Code, Completed, InFlight, InvalidArgument, OnHold, OtherRequest,
    OutcomeUnknown, StillInFlight, Unanswered, current_attempt, idempotent, per_process,
)


class Functions(StoreTest):
    def test_runs_once_and_replays(self):
        runs = []

        @idempotent(self.cache, key=lambda order, amount: f"order-{order}")
        def pay(order, amount):
            """Pays."""
            runs.append(order)
            self.assertEqual(current_attempt().claim.attempt, 1)
            return {"paid": amount, "list": [1, None]}

        first = pay(1, amount=5)
        self.assertEqual((pay(1, amount=6), runs), (first, [1]))
        self.assertEqual(pay(2, 7)["paid"], 7)
        self.assertEqual((pay.__name__, pay.__doc__), ("pay", "Pays."))
        self.assertEqual(self.cache.lookup("order-1").receipt, b'{"paid": 5, "list": [1, null]}')
        self.assertRaises(LookupError, current_attempt)

    def test_what_fails_is_free_at_once(self):
        fails = [True]

        @idempotent(self.cache, key=lambda: "k")
        def work():
            if fails.pop():
                raise ValueError("once")
            return current_attempt().previous.end.name

        fails.insert(0, False)
        self.assertRaisesRegex(ValueError, "once", work)
        self.assertIsInstance(self.cache.lookup("k"), Absent)
        self.assertEqual(work(), "RELEASED")

    def test_what_fails_behind_a_note_is_held(self):
        @idempotent(self.cache, key=lambda: "k")
        def work():
            current_attempt().note("about to pay")
            raise OSError("lost the connection")

        self.assertRaises(OSError, work)
        with self.assertRaises(OnHold) as raised:
            work()
        self.assertEqual(raised.exception.outcome.previous.reason, "OSError: lost the connection")
        self.assertEqual(raised.exception.outcome.previous.note, b"about to pay")

    def test_a_note_that_was_not_written_holds_nothing(self):
        @idempotent(self.cache, key=lambda note: "k")
        def work(note):
            current_attempt().note(note)

        self.assertRaises(InvalidArgument, work, "x" * 70_000)
        self.assertRaises(TypeError, work, None)
        self.assertIsInstance(self.cache.lookup("k"), Absent)

    def test_a_note_that_may_have_been_written_holds_the_key(self):
        for error in (OutcomeUnknown(Code.OUTCOME_UNKNOWN, "the server is gone"), KeyboardInterrupt()):
            @idempotent(self.cache, key=lambda key: key)
            def work(key):
                with mock.patch.object(self.cache, "note", side_effect=error):
                    current_attempt().note("about to pay")

            key = type(error).__name__
            self.assertRaises(type(error), work, key)
            self.assertRaises(OnHold, work, key)

    def test_a_note_that_was_written_counts_whatever_the_next_one_comes_to(self):
        @idempotent(self.cache, key=lambda: "k")
        def work():
            current_attempt().note("about to pay")
            current_attempt().note("x" * 70_000)

        self.assertRaises(InvalidArgument, work)
        self.assertRaises(OnHold, work)

    def test_what_only_begins_when_it_is_called_is_refused(self):
        def generator():
            yield 1

        async def asynchronous():
            yield 1

        class Called:
            def __call__(self):
                yield 1

        for work in (generator, asynchronous, Called()):
            self.assertRaises(TypeError, idempotent(self.cache, key=lambda: "k"), work)

    def test_a_coroutine_that_nobody_awaits_frees_the_key(self):
        async def never_runs():
            self.fail("it ran")

        pay = idempotent(self.cache, key=lambda: "k")(lambda: never_runs())
        self.assertRaisesRegex(TypeError, "coroutine", pay)
        self.assertIsInstance(self.cache.lookup("k"), Absent)

    def test_a_task_that_nobody_awaits_holds_the_key(self):
        pay = idempotent(self.cache, key=lambda: "k", dumps=str)(
            lambda: asyncio.get_running_loop().create_future())

        async def main():
            self.assertRaisesRegex(TypeError, "Future", pay)

        asyncio.run(main())
        self.assertRaises(OnHold, pay)

    def test_the_first_caller_gets_what_the_others_get(self):
        work = idempotent(self.cache, key=lambda: "k")(lambda: {1: (2, 3)})
        self.assertEqual([work(), work()], [{"1": [2, 3]}] * 2)

    def test_a_result_that_cannot_be_read_holds_the_key(self):
        work = idempotent(self.cache, key=lambda: "k", dumps=lambda _: "no JSON")(lambda: 1)
        self.assertRaises(ValueError, work)
        self.assertRaises(OnHold, work)

    def test_a_lease_may_last_for_ever(self):
        # Guards against a heartbeat that ends of it, with a traceback.
        said = []
        with mock.patch("threading.excepthook", said.append):
            work = idempotent(self.cache, key=lambda: "k", lease=FOREVER)(
                lambda: time.sleep(0.05) or 1)
            self.assertEqual(work(), 1)
            self.wait_until(lambda: not any(thread.name == "dedup-heartbeat"
                                            for thread in threading.enumerate()))
        self.assertEqual(said, [])

    def test_what_fails_too_often_is_held(self):
        # Guards against work that fails for ever: its last error is kept for somebody to look at.
        capped = self.store.cache("capped", attempts_max=2)
        for cache, options in ((self.cache, {"attempts_max": 2}), (capped, {}),
                               (per_process(lambda: capped), {})):
            key = f"k{cache is self.cache}{cache is capped}"

            @idempotent(cache, key=lambda: key, **options)
            def work():
                raise ValueError(f"at {current_attempt().claim.attempt}")

            self.assertRaisesRegex(ValueError, "at 1", work)
            self.assertRaisesRegex(ValueError, "at 2", work)
            with self.assertRaises(OnHold) as raised:
                work()
            self.assertEqual(raised.exception.outcome.previous.reason, "ValueError: at 2")

    def test_an_option_goes_before_the_cap_of_the_cache(self):
        capped = self.store.cache("capped", attempts_max=1)

        @idempotent(capped, key=lambda: "k", attempts_max=NEVER)
        def work():
            raise ValueError

        for _ in range(3):
            self.assertRaises(ValueError, work)

    def test_a_result_that_cannot_be_kept_holds_the_key(self):
        @idempotent(self.cache, key=lambda: "k")
        def work():
            return object()

        self.assertRaises(TypeError, work)
        self.assertRaises(OnHold, work)

    def test_others_wait_or_are_told(self):
        started, go = threading.Event(), threading.Event()

        def slow():
            started.set()
            go.wait()
            return 42

        first = idempotent(self.cache, key=lambda: "k", owner="first")(slow)
        later = idempotent(self.cache, key=lambda: "k", wait=60)(slow)
        results = []
        threads = [threading.Thread(target=lambda: results.append(first()))]
        threads[0].start()
        started.wait()
        with self.assertRaisesRegex(StillInFlight, "first"):
            first()
        threads.append(threading.Thread(target=lambda: results.append(later())))
        threads[1].start()
        go.set()
        for thread in threads:
            thread.join()
        self.assertEqual(results, [42, 42])

    def test_a_lease_is_renewed_while_it_runs(self):
        seen = []

        @idempotent(self.cache, key=lambda: "k", lease=0.2)
        def work():
            begun = time.monotonic()
            # However slow the machine: until it has been renewed, and again.
            leases = set()
            while len(leases) < 4:
                leases.add(self.cache.lookup("k").lease_until_ms)
                self.assertLess(time.monotonic() - begun, 60)
                time.sleep(0.01)
            seen.append(self.cache.lookup("k"))
            return 1

        self.assertEqual(work(), 1)
        self.assertIsInstance(seen[0], InFlight)
        self.wait_until(lambda: not any(thread.name == "dedup-heartbeat"
                                        for thread in threading.enumerate()))

    def test_a_heartbeat_that_could_not_start_is_started_later(self):
        pay = idempotent(self.cache, key=lambda key: key, lease=0.3)(
            lambda key: time.sleep(1) or current_attempt().lost)
        start = threading.Thread.start

        def refuse(thread):
            if thread.name == "dedup-heartbeat":
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = refuse
        try:
            with self.assertRaises(RuntimeError):
                pay("k")
        finally:
            threading.Thread.start = start
        self.assertIsA(Absent, self.cache.lookup("k"))  # it was given back
        self.assertIs(pay("k"), False)

    def test_a_lost_lease_is_noticed(self):
        @idempotent(self.cache, key=lambda: "k", lease=0.05)
        def work():
            attempt = current_attempt()
            self.cache.release_current("k")
            self.wait_until(lambda: attempt.lost)
            return 1

        self.assertRaisesRegex(Exception, "stale_claim", work)

    def test_fingerprints_and_policies(self):
        @idempotent(self.cache, key=lambda body: "k", fingerprint=lambda body: body,
                    unanswered=Unanswered.HOLD, dumps=lambda value: value.encode(),
                    loads=lambda receipt: receipt.decode())
        def work(body):
            self.assertEqual(self.cache.lookup("k").unanswered, Unanswered.HOLD)
            return body

        self.assertEqual((work("one"), work("one")), ("one", "one"))
        self.assertRaises(OtherRequest, work, "two")
        self.assertRaises(ValueError, idempotent, self.cache, key=str, lease=0.001)


class Coroutines(StoreTest):
    def test_runs_once_and_replays(self):
        runs = []

        @idempotent(self.cache, key=lambda order: order, wait=60)
        async def pay(order):
            runs.append(order)
            await asyncio.sleep(0.02)
            return {"paid": order, "attempt": current_attempt().claim.attempt}

        async def main():
            return await asyncio.gather(*(pay(f"{i % 5}") for i in range(50)))

        results = asyncio.run(main())
        self.assertEqual(sorted(runs), list("01234"))
        self.assertEqual(results[7], {"paid": "2", "attempt": 1})
        # Another loop, the same cache.
        self.assertEqual(asyncio.run(pay("2")), results[7])

    def test_what_fails_is_free_and_behind_a_note_held(self):
        @idempotent(self.cache, key=lambda key, note: key)
        async def work(key, note):
            if note:
                current_attempt().note("going")
            raise ValueError(key)

        async def main():
            for note in (False, True):
                with self.assertRaises(ValueError):
                    await work(f"k{note}", note)
            with self.assertRaises(OnHold):
                await work("kTrue", True)

        asyncio.run(main())
        self.assertIsInstance(self.cache.lookup("kFalse"), Absent)

    def test_an_object_whose_call_is_a_coroutine_function(self):
        class Pay:
            async def __call__(self, order):
                return {order: 1}

        pay = idempotent(self.cache, key=lambda order: order)(Pay())
        for _ in range(2):
            self.assertEqual(asyncio.run(pay("7")), {"7": 1})

    def test_a_note_lets_the_other_tasks_go_on(self):
        going, noted = threading.Event(), threading.Event()
        note = self.cache.note

        def slow_note(*arguments):
            noted.set()
            self.assertTrue(going.wait(60))
            note(*arguments)

        @idempotent(self.cache, key=lambda: "k")
        async def work():
            await current_attempt().note_async("about to pay")
            raise ValueError

        async def other():
            while not noted.is_set():
                await asyncio.sleep(0.001)
            going.set()

        async def main():
            with mock.patch.object(self.cache, "note", slow_note):
                await asyncio.gather(work(), other(), return_exceptions=True)
            with self.assertRaises(OnHold) as raised:
                await work()
            self.assertEqual(raised.exception.outcome.previous.note, b"about to pay")

        asyncio.run(main())

    def test_a_note_that_is_cancelled_holds_the_key(self):
        noting, going = threading.Event(), threading.Event()

        def slow_note(*_):
            noting.set()
            going.wait(60)

        @idempotent(self.cache, key=lambda: "k")
        async def work():
            await current_attempt().note_async("about to pay")

        async def main():
            task = asyncio.create_task(work())
            while not noting.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        with mock.patch.object(self.cache, "note", slow_note):
            threading.Timer(0.1, going.set).start()
            asyncio.run(main())
        self.assertIs(self.cache.lookup("k").held, True)

    def test_what_fails_too_often_is_held(self):
        @idempotent(self.cache, key=lambda: "k", attempts_max=2)
        async def work():
            raise ValueError(f"at {current_attempt().claim.attempt}")

        async def main():
            for _ in range(2):
                with self.assertRaises(ValueError):
                    await work()
            with self.assertRaises(OnHold) as raised:
                await work()
            return raised.exception.outcome.previous.reason

        self.assertEqual(asyncio.run(main()), "ValueError: at 2")

    def test_a_cancelled_task_frees_its_key(self):
        @idempotent(self.cache, key=lambda: "k")
        async def work():
            await asyncio.sleep(1000)

        async def main():
            task = asyncio.create_task(work())
            while isinstance(self.cache.lookup("k"), Absent):
                await asyncio.sleep(0.001)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        self.assertIsInstance(self.cache.lookup("k"), Absent)

    def test_others_are_told(self):
        @idempotent(self.cache, key=lambda: "k")
        async def work():
            with self.assertRaises(StillInFlight):
                await idempotent(self.cache, key=lambda: "k")(work_again)()
            return 1

        async def work_again():
            self.fail("ran twice")

        self.assertEqual(asyncio.run(work()), 1)
        self.assertIsInstance(self.cache.lookup("k"), Completed)
