"""What this store is meant to reach, and whether it does. Nothing is rounded in its favour."""

import statistics

from results import NAMES, ON_DISK

M = 1_000_000


class Target:
    """One line of the table."""

    def __init__(self, what, target, measured, met, at):
        self.what = what
        self.target = target
        self.measured = measured
        self.met = met
        self.at = at


def at_least(what, ratios, least, at):
    """That the median of the ratios is at least so much. Without any, it is not."""
    ratios, best = ratios
    if not ratios:
        return [Target(what, f"≥ {least:g}", "not measured", False, at)]
    median = statistics.median(ratios)
    beside = f" (beside {NAMES[best]})" if "the best" in what else ""
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return [Target(what, f"≥ {least:g}", f"{median:.2f}{beside}; by round {each}", median >= least,
                   at)]


def keys_at(workload):
    return f"{workload.data['settings']['keys']:,} keys"


def claims(w1):
    lines = []
    at = keys_at(w1)
    lines += at_least("W1, 1 a group: share of the disk's limit", w1.ratios(["limit"], group=1),
                      0.92, at)
    lines += at_least("W1, 1 a group: times the best peer",
                      w1.ratios([*ON_DISK, "redis"], group=1), 1, at)
    for group, least in ((64, 3), (256, 4), (1024, 4)):
        lines += at_least(f"W1, {group:,} a group: times the best on-disk peer",
                          w1.ratios(ON_DISK, group=group), least, at)
        lines += at_least(f"W1, {group:,} a group: times Redis", w1.ratios(["redis"], group=group),
                          1, at)
    return lines


def threads(w2):
    return at_least("W2, 64 threads: times the best peer",
                    w2.ratios([*ON_DISK, "redis"], threads=64), 2, keys_at(w2))


def lookups(w4):
    lines = []
    at = keys_at(w4)
    for drawn in w4.variants("keys_drawn"):
        rate = w4.median("dedup", threads=1, keys_drawn=drawn)
        if rate:
            lines.append(Target(f"W4, {drawn}: lookups a second, one thread", "≥ 1,000,000",
                                f"{rate:,.0f}", rate >= M, at))
        for peer in ("rocksdb", "sqlite"):
            lines += at_least(f"W4, {drawn}: times {NAMES[peer]}, one thread",
                              w4.ratios([peer], threads=1, keys_drawn=drawn), 1, at)
        one = w4.figures("dedup", threads=1, keys_drawn=drawn)
        two = w4.figures("dedup", threads=2, keys_drawn=drawn)
        lines += at_least(f"W4, {drawn}: two threads to one",
                          ([b / a for a, b in zip(one, two)], None), 1.8, at)
    return lines


def growth(w5):
    lines = []
    sizes = w5.data["settings"]["sizes"]
    small, large = min(sizes), max(sizes)
    for group in (64, 1024) if small < large else ():
        lines += at_least(
            f"W5, {group:,} a group: claims with the most keys to claims with the fewest",
            w5.ratios(["control"], keys=large, work=f"claims, {group} a group"), 0.6,
            f"{large:,} keys beside {small:,}")
    return lines


def sweeps(w6):
    lines = []
    at = f"{w6.data['settings']['expired']:,} expired keys"
    ours = w6.median("dedup", "seconds", work="sweep")
    if ours:
        lines.append(Target("W6: seconds for a sweep", "< 2", f"{ours:.2f}", ours < 2, at))
    theirs = w6.median("postgres", "seconds", work="sweep")
    if ours and theirs:
        lines.append(Target("W6: times as fast as PostgreSQL's DELETE", "≥ 10",
                            f"{theirs / ours:.1f}", theirs / ours >= 10, at))
    fields = [w6.figures("dedup", "p99_us", work=f"claims {when}")
              for when in ("before", "beside a sweep", "after")]
    if all(fields):
        ratios = [beside / statistics.mean((before, after))
                  for before, beside, after in zip(*fields)]
        median = statistics.median(ratios)
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(Target("W6: p99 of 64 claims beside a sweep, to without", "≤ 2",
                            f"{median:.2f}; by round {each}", median <= 2, at))
    return lines


