#!/usr/bin/env python3
"""What one Python process does with a store, beside sqlite3 and Redis.

    DEDUP_LIBRARY=build/lib/libdedup.so tools/bench/python.py [--keys N] [--group N] [--dir DIR]

Each peer answers the same question: claims of new keys, in groups that one call carries and that are
durable before it returns, and then lookups of them, in groups and one by one. Redis runs with
appendfsync always, SQLite with synchronous=FULL in a write-ahead log. Runs in some seconds; the
disk decides about claims, so each peer is measured three times and the best counts.
"""

import argparse
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lib/python"))

RUNS = 3


class Dedup:
    name = "this store"

    def __init__(self, directory):
        import dedupstore

        self.claimed = dedupstore.Claimed
        self.completed = dedupstore.InFlight
        self.store = dedupstore.Store(directory + "/dedup")
        self.cache = self.store.cache()

    def claim(self, keys):
        return sum(type(outcome) is self.claimed for outcome in self.cache.claim_many(keys))

    def look_up_many(self, keys):
        return sum(type(outcome) is self.completed for outcome in self.cache.lookup_many(keys))

    def look_up(self, key):
        return type(self.cache.lookup(key)) is self.completed

    def close(self):
        self.store.close()


class Sqlite:
    name = "sqlite3"

    def __init__(self, directory):
        self.db = sqlite3.connect(directory + "/sqlite.db", isolation_level=None)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("pragma synchronous=full")
        self.db.execute("create table keys (key blob primary key, state int) without rowid")

    def claim(self, keys):
        before = self.db.total_changes
        self.db.execute("begin immediate")
        self.db.executemany("insert or ignore into keys values (?, 0)", [(key,) for key in keys])
        self.db.execute("commit")
        return self.db.total_changes - before

    def look_up_many(self, keys):
        # As many as one statement may name.
        found = 0
        for first in range(0, len(keys), 1000):
            part = keys[first : first + 1000]
            marks = ",".join("?" * len(part))
            found += len(self.db.execute(
                f"select key, state from keys where key in ({marks})", part).fetchall())
        return found

    def look_up(self, key):
        query = "select state from keys where key = ?"
        return self.db.execute(query, (key,)).fetchone() is not None

    def close(self):
        self.db.close()


class Redis:
    name = "Redis, redis-py"

    def __init__(self, directory):
        import redis

        socket = directory + "/redis.sock"
        self.server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", directory, "--save",
             "", "--appendonly", "yes", "--appendfsync", "always"], stdout=subprocess.DEVNULL)
        while not os.path.exists(socket):
            time.sleep(0.01)
        self.redis = redis.Redis(unix_socket_path=socket)
        self.redis.ping()

    def claim(self, keys):
        pipe = self.redis.pipeline(transaction=False)
        for key in keys:
            pipe.set(key, b"0", nx=True)
        return sum(bool(done) for done in pipe.execute())

    def look_up_many(self, keys):
        return sum(value is not None for value in self.redis.mget(keys))

    def look_up(self, key):
        return self.redis.get(key) is not None

    def close(self):
        self.redis.close()
        self.server.terminate()
        self.server.wait()


def rate(count, work):
    start = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - start
    if done != count:
        raise RuntimeError(f"{done} of {count} were right")
    return count / seconds


def measure(peer, keys, group):
    """Claims, lookups in groups, and lookups one by one, a second."""
    groups = [keys[first : first + group] for first in range(0, len(keys), group)]
    claims = rate(len(keys), lambda: sum(map(peer.claim, groups)))
    random.Random(1).shuffle(keys)
    groups = [keys[first : first + group] for first in range(0, len(keys), group)]
    many = rate(len(keys), lambda: sum(map(peer.look_up_many, groups)))
    some = keys[: max(len(keys) // 5, 1)]
    return claims, many, rate(len(some), lambda: sum(map(peer.look_up, some)))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--group", type=int, default=1_000)
    parser.add_argument("--dir", default=None, help="on the disk that is meant")
    options = parser.parse_args()
    peers = [Dedup, Sqlite]
    try:
        import redis  # noqa: F401

        if shutil.which("redis-server"):
            peers.append(Redis)
    except ImportError:
        pass
    names = random.Random(2)
    keys = [b"order-%016x" % names.getrandbits(64) for _ in range(options.keys)]
    print(f"{options.keys:,} keys, {options.group:,} a group; a second:\n")
    print(f"| {'':16} | durable claims | lookups in groups | lookups one by one |")
    print(f"|{'-' * 18}|{'-' * 16}|{'-' * 19}|{'-' * 20}|")
    for kind in peers:
        best = (0.0, 0.0, 0.0)
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory(dir=options.dir) as directory:
                peer = kind(directory)
                try:
                    now = measure(peer, list(keys), options.group)
                finally:
                    peer.close()
            best = tuple(map(max, best, now))
        print(f"| {kind.name:16} | {best[0]:14,.0f} | {best[1]:17,.0f} | {best[2]:18,.0f} |")


if __name__ == "__main__":
    main()
