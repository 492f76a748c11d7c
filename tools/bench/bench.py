#!/usr/bin/env python3
"""Measures this store beside others; tools/bench/run builds what this needs, and calls it."""

import argparse
import datetime
import glob
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time

import workloads
from peers import memory_total

PACKAGES = {"lmdb": "liblmdb0", "rocksdb": "librocksdb7.8", "sqlite": "libsqlite3-0",
            "postgres": "postgresql-15", "redis": "redis-server"}
M = 1_000_000


def arguments():
    parser = argparse.ArgumentParser(
        description="Measures this store beside LMDB, RocksDB, SQLite, PostgreSQL and Redis.")
    parser.add_argument("--quick", action="store_true", help="small numbers: some minutes")
    parser.add_argument("--only", metavar="W1,W4", help="these workloads; the others' results stay")
    parser.add_argument("--keys", type=int, help="loaded keys in W1 to W4 and W8")
    parser.add_argument("--ms", type=int, help="how long each row runs, in each round")
    parser.add_argument("--rounds", type=int, help="how often each row runs; at least 3 to compare")
    parser.add_argument("--sizes", metavar="N,N", help="numbers of keys in W5")
    parser.add_argument("--open-sizes", metavar="N,N", help="numbers of keys in W7")
    parser.add_argument("--expired", type=int, help="keys to sweep in W6")
    parser.add_argument("--peer-keys", type=int, help="W5 and W7 take peers no further than this")
    parser.add_argument("--load-seconds", type=int, help="a peer has so long for each load")
    parser.add_argument("--dir", default=".", help="on the disk to measure; data go below it")
    parser.add_argument("--worker", required=True, help="the bench_worker to use")
    parser.add_argument("--before", metavar="WORKER",
                        help="compare with another revision's bench_worker, and with nothing else")
    parser.add_argument("--json", required=True, help="results; merged into what is there")
    return parser.parse_args()


class Settings:
    """What the workloads need to know."""

    def __init__(self, args, scratch):
        quick = args.quick

        def number(given, full, small):
            return given if given is not None else small if quick else full

        def numbers(given, full, small):
            if given is None:
                return small if quick else full
            return [int(word) for word in given.split(",")]

        self.worker = os.path.abspath(args.worker)
        self.before = args.before and os.path.abspath(args.before)
        self.scratch = scratch
        self.keys = number(args.keys, 3 * M, 100_000)
        self.ms = number(args.ms, 1200, 120)
        self.rounds = number(args.rounds, 3, 3)
        self.sizes = numbers(args.sizes, [M, 10 * M, 30 * M, 100 * M], [50_000, 200_000])
        self.open_sizes = numbers(args.open_sizes, [M, 30 * M], [50_000, 200_000])
        self.expired = number(args.expired, 10 * M, 200_000)
        self.live = self.expired // 10
        self.steady = numbers(None, [100_000, 600_000], [20_000])
        self.peer_keys = number(args.peer_keys, 10 * M, 200_000)
        self.load_seconds = number(args.load_seconds, 150, 60)
        # The limit's records are in memory.
        self.keys_most = {"limit": 3 * M, "control": min(self.sizes)}
        self.started = time.monotonic()

    def among(self, names):
        """Those of these peers that run."""
        return ("dedup", "before") if self.before else names

    def worker_of(self, name):
        return self.before if name == "before" else self.worker

    def say(self, text):
        seconds = int(time.monotonic() - self.started)
        print(f"{seconds // 60:3}:{seconds % 60:02} {text}", flush=True)


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.split("\n")[0].strip()


def runs_damon():
    """Whether the kernel watches which memory is used, for which it may have been given a rule."""
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                if file.read().startswith("kdamond"):
                    return True
        except OSError:
            pass
    return False


def machine(directory):
    """What stands beside every figure."""
    model = ""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_total(),
        "kernel": platform.release(),
        "file_system": first_line(["findmnt", "-no", "FSTYPE,OPTIONS", "--target", directory]),
        "damon": runs_damon(),
        "load_average_at_start": os.getloadavg()[0],
    }


def versions():
    found = {name: first_line(["dpkg-query", "-Wf", "${Version}", package])
             for name, package in PACKAGES.items()}
    source = os.path.dirname(os.path.abspath(__file__))
    found["dedup"] = first_line(["git", "-C", source, "describe", "--always", "--dirty"])
    found["compiler"] = first_line(["c++", "--version"])
    return found


def read_results(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {"workloads": {}}


def rounded(value):
    """Four figures are more than any of this is worth, and keep the file small."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return value


def write_results(path, results):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(path + ".new", path)


def interrupted(number, _):
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    args = arguments()
    names = args.only.split(",") if args.only else list(workloads.NAMES)
    unknown = set(names) - set(workloads.NAMES)
    if unknown:
        sys.exit(f"bench: no such workload: {', '.join(sorted(unknown))}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    failed = []
    try:
        with tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=args.dir) as scratch:
            os.chmod(scratch, 0o711)  # PostgreSQL may have to run as another user
            settings = Settings(args, scratch)
            context = {"machine": machine(args.dir), "versions": versions(), "quick": args.quick,
                       "rounds": settings.rounds, "ms": settings.ms}

            def keep(name, result):
                results = read_results(args.json)
                date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
                results["workloads"][name] = {**rounded({**context, **result}), "date": date}
                write_results(args.json, results)
                failed.extend(f"{name}: {peer}: {why}" for peer, why in result["failed"].items())

            workloads.run(names, settings, keep)
            settings.say("done")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; servers are stopped and their data removed")
    for line in failed:
        print(f"left out: {line}")


if __name__ == "__main__":
    main()
