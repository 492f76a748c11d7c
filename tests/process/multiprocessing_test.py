"""A store that is embedded in a Python program which uses multiprocessing with `fork`.

Its children inherit the store. Invariant: each call that they make on it gives an error that says
whose it is and to open it again; however they end, the parent goes on, and nothing is lost.
"""

import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import unittest

LIBRARY = ctypes.CDLL(os.environ["EMBEDDED"])
LIBRARY.embedded_open.restype = ctypes.c_void_p
LIBRARY.embedded_open.argtypes = [
    ctypes.c_char_p, ctypes.c_bool, ctypes.c_char_p, ctypes.c_size_t]
LIBRARY.embedded_call.argtypes = [
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
LIBRARY.embedded_destroy.argtypes = [ctypes.c_void_p]

CALLS = ("claim", "remember", "lookup", "process", "sweep", "stats", "flush", "close")
HANG_SECONDS = 120


class Store:
    def __init__(self, path, read_only=False):
        text = ctypes.create_string_buffer(1024)
        self.handle = LIBRARY.embedded_open(os.fsencode(path), read_only, text, len(text))
        if not self.handle:
            raise OSError(text.value.decode())

    def call(self, what, key=""):
        """What is wrong; empty if nothing is."""
        text = ctypes.create_string_buffer(1024)
        LIBRARY.embedded_call(self.handle, what.encode(), key.encode(), text, len(text))
        return text.value.decode()

    def destroy(self):
        LIBRARY.embedded_destroy(self.handle)


shared = None  # the store that children inherit


def all_calls(_):
    return [shared.call(what, f"of-{os.getpid()}") for what in CALLS]


def open_and_remember(path, key):
    try:
        store = Store(path)
    except OSError as error:
        return str(error)
    text = store.call("remember", key) or store.call("close")
    store.destroy()
    return text


def wait_for_ever(started):
    started.set()
    signal.pause()


def end_by_exception():
    sys.stderr = open(os.devnull, "w")  # the traceback is of no interest
    raise RuntimeError


def destroy_and_return():
    shared.destroy()


def return_at_once():
    pass


WAYS_TO_END = (return_at_once, sys.exit, end_by_exception, destroy_and_return)


class Multiprocessing(unittest.TestCase):
    def setUp(self):
        signal.alarm(HANG_SECONDS)
        self.context = multiprocessing.get_context("fork")
        self.dir = tempfile.mkdtemp(prefix="dedup-processes-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.path = os.path.join(self.dir, "store")
        self.open()

    def tearDown(self):
        self.assert_nothing_is_lost()
        shared.destroy()
        signal.alarm(0)

    def open(self):
        global shared
        shared = Store(self.path)
        self.keys = getattr(self, "keys", [])

    def remember(self, key):
        self.assertEqual(shared.call("remember", key), "")
        self.keys.append(key)

    def assert_nothing_is_lost(self):
        self.remember("last")
        self.assertEqual(shared.call("close"), "")
        shared.destroy()
        self.open()
        self.assertEqual([key for key in self.keys if shared.call("lookup", key)], [])

    def assert_refused(self, texts):
        self.assertEqual(len(texts), len(CALLS))
        for what, text in zip(CALLS, texts):
            for part in ("closed: ", f"process {os.getpid()}", "open it again"):
                self.assertIn(part, text, what)

    def test_workers_of_a_pool_are_told(self):
        self.remember("before")
        with self.context.Pool(3) as pool:
            results = pool.map_async(all_calls, range(9))
            self.remember("meanwhile")
            for texts in results.get():
                self.assert_refused(texts)
            self.remember("beside the pool")
        # (Leaving a pool ends its workers with a signal.)

    def test_workers_that_are_forked_beside_threads_at_work(self):
        stop = threading.Event()
        remembered = [[], [], []]

        def work(keys, name):
            while not stop.is_set():
                key = f"{name}-{len(keys)}"
                if shared.call("remember", key) == "":
                    keys.append(key)

        threads = [threading.Thread(target=work, args=(keys, number))
                   for number, keys in enumerate(remembered)]
        for thread in threads:
            thread.start()
        with self.context.Pool(2, maxtasksperchild=1) as pool:  # each task in a new child
            for texts in pool.map(all_calls, range(20), chunksize=1):
                self.assert_refused(texts)
            pool.close()
            pool.join()
        stop.set()
        for thread in threads:
            thread.join()
        for keys in remembered:
            self.assertNotEqual(keys, [])
            self.keys += keys

    def test_however_a_process_ends_the_parent_goes_on(self):
        for way in WAYS_TO_END:
            child = self.context.Process(target=way)
            child.start()
            self.remember(f"beside {way.__name__}")
            child.join()
            self.assertEqual(child.exitcode, 1 if way is end_by_exception else 0)
            self.remember(f"after {way.__name__}")
        for end in ("terminate", "kill"):
            started = self.context.Event()
            child = self.context.Process(target=wait_for_ever, args=(started,))
            child.start()
            started.wait()
            getattr(child, end)()
            child.join()
            self.remember(f"after {end}")

    def test_a_child_opens_the_store_when_its_parent_has_closed_it(self):
        with self.context.Pool(1) as pool:
            text = pool.apply(open_and_remember, (self.path, "refused"))
            self.assertIn("busy: ", text)
            self.assertIn(f"process {os.getpid()}", text)
            self.assertEqual(shared.call("close"), "")
            self.assertEqual(pool.apply(open_and_remember, (self.path, "of a child")), "")
            self.keys.append("of a child")
        shared.destroy()
        self.open()


if __name__ == "__main__":
    unittest.main()
