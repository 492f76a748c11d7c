"""asyncio: many tasks, one queue."""

import asyncio
import gc

from base import StoreTest
from dedupstore import Absent, AsyncCache, Claim, Claimed, Completed, InFlight, StaleClaim


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
