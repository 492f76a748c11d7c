"""Processes: forks get an exception, and what a killed one leaves is found."""

import multiprocessing
import os
import signal
import subprocess
import time

from base import StoreTest, run_python
from dedupstore import (
    Claimed, Closed, Completed, End, Held, InFlight, Store, Unanswered, idempotent,
)

CLAIMS_AND_HANGS = """
import sys, time
from dedupstore import *
store = Store(sys.argv[1])
cache = store.cache(unanswered=Unanswered(int(sys.argv[2])))
claim = cache.claim("job", lease=0.2, owner="child").claim
cache.note(claim, "paying")
print("claimed", flush=True)
time.sleep(1000)
"""


def in_child(cache, results):
    try:
        cache.claim("forked")
        results.put("claimed")
    except Closed as error:
        results.put(str(error))


def claim_from(path, results):
    from dedupstore import Store

    won = 0
    for number in range(20):
        with Store(path, lock_timeout=60) as store:
            won += isinstance(store.cache().claim(f"{number}"), Claimed)
    results.put(won)


# Ends while threads are within the library.
ENDS_AMONG_THREADS = """
import sys, threading, time
from dedupstore import *
store = Store(sys.argv[1])
cache = store.cache()
held = cache.claim("held")

def waits():
    while True:
        cache.wait("held", 0.01)

def claims(number):
    i = 0
    while True:
        cache.claim(f"{number}-{i}")
        i += 1

for target, args in [(waits, ())] * 4 + [(claims, (n,)) for n in range(4)]:
    threading.Thread(target=target, args=args, daemon=True).start()
time.sleep(0.2)
"""


WAITS_FOR_EVER = """
import signal, sys
from dedupstore import *
cache = Store(None).cache()
cache.claim("k")

@idempotent(cache, key=lambda: "k", wait=3600)
def work():
    pass

print("waits", flush=True)
try:
    work() if sys.argv[1] == "idempotent" else cache.wait("k", 3600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


class Processes(StoreTest):
    def test_a_wait_hears_ctrl_c(self):
        for how in ("idempotent", "wait"):
            with run_python(WAITS_FOR_EVER, how) as process:
                try:
                    self.assertEqual(process.stdout.readline(), "waits\n")
                    time.sleep(0.2)  # now it is most likely within the library
                    process.send_signal(signal.SIGINT)
                    self.assertEqual(process.communicate(timeout=30)[0], "interrupted\n")
                finally:
                    process.kill()  # if it does not hear

    def test_a_fork_from_beside_a_thread_gets_an_exception(self):
        # Guards against a child that waits for a lock that a thread of its parent had.
        work = idempotent(self.cache, key=lambda: "forked")(lambda: 1)
        with self.cache._lock:
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # ends it, if it hangs
                status = 1
                try:
                    work()
                except Closed:
                    status = 0
                finally:
                    os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_the_interpreter_ends_among_daemon_threads(self):
        for number in range(5):
            path = f"{self.path}-{number}"
            # What is still at it hears `closed`.
            with run_python(ENDS_AMONG_THREADS, path, stderr=subprocess.DEVNULL) as process:
                self.assertEqual(process.wait(60), 0)
            with Store(path) as store:
                self.assertIsA(InFlight, store.cache().lookup("held"))

    def test_a_fork_gets_an_exception(self):
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=in_child, args=(self.cache, results))
        child.start()
        said = results.get(timeout=60)
        child.join()
        self.assertIn("fork", said)
        self.assertEqual(child.exitcode, 0)
        self.assertIsInstance(self.cache.claim("forked"), Claimed)

    def test_a_forked_child_ends_in_good_order(self):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.store.close()
            except Closed:
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.cache.claim("still here")

    def test_processes_take_turns(self):
        self.store.close()
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        children = [context.Process(target=claim_from, args=(self.path, results))
                    for _ in range(2)]
        for child in children:
            child.start()
        self.assertEqual(sum(results.get(timeout=60) for _ in children), 20)
        for child in children:
            child.join()

    def kill_between_claim_and_completion(self, unanswered):
        self.store.close()
        child = run_python(CLAIMS_AND_HANGS, self.path, str(int(unanswered)))
        self.assertEqual(child.stdout.readline(), "claimed\n")
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        from dedupstore import Store

        store = Store(self.path)
        self.addCleanup(store.close)
        cache = store.cache()
        # Until the lease has run out.
        self.wait_until(lambda: not cache.claim("job").__class__.__name__ == "InFlight")
        return cache

    def test_a_killed_one_is_taken_over_with_what_it_noted(self):
        cache = self.kill_between_claim_and_completion(Unanswered.RERUN)
        last = cache.lookup("job")
        self.assertEqual(last.attempt, 2)
        cache.release_current("job")
        claimed = self.assertIsA(Claimed, cache.claim("job"))
        self.assertEqual(claimed.claim.attempt, 3)

    def test_under_hold_it_waits_for_a_decision(self):
        cache = self.kill_between_claim_and_completion(Unanswered.HOLD)
        held = self.assertIsA(Held, cache.claim("job"))
        self.assertEqual((held.previous.note, held.previous.owner, held.previous.end),
                         (b"paying", "child", End.LEASE_RAN_OUT))
        cache.resolve("job", held.previous.claim_sequence, receipt=b"paid", reason="looked")
        self.assertEqual(self.assertIsA(Completed, cache.claim("job")).receipt, b"paid")
