"""The workloads. Each takes the settings and gives what goes into the JSON file.

In W1 to W5 the peers take turns at short pieces of the same work, in an order that changes from
turn to turn: a disk whose speed drifts bends all of them alike.
"""

import json
import os
import shutil
import subprocess
import time

from peers import USED, Fleet

ALL = ("limit", "dedup", "lmdb", "rocksdb", "sqlite", "postgres", "redis")
STORES = ALL[1:]
OURS = ("dedup", "before", "control")
GROUPS = (1, 16, 64, 256, 1024)
TURNS = 4  # of each peer, in a row and a round
THREADS = (8, 64, 256)
# Which keys are looked up, as the worker numbers it, and how many by one call.
LOOKUPS = {"uniform": (0, 1), "Zipf": (1, 1), "recent": (2, 1), "uniform, 64 a call": (0, 64)}
RECEIPT_BYTES = 64
HOUR_MS = 3600 * 1000
YEARS_MS = 10 * 365 * 24 * HOUR_MS


class Rows:
    """Results by peer and variant, a list of rounds each."""

    def __init__(self, say):
        self.rows = {}
        self.say = say

    def add(self, peer, variant, answer):
        key = (peer.name, tuple(sorted(variant.items())))
        row = self.rows.setdefault(key, {"peer": peer.name, **variant, "rounds": []})
        row["rounds"].append(figures(answer))
        where = " ".join(f"{name} {value}" for name, value in variant.items())
        self.say(f"  {peer.name:9} {where:28} {row['rounds'][-1]['per_second']:12,.0f} /s")

    def result(self, fleet=None, **settings):
        return {"settings": settings, "rows": list(self.rows.values()),
                "failed": fleet.failed if fleet else {}}


def figures(answer):
    """A worker's answer as it is kept: rates, and costs for each operation."""
    operations = max(answer["operations"], 1)
    kept = {"per_second": operations / max(answer["seconds"], 1e-9)}
    for name in ("operations", "seconds", "p50_us", "p99_us", "max_us"):
        kept[name] = answer[name]
    if "cpu_seconds" in answer:
        kept["cpu_seconds_per_million"] = answer["cpu_seconds"] / operations * 1e6
        kept["written_bytes_per_operation"] = answer["written_bytes"] / operations
        kept["device_bytes_per_operation"] = answer["device_bytes"] / operations
    return kept


