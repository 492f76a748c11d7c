#!/usr/bin/env python3
"""Claims a second through `dedupctl serve` and through Redis, in turns, on one disk.

    tools/bench/serve.py DEDUPCTL [--rounds N] [--seconds S] [--directory DIR]

Needs redis-server and redis-benchmark. Both servers listen on a Unix socket and answer when what
was asked is on disk (Redis: appendfsync always). redis-benchmark sends `SET key value NX EX 86400`,
which either takes for a claim, with new keys: from 64 connections with one under way each, from 16
with pipelines of 64, and from one connection one at a time. Medians of the rounds, and how many
times Redis' that is in the same round; 4 processes that open, claim and close are the last line.
"""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time

SHAPES = {"64 connections, one under way": ["-c", "64", "-P", "1"],
          "16 connections, pipelines of 64": ["-c", "16", "-P", "64"],
          "one connection, one at a time": ["-c", "1", "-P", "1"]}


def start(command, socket_path):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists(socket_path):
        if process.poll() is not None:
            raise SystemExit(f"{command[0]} ended with {process.returncode}")
        time.sleep(0.01)
    return process


def rate(socket_path, shape, count, command):
    done = subprocess.run(["redis-benchmark", "-s", socket_path, *shape, "-n", str(count), "-r",
                           "2000000000", *command], check=True, capture_output=True, text=True)
    return float(re.search(r"throughput summary: ([0-9.]+)", done.stdout).group(1))


def timed(socket_path, shape, seconds, command):
    """A rate over about so many seconds: a short run says how many requests these are."""
    count = int(shape[1]) * int(shape[3]) * 20
    return rate(socket_path, shape, max(count, int(rate(socket_path, shape, count, command) *
                                                   seconds)), command)


def open_claim_close(dedupctl, store, processes, seconds):
    """What several processes get without a server."""
    until = time.monotonic() + seconds
    workers = [subprocess.Popen(
        ["sh", "-c", 'n=0; while [ -e "$0" ]; do "$1" -s "$2" claim "$3-$n" >/dev/null && '
         'n=$((n+1)); done; echo $n', store + ".go", dedupctl, store, str(worker)],
        stdout=subprocess.PIPE) for worker in range(processes)]
    time.sleep(max(0.0, until - time.monotonic()))
    os.unlink(store + ".go")
    return sum(int(worker.communicate()[0]) for worker in workers) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dedupctl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--directory", default=".")
    options = parser.parse_args()
    dedupctl = os.path.abspath(options.dedupctl)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        directory = os.path.abspath(directory)  # redis-server changes into it
        store, redis = os.path.join(directory, "store"), os.path.join(directory, "redis.sock")
        servers = [start([dedupctl, "-s", store, "serve"], store + ".sock"),
                   start(["redis-server", "--port", "0", "--unixsocket", redis, "--dir", directory,
                          "--save", "", "--appendonly", "yes", "--appendfsync", "always"], redis)]
        claim = ["set", "key:__rand_int__", "value", "nx", "ex", "86400"]
        lookup = ["get", "key:__rand_int__"]
        try:
            for name, shape, command in (
                    *((name, shape, claim) for name, shape in SHAPES.items()),
                    ("lookups, 16 connections, pipelines of 64",
                     SHAPES["16 connections, pipelines of 64"], lookup)):
                rounds = [(timed(store + ".sock", shape, options.seconds, command),
                           timed(redis, shape, options.seconds, command))
                          for _ in range(options.rounds)]
                ours, theirs = (statistics.median(column) for column in zip(*rounds))
                times = statistics.median(our / their for our, their in rounds)
                print(f"{name}: {ours:,.0f}/s; Redis {theirs:,.0f}/s; {times:.2f} times",
                      flush=True)
        finally:
            for server in servers:
                server.terminate()
                server.wait()
        with open(store + ".go", "wb"):
            pass
        print(f"4 processes that open, claim and close: "
              f"{open_claim_close(dedupctl, store, 4, options.seconds):,.0f}/s")


if __name__ == "__main__":
    main()
