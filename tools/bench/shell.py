#!/usr/bin/env python3
"""How dedupctl does where shells use it, beside what else there is, in one run:

- `filter` beside `awk '!seen[$0]++'`, which forgets with its process: lines a second, a new store
  each time, from one file, from ten, and with keys that have to be found in the line;
- `remember`, one process a key, beside the disk's flushes: a key needs one at least.

    tools/bench/shell.py [--dedupctl PATH] [--lines N] [--rounds N] [--dir DIR]

Each round runs all in turn; a line has the medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time


def timed(command, **options):
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    return time.monotonic() - began


def flushes_a_second(directory, seconds=1.0):
    path = os.path.join(directory, "flushed")
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(file, bytes(1 << 20), 0)
    os.fsync(file)
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < seconds:
        os.pwrite(file, b"x" * 128, (count * 128) % (1 << 20))
        os.fdatasync(file)
        count += 1
    os.close(file)
    return count / (time.monotonic() - began)


def write_inputs(directory, lines):
    """A tenth of the lines repeats an earlier one. Gives the names of the whole and of its parts."""
    whole = os.path.join(directory, "whole")
    parts = [os.path.join(directory, f"part-{i}") for i in range(10)]
    files = [open(part, "w", encoding="ascii") for part in parts]  # pylint: disable=R1732
    with open(whole, "w", encoding="ascii") as all_of_it:
        for i in range(lines):
            number = i if i % 10 else i // 2
            line = f'{{"id":"event-{number:010}","at":{number}}}\n'
            all_of_it.write(line)
            files[i * 10 // lines].write(line)
    for file in files:
        file.close()
    return whole, parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--dedupctl", default="build-release/tools/dedupctl/dedupctl")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100, help="processes, one a key")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=".", help="on the disk to measure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dedup-shell-", dir=args.dir) as directory:
        whole, parts = write_inputs(directory, args.lines)
        store = os.path.join(directory, "store")

        def filtered(*arguments):
            shutil.rmtree(store, ignore_errors=True)
            return timed([args.dedupctl, "-q", "-s", store, *arguments])

        works = {
            "filter, one file": lambda: filtered("filter", whole),
            "filter, ten files": lambda: filtered("filter", *parts),
            "filter --json /id": lambda: filtered("filter", "--json", "/id", whole),
            "filter --regex": lambda: filtered("filter", "--regex", "event-[0-9]+", whole),
            "filter --field 2": lambda: filtered("filter", "--delimiter", ":", "--field", "2", whole),
        }
        rates = {name: [] for name in ("awk", *works, "the disk's flushes", "remember")}
        for _ in range(args.rounds):
            rates["awk"].append(args.lines / timed(["awk", "!seen[$0]++", whole]))
            for name, work in works.items():
                rates[name].append(args.lines / work())
            rates["the disk's flushes"].append(flushes_a_second(directory))
            shutil.rmtree(store, ignore_errors=True)
            subprocess.run([args.dedupctl, "-q", "-s", store, "init"], check=True,
                           stdout=subprocess.DEVNULL)
            began = time.monotonic()
            for key in range(args.keys):
                timed([args.dedupctl, "-q", "-s", store, "remember", str(key)])
            rates["remember"].append(args.keys / (time.monotonic() - began))
        for name, found in rates.items():
            base = "the disk's flushes" if name == "remember" else "awk"
            ratio = statistics.median(a / b for a, b in zip(found, rates[base]))
            beside = f"{ratio:6.2f} of {base}" if name.startswith(("filter", "remember")) else ""
            print(f"{name:20} {statistics.median(found):12,.0f} a second  {beside}")


if __name__ == "__main__":
    main()
