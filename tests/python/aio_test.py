"""asyncio: many tasks, one queue."""

import asyncio
import gc
import os

from base import StoreTest
from dedupstore import (
    Absent, AsyncCache, Claim, Claimed, Completed, InFlight, New, StaleClaim, claim_options,
    idempotent,
)


class Tasks(StoreTest):
    def test_have_one_queue(self):
        before = self.store.stats()

        async def one(cache, number):
            claimed = await cache.claim(f"k-{number}", lease=60)
            await cache.complete(claimed.claim, str(number))
            return await cache.claim(f"k-{number}")

        async def main():
            async with AsyncCache(self.cache) as cache:
                return await asyncio.gather(*(one(cache, number) for number in range(2000)))

        results = asyncio.run(main())
        self.assertEqual([each.receipt for each in results],
                         [str(number).encode() for number in range(2000)])
        self.assertEqual(self.store.stats().records - before.records, 4000)

    def test_all_calls(self):
        async def main():
            async with AsyncCache(self.cache, requests_max=2) as cache:
                claim = (await cache.claim("k", owner="me")).claim
                self.assertIsA(InFlight, await cache.claim("k"))
                await cache.note(claim, "going")
                await cache.hold(claim, "why")
                self.assertTrue(await cache.release(claim))
                self.assertFalse(await cache.release(claim))
                self.assertIsA(Absent, await cache.lookup("k"))
                with self.assertRaises(StaleClaim):
                    await cache.complete(claim, b"r")
                with self.assertRaises(ValueError):
                    await cache.complete(Claim(b"k", 0), b"r")
                # More tasks than the queue has room for.
                got = await asyncio.gather(*(cache.claim(f"{number}") for number in range(50)))
                self.assertTrue(all(isinstance(each, Claimed) for each in got))
            with self.assertRaises(RuntimeError):
                await cache.claim("k")

        asyncio.run(main())

    def test_calls_that_take_a_thread(self):
        async def main():
            async with AsyncCache(self.cache) as cache:
                claim = (await cache.claim("k", lease=10)).claim
                self.assertIsA(InFlight, await cache.wait("k", 0.01))
                renewed = await cache.renew(claim, 1000)
                self.assertGreater(renewed.deadline_ms, claim.deadline_ms)
                waiting = asyncio.create_task(cache.wait("k", 1000))
                await cache.hold(claim, "cannot say")
                self.assertTrue((await waiting).held)
                await cache.resolve("k", claim.claim_sequence, receipt=b"r", reason="looked")
                self.assertEqual((await cache.wait("k", 0)).receipt, b"r")
                self.assertTrue(await cache.forget("k", reason="by hand"))
                self.assertIsA(New, await cache.remember("k", b"s", owner="me"))
                await cache.claim("short", lease=0.01)
                self.assertIsA(InFlight, await cache.wait("short", 1000))  # its lease runs out

        asyncio.run(main())

    def test_options_are_given_in_one_way(self):
        async def main():
            made = claim_options(owner="me")
            async with AsyncCache(self.cache) as cache:
                for ask in (cache.claim("k", made, lease=1),
                            cache.claim_or_wait("k", 1, made, lease=1)):
                    with self.assertRaisesRegex(TypeError, "lease"):
                        await ask
                await cache.claim_or_wait("k", 1, owner="you")
                self.assertEqual((await cache.lookup("k")).owner, "you")

        asyncio.run(main())

    def test_waiting_takes_no_thread(self):
        async def main():
            async with AsyncCache(self.cache) as cache:
                claim = (await cache.claim("k")).claim
                waiting = [asyncio.create_task(cache.claim_or_wait("k", 60)) for _ in range(100)]
                await asyncio.sleep(0.02)
                await cache.complete(claim, b"r")
                for outcome in await asyncio.gather(*waiting):
                    self.assertEqual(self.assertIsA(Completed, outcome).receipt, b"r")
                other = (await cache.claim("l")).claim
                self.assertIsA(InFlight, await cache.claim_or_wait("l", 0.01))
                await cache.release(other)

        asyncio.run(main())

    def test_a_cancelled_claim_is_given_back(self):
        async def main():
            async with AsyncCache(self.cache) as cache:
                tasks = [asyncio.create_task(cache.claim(f"{number}")) for number in range(100)]
                await asyncio.sleep(0)  # they have asked
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(main())
        for number in range(100):
            self.assertIsA(Absent, self.cache.lookup(f"{number}"))

    def test_a_claim_that_is_answered_as_its_task_is_cancelled_is_given_back(self):
        async def main():
            async with AsyncCache(self.cache) as cache:
                task = asyncio.create_task(cache.claim("k"))
                take = cache._take

                def take_and_cancel():
                    take()
                    task.cancel()

                cache._take = take_and_cancel
                with self.assertRaises(asyncio.CancelledError):
                    await task
                cache._take = take

        asyncio.run(main())
        self.assertIsA(Absent, self.cache.lookup("k"))

    def test_a_queue_that_is_forgotten_ends(self):
        async def main():
            cache = AsyncCache(self.cache)
            await cache.claim("k")
            del cache
            gc.collect()
            async with AsyncCache(self.cache) as cache:  # may get the same descriptor
                self.assertIsA(InFlight, await cache.claim("k"))

        asyncio.run(main())


class Ends(StoreTest):
    """What a loop that ends leaves behind."""

    def setUp(self):
        super().setUp()

        @idempotent(self.cache, key=lambda number: f"{number}")
        async def work(number):
            await asyncio.sleep(1000)

        self.work = work
        self.before = self.held_by_process()

    def held_by_process(self):
        gc.collect()
        return [len(os.listdir(f"/proc/self/{kind}")) for kind in ("task", "fd")]

    def assert_nothing_is_left(self):
        self.wait_until(lambda: all(now <= then for now, then
                                    in zip(self.held_by_process(), self.before)))
        for number in range(10):
            self.assertIsA(Absent, self.cache.lookup(f"{number}"))

    async def begin(self):
        self.tasks = [asyncio.create_task(self.work(number)) for number in range(10)]
        await asyncio.sleep(0)  # they have asked

    def test_a_loop_that_cancels_its_tasks_leaves_nothing(self):
        async def main():
            await self.begin()
            self.tasks = None

        for _ in range(3):
            asyncio.run(main())
        self.assert_nothing_is_left()

    def test_a_loop_that_is_closed_among_its_tasks_leaves_nothing(self):
        async def main():
            await self.begin()
            while isinstance(self.cache.lookup("9"), Absent):
                await asyncio.sleep(0.001)  # some of them work

        for begin in (self.begin, main):
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending"
            loop.run_until_complete(begin())
            loop.close()
            self.tasks = loop = None
            self.assert_nothing_is_left()

    def test_a_cache_of_its_own_that_is_forgotten_among_its_tasks_leaves_nothing(self):
        async def main():
            cache = AsyncCache(self.cache)
            for number in range(10):
                asyncio.create_task(cache.claim(f"{number}"))
            await asyncio.sleep(0)

        asyncio.run(main())
        self.assert_nothing_is_left()

    def test_a_cache_that_is_made_for_each_call_has_one_queue(self):
        @idempotent(lambda: self.store.cache("orders"), key=lambda number: f"{number}")
        async def work(number):
            return number

        async def main():
            await work(0)
            await work(1)
            _, descriptors = self.held_by_process()  # a queue has one
            for number in range(100):
                await work(number)
            self.assertEqual(self.held_by_process()[1], descriptors)

        asyncio.run(main())
        self.assertIsA(Absent, self.cache.lookup("99"))
        self.assertIsA(Completed, self.store.cache("orders").lookup("99"))