def openings(w7):
    lines = []
    sizes = w7.data["settings"]["sizes"]
    seconds = {size: w7.median("dedup", "seconds", keys=size) for size in sizes}
    for size, took in seconds.items():
        if took is not None:
            lines.append(Target("W7: seconds to open after kill -9", "< 1", f"{took:.2f}", took < 1,
                                f"{size:,} keys"))
    small, large = seconds.get(min(sizes)), seconds.get(max(sizes))
    if small and large and len(sizes) > 1:
        lines.append(Target("W7: opening the largest, to the smallest", "≤ 1.5",
                            f"{large / small:.2f}", large / small <= 1.5,
                            f"{min(sizes):,} and {max(sizes):,} keys"))
    return lines


def sizes(w8):
    lines = []
    after = w8.row("dedup", what="the same, compacted")
    if after:
        disk, memory = after["disk_bytes_per_key"], after["own_memory_bytes_per_key"]
        at = f"{after['keys']:,} keys"
        lines.append(Target("W8: bytes on disk for a completed key without receipt, compacted",
                            "≤ 160", f"{disk:.1f}", disk <= 160, at))
        lines.append(Target("W8: bytes of memory for such a key", "≤ 2", f"{memory:.2f}",
                            memory <= 2, at))
    return lines


def steady(w9):
    lines = []
    for live in w9.data["settings"]["live"]:
        rows = [row for row in w9.rows if row["live"] == live]
        at = f"{live:,} live keys"
        largest = max(row["disk_bytes"] / row["live_bytes"] for row in rows)
        lines.append(Target("W9: size to that of the live records, at most", "≤ 2",
                            f"{largest:.2f}", largest <= 2, at))
        half = len(rows) // 2
        first, last = (max(row["own_memory_bytes"] for row in part)
                       for part in (rows[:half], rows[half:]))
        lines.append(Target("W9: most memory in the second half, to the first", "≤ 1.1",
                            f"{last / first:.2f}", last <= 1.1 * first, at))
    return lines


def guards(w10):
    ours = w10.figures("dedup", work="one by one")
    disk = w10.figures("dedup", "disk_per_second", work="one by one")
    lines = at_least("W10, one by one: flushes, two an event, to the disk's",
                     ([2 * events / flushes for events, flushes in zip(ours, disk)], None), 0.92,
                     "new events")
    rate = w10.median("dedup", work="batches of 500")
    return lines + [Target("W10, batches of 500: events a second", "≥ 100,000", f"{rate:,.0f}",
                           rate >= 100_000, "new events")]


def on_postgres(w11):
    lines = []

    def ratios(**variant):
        ours, plain = (w11.figures(peer, **variant) for peer in ("dedup_postgres", "postgres"))
        return [mine / theirs for mine, theirs in zip(ours, plain)], None

    for group in (1, 64, 1024):
        lines += at_least(f"W11, {group:,} a group: claims, to a plain table's",
                          ratios(work="claims", group=group), 0.8, keys_at(w11))
    lines += at_least("W11, 64 threads: times a plain table's claims",
                      ratios(work="claims by 64 threads"), 3, keys_at(w11))
    one, many = (w11.figures("dedup_postgres", work="lookups", keys_drawn=drawn)
                 for drawn in ("uniform", "uniform, 64 a call"))
    lines += at_least("W11, 64 a call: lookups, to those one by one",
                      ([b / a for a, b in zip(one, many)], None), 5, keys_at(w11))
    ours, bare = (w11.median(peer, "seconds", work="sweep")
                  for peer in ("dedup_postgres", "postgres"))
    if ours and bare:
        lines.append(Target("W11: seconds of a sweep, to a bare DELETE's", "≤ 1.3",
                            f"{ours / bare:.2f}", ours <= 1.3 * bare,
                            f"{w11.data['settings']['expired']:,} expired keys"))
    return lines


def judge(workloads):
    """All targets that something was measured for."""
    parts = {"W1": claims, "W2": threads, "W4": lookups, "W5": growth, "W6": sweeps,
             "W7": openings, "W8": sizes, "W9": steady,
             "W10": guards, "W11": on_postgres}
    return [line for name, part in parts.items() if name in workloads
            for line in part(workloads[name])]