def in_turns(fleet, command, parameters, names):
    """What each peer answers for all its turns together."""
    answers = {}
    parameters = {**parameters, "ms": max(1, parameters["ms"] // TURNS)}

    def turn(peer):
        if peer.name in (*names, "before"):
            done = answers.get(peer)
            answers[peer] = peer.measure(command, more=done is not None, **parameters)
            for what in USED if done else ():
                answers[peer][what] += done[what]

    for _ in range(TURNS):
        if command == "lookups":
            # In memory, from which some may have gone while others were at work.
            for peer in fleet.peers:
                peer.read_files()
        fleet.each(turn)
    return {peer: answer for peer, answer in answers.items() if peer in fleet.peers}


def rounds(fleet, settings, steps, prepare=lambda: None):
    """Each step, a (command, parameters, variant, peers) that add() gets, for all peers in turns."""
    rows = Rows(settings.say)
    for number in range(settings.rounds):
        settings.say(f" round {number + 1} of {settings.rounds}")
        prepare()
        for command, parameters, variant, names in steps:
            for peer, answer in in_turns(fleet, command, parameters, names).items():
                rows.add(peer, variant, answer)
    return rows


def load(fleet, settings, keys, ttl_ms=YEARS_MS, receipt=RECEIPT_BYTES, index=False):
    """Brings every peer to `keys` loaded keys; who runs out of time is dropped."""

    def seconds_for(peer):
        return settings.load_seconds * (10 if peer.name in OURS else 1)

    def work(peer):
        until = min(keys, settings.keys_most.get(peer.name, keys))
        if peer.loaded >= until:
            return
        if peer.worker is None:
            peer.start()
        if index:
            peer.command("index_expiry")
        began = time.monotonic()
        peer.command("load", until=until, budget_ms=seconds_for(peer) * 1000, receipt=receipt,
                     ttl_ms=ttl_ms)
        settings.say(f"  {peer.name:9} {peer.loaded:,} keys, {time.monotonic() - began:.1f} s")
        if peer.loaded < until:
            slow[peer] = f"did not load {until:,} keys in {seconds_for(peer)} s"

    slow = {}
    settings.say(f" loading {keys:,} keys")
    fleet.each(work)
    for peer, why in slow.items():
        fleet.drop(peer, why)
    os.sync()  # what loading has left to be written is not measured


def lookup(drawn="uniform", threads=1, ms=0):
    """The parameters of lookups."""
    draw, together = LOOKUPS[drawn]
    return {"threads": threads, "draw": draw, "together": together, "ms": ms}


def warm_up(fleet):
    def work(peer):
        peer.command("claims", group=64, ms=100)
        peer.command("claims", group=1, ms=50)
        peer.command("lookups", **lookup(ms=100))
    fleet.each(work)


def new_claims(fleet, settings):
    """W1: durable claims of new keys, a number of them at a time."""
    steps = [("claims", {"group": group, "ms": settings.ms}, {"group": group}, ALL)
             for group in GROUPS]
    return rounds(fleet, settings, steps).result(fleet, keys=settings.keys)


def claims_by_threads(fleet, settings):
    """W2: the same by threads that claim one key each and wait."""
    steps = [("claims_by_threads", {"threads": threads, "ms": settings.ms}, {"threads": threads},
              STORES) for threads in THREADS]
    return rounds(fleet, settings, steps).result(fleet, keys=settings.keys)


def cycles(fleet, settings):
    """W3: claims, a tenth of them duplicates, and completions with a receipt."""
    steps = [("cycles", {"group": 64, "ms": settings.ms}, {"group": 64}, ALL)]
    return rounds(fleet, settings, steps).result(fleet, keys=settings.keys)


def lookups(fleet, settings):
    """W4: receipts of completed keys."""
    steps = [("lookups", lookup(drawn, threads, settings.ms),
              {"threads": threads, "keys_drawn": drawn}, ALL)
             for drawn in LOOKUPS for threads in (1, 2)]
    return rounds(fleet, settings, steps).result(fleet, keys=settings.keys)


def growth(settings):
    """W5: the same claims and lookups as the number of keys grows."""
    rows = Rows(settings.say)
    failed = {}
    names = (*ALL, "control") if len(settings.sizes) > 1 else ALL
    with Fleet(names, settings) as fleet:
        for size in settings.sizes:
            if size > settings.peer_keys:
                for peer in [peer for peer in fleet.peers if peer.name not in ("limit", *OURS)]:
                    fleet.drop(peer, f"not taken beyond {settings.peer_keys:,} keys")

            def prepare(size=size):
                # What it has claimed would make it grow, too.
                fleet.renew("control")
                load(fleet, settings, size)
                warm_up(fleet)

            steps = [("claims", {"group": group, "ms": settings.ms},
                      {"keys": size, "work": f"claims, {group} a group"}, names)
                     for group in (64, 1024)]
            steps.append(("lookups", lookup(ms=settings.ms),
                          {"keys": size, "work": "lookups"}, names))
            rows.rows.update(rounds(fleet, settings, steps, prepare).rows)
        failed = fleet.failed
    return {**rows.result(sizes=settings.sizes), "failed": failed}


def sweeps(settings):
    """W6: removing what has expired, and what that does to claims meanwhile."""
    rows = Rows(settings.say)
    expired = settings.expired
    with Fleet(("dedup", "postgres"), settings) as fleet:
        load(fleet, settings, settings.live, index=True)
        for number in range(settings.rounds):
            settings.say(f" round {number + 1} of {settings.rounds}")
            # PostgreSQL takes minutes for one.
            names = ("dedup", "postgres") if number == 0 else ("dedup",)

            def sweep(peer, names=names):
                if peer.name not in (*names, "before"):
                    return
                load_more(peer, expired, settings)
                swept = peer.measure("sweep", ahead_ms=2 * HOUR_MS)
                expect_removed(peer, swept, expired)
                rows.add(peer, {"work": "sweep"}, swept)
                if peer.name == "postgres":
                    began = time.monotonic()
                    peer.command("tidy")
                    seconds = time.monotonic() - began
                    rows.add(peer, {"work": "vacuum"},
                             {"operations": expired, "seconds": seconds, "p50_us": 0, "p99_us": 0,
                              "max_us": 0})
            fleet.each(sweep)

            def beside(peer):
                if peer.name not in OURS:
                    return
                load_more(peer, expired, settings)
                claims = {"group": 64, "ms": settings.ms}
                rows.add(peer, {"work": "claims before"}, peer.measure("claims", **claims))
                both = peer.measure("claims_beside_sweep", group=64, ahead_ms=2 * HOUR_MS)
                expect_removed(peer, both["sweep"], expired)
                rows.add(peer, {"work": "claims beside a sweep"}, both)
                rows.add(peer, {"work": "sweep beside claims"}, both["sweep"])
                rows.add(peer, {"work": "claims after"}, peer.measure("claims", **claims))
            fleet.each(beside)
        return rows.result(fleet, live=settings.live, expired=expired)


def load_more(peer, keys, settings):
    """What will have expired in two hours, on top of what is there."""
    until = peer.loaded + keys
    peer.command("load", until=until, budget_ms=10 * settings.load_seconds * 1000,
                 receipt=RECEIPT_BYTES, ttl_ms=HOUR_MS)
    peer.command("claims", group=64, ms=100)


def expect_removed(peer, swept, expired):
    if swept["operations"] != expired:
        raise AssertionError(f"{peer.name} removed {swept['operations']:,} keys, not {expired:,}")


def openings(settings):
    """W7: from the start of the processes until a loaded key has been found, after kill -9."""
    rows = Rows(settings.say)
    failed = {}
    for size in settings.open_sizes:
        names = STORES if size <= settings.peer_keys else ("dedup",)
        with Fleet(names, settings) as fleet:
            load(fleet, settings, size)
            for number in range(settings.rounds):
                def reopen(peer, size=size):
                    # So that something lies behind the last flush of tables and pages.
                    peer.command("claims", group=64, ms=settings.ms)
                    peer.kill()
                    seconds = peer.start()
                    rows.add(peer, {"keys": size},
                             {"operations": 1, "seconds": seconds, "p50_us": 0, "p99_us": 0,
                              "max_us": 0})
                settings.say(f" round {number + 1} of {settings.rounds}")
                fleet.each(reopen)
            failed.update(fleet.failed)
    return {**rows.result(sizes=settings.open_sizes), "failed": failed}


def sizes(settings):
    """W8: bytes on disk and of memory, a key."""
    rows = []

    def measured(peer, what, empty):
        used = peer.usage()
        row = {"peer": peer.name, "what": what, "keys": peer.loaded,
               "disk_bytes_per_key": (peer.disk_bytes() - empty["disk"]) / peer.loaded,
               "own_memory_bytes_per_key":
                   max(0, used["own_memory_bytes"] - empty["own"]) / peer.loaded,
               "mapped_memory_bytes_per_key":
                   max(0, used["mapped_memory_bytes"] - empty["mapped"]) / peer.loaded}
        rows.append(row)
        settings.say(f"  {peer.name:9} {what:34} disk {row['disk_bytes_per_key']:7.1f}"
                     f"  own memory {row['own_memory_bytes_per_key']:7.2f}"
                     f"  mapped {row['mapped_memory_bytes_per_key']:7.1f}")

    def started(peer):
        peer.start()
        used = peer.usage()
        return {"disk": peer.disk_bytes(), "own": used["own_memory_bytes"],
                "mapped": used["mapped_memory_bytes"]}

    def reopen(peer):
        peer.stop()
        peer.start()

    def loaded(peer):
        empty = started(peer)
        peer.command("load", until=settings.keys, budget_ms=settings.load_seconds * 1000,
                     receipt=RECEIPT_BYTES, ttl_ms=YEARS_MS)
        reopen(peer)
        peer.command("lookups", **lookup(ms=settings.ms))
        measured(peer, "completed, 64-byte receipt", empty)
        peer.stop()

    def claimed(peer):
        empty = started(peer)
        peer.command("load_claimed", until=settings.keys)
        measured(peer, "claimed and completed, no receipt", empty)
        # Nothing has expired: what this gives back is what the completions superseded.
        peer.command("tidy")
        reopen(peer)
        measured(peer, "the same, compacted", empty)
        peer.stop()

    with Fleet(STORES, settings) as fleet:
        fleet.each(loaded)
        failed = fleet.failed
    with Fleet(("dedup",), settings) as fleet:
        fleet.each(claimed)
        failed.update(fleet.failed)
    return {"settings": {"keys": settings.keys}, "rows": rows, "failed": failed}


def lines_of(settings, program, name, argument):
    """What a program beside the worker prints, with a new directory and its argument."""
    directory = os.path.join(settings.scratch, name)
    os.mkdir(directory)
    path = os.path.join(os.path.dirname(settings.worker), program)
    done = subprocess.run([path, directory, str(argument)], capture_output=True, text=True,
                          check=False)
    shutil.rmtree(directory)
    if done.returncode != 0:
        raise AssertionError(done.stderr.strip())
    return [json.loads(line) for line in done.stdout.splitlines()]


def steady(settings):
    """W9: claims and expiry in balance: size and memory over ten times the time to live."""
    rows = []
    for live in settings.steady:
        # From twice the time to live on it is full, and what comes is what goes.
        steps = [step for step in lines_of(settings, "bench_steady", f"steady-{live}", live)
                 if step["ttls"] > 2]
        rows += [{"peer": "dedup", "live": live, **step} for step in steps]
        most = max(step["disk_bytes"] / step["live_bytes"] for step in steps)
        settings.say(f"  {live:,} live keys: at most {most:.2f} times their records")
    return {"settings": {"live": settings.steady}, "rows": rows, "failed": {}}


def guard(settings):
    """W10: events that a Guard processes, beside the disk's flushes."""
    rows = {}
    for number in range(settings.rounds):
        for line in lines_of(settings, "bench_guard", f"guard-{number}", settings.ms):
            work = line["work"]
            row = rows.setdefault(work, {"peer": "dedup", "work": work, "rounds": []})
            row["rounds"].append({name: line[name] for name in
                                  ("per_second", "cpu_seconds_per_million", "disk_per_second")})
            settings.say(f"  {work:28} {line['per_second']:12,.0f} /s")
    return {"settings": {}, "rows": list(rows.values()), "failed": {}}


def on_postgres(settings):
    """W11: this store on PostgreSQL, beside a plain table of processed events there."""
    rows = Rows(settings.say)
    with Fleet(("postgres", "dedup_postgres"), settings) as fleet:
        load(fleet, settings, settings.expired // 10, index=True)
        warm_up(fleet)
        both = ("postgres", "dedup_postgres")
        steps = [("claims", {"group": group, "ms": settings.ms},
                  {"work": "claims", "group": group}, both) for group in (1, 64, 1024)]
        steps += [("claims_by_threads", {"threads": 64, "ms": settings.ms},
                   {"work": "claims by 64 threads"}, both)]
        steps += [("cycles", {"group": 64, "ms": settings.ms}, {"work": "cycles"}, both)]
        steps += [("lookups", lookup(drawn, 1, settings.ms),
                   {"work": "lookups", "keys_drawn": drawn}, both)
                  for drawn in ("uniform", "uniform, 64 a call")]
        rows.rows.update(rounds(fleet, settings, steps).rows)

        def sweep(peer):
            load_more(peer, settings.expired, settings)
            swept = peer.measure("sweep", ahead_ms=2 * HOUR_MS)
            expect_removed(peer, swept, settings.expired)
            rows.add(peer, {"work": "sweep"}, swept)
        fleet.each(sweep)
        return rows.result(fleet, keys=settings.expired // 10, expired=settings.expired)


# Those that share one set of loaded stores, and those that make their own. Lookups come first, as
# long as what was loaded last is what came last.
ON_LOADED = {"W4": lookups, "W1": new_claims, "W2": claims_by_threads, "W3": cycles}
ON_THEIR_OWN = {"W5": growth, "W6": sweeps, "W7": openings, "W8": sizes,
                "W9": steady, "W10": guard, "W11": on_postgres}
NAMES = (*ON_LOADED, *ON_THEIR_OWN)


def run(names, settings, keep):
    """Runs the workloads of these names; each result goes to keep(name, result) at once."""
    together = [name for name in ON_LOADED if name in names]
    if together:
        with Fleet(ALL, settings) as fleet:
            load(fleet, settings, settings.keys)
            warm_up(fleet)
            for name in together:
                settings.say(f"{name}: {ON_LOADED[name].__doc__.split(': ', 1)[1]}")
                keep(name, ON_LOADED[name](fleet, settings))
    for name, workload in ON_THEIR_OWN.items():
        if name in names:
            settings.say(f"{name}: {workload.__doc__.split(': ', 1)[1]}")
            keep(name, workload(settings))
