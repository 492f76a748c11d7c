"""Copies: what a process pool sends from one process to another."""

import concurrent.futures
import dataclasses
import multiprocessing
import pickle

from base import StoreTest, dedupstore
from dedupstore import NotRun, StillInFlight, Store


def call_again(path):
    with Store(path, read_only=True) as store:
        outcome = store.cache().lookup("k")
    raise StillInFlight(b"k", outcome, "is in flight")


class Copies(StoreTest):
    def sample(self, kind):
        """One of each field's type; what a field is told to be does not matter to pickle."""
        return kind(*range(1, 1 + len(dataclasses.fields(kind))))

    def test_outcomes_and_reports_are_equal_to_their_copies(self):
        kinds = [kind for kind in vars(dedupstore).values() if dataclasses.is_dataclass(kind)]
        self.assertGreater(len(kinds), 12)
        for kind in kinds:
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
                made = self.sample(kind)
                self.assertEqual(pickle.loads(pickle.dumps(made, protocol)), made)

    def test_errors_say_the_same_as_their_copies(self):
        kinds = [kind for kind in vars(dedupstore).values()
                 if isinstance(kind, type) and issubclass(kind, Exception)]
        self.assertGreater(len(kinds), 14)
        for kind in kinds:
            made = (kind(b"k", self.sample(dedupstore.InFlight), "is in flight")
                    if issubclass(kind, NotRun) else kind(5, "message", 2, 7))
            copy = pickle.loads(pickle.dumps(made))
            self.assertEqual((type(copy), str(copy), vars(copy)), (kind, str(made), vars(made)))

    def test_a_pool_hands_them_on(self):
        self.cache.claim("k", owner="first")
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            for _ in range(2):
                with self.assertRaisesRegex(StillInFlight, "b'k' is in flight") as raised:
                    pool.submit(call_again, self.path).result(60)
                self.assertEqual(raised.exception.outcome.owner, "first")
