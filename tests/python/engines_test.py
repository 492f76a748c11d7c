"""The same calls on every engine: a directory, a server's socket, PostgreSQL."""

import asyncio
import multiprocessing
import os
import subprocess
import tempfile
import unittest

from base import StoreTest, dedupstore
from dedupstore import Claimed, Completed, InFlight, Store, idempotent, per_process

import postgres_server

DEDUPCTL = os.environ.get("DEDUPCTL", "")


def use(test, cache):
    """A little of everything."""
    claim = test.assertIsA(Claimed, cache.claim("k", lease=60, owner="me")).claim
    test.assertEqual(test.assertIsA(InFlight, cache.claim("k")).owner, "me")
    cache.note(claim, "going")
    cache.complete(claim, b"r")
    test.assertEqual(cache.lookup("k").receipt, b"r")
    claims = cache.claim_many([f"m-{number}" for number in range(100)])
    test.assertEqual(cache.complete_many([(each.claim, b"m") for each in claims]), [True] * 100)
    test.assertEqual({each.receipt for each in cache.lookup_many([f"m-{number}"
                                                                  for number in range(100)])},
                     {b"m"})

    @idempotent(cache, key=lambda key: key, wait=60)
    async def work(key):
        return key

    async def main():
        return await asyncio.gather(*(work(f"a-{number % 10}") for number in range(50)))

    test.assertEqual(asyncio.run(main())[11], "a-1")


worker_cache = None


def begin_worker():
    """What a pre-fork server's worker does with a cache that was named before the fork."""
    assert worker_cache is not None


def handle(number):
    runs = []

    @idempotent(worker_cache, key=lambda: f"request-{number % 20}", wait=60)
    def work():
        runs.append(number)
        return number % 20

    return work(), len(runs)


class Directory(StoreTest):
    def test_has_all_calls(self):
        use(self, self.cache)


@unittest.skipUnless(DEDUPCTL, "needs dedupctl, named in DEDUPCTL")
class Server(unittest.TestCase):
    assertIsA = StoreTest.assertIsA

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="dedup-python-")
        self.addCleanup(directory.cleanup)
        self.url = f"unix:{directory.name}/sock"
        server = subprocess.Popen(
            [DEDUPCTL, "-s", directory.name + "/store", "serve", "--unix", self.url[5:]],
            stderr=subprocess.PIPE)
        self.addCleanup(server.stderr.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        while b"listening" not in (line := server.stderr.readline()):
            self.assertNotEqual(line, b"", "the server has ended")

    def test_has_all_calls(self):
        with Store(self.url) as store:
            use(self, store.cache())

    def test_pre_fork_workers_share_it(self):
        global worker_cache
        url = self.url
        worker_cache = per_process(lambda: Store(url).cache("requests"))
        worker_cache()  # the parent has used it, too
        context = multiprocessing.get_context("fork")
        with context.Pool(4, initializer=begin_worker) as pool:
            answers = pool.map(handle, range(200), chunksize=5)
            pool.close()
            pool.join()
        self.assertEqual([value for value, _ in answers], [number % 20 for number in range(200)])
        self.assertEqual(sum(runs for _, runs in answers), 20)
        self.assertIsInstance(worker_cache().lookup("request-7"), Completed)


@unittest.skipIf(not postgres_server.BIN or os.environ.get("DEDUP_WITHOUT_POSTGRES"),
                 "needs PostgreSQL")
class Postgres(unittest.TestCase):
    assertIsA = StoreTest.assertIsA

    def test_has_all_calls(self):
        server = postgres_server.Server()
        self.addCleanup(server.close)
        url = server.url("python")
        try:
            self.assertTrue(dedupstore.init_postgres(url))
        except dedupstore.DedupError as error:
            if "built without" in str(error):
                self.skipTest(str(error))
            raise
        self.assertFalse(dedupstore.init_postgres(url))
        with Store(url) as store:
            use(self, store.cache())
