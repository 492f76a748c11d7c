#!/usr/bin/env python3
"""report.py DIRECTORY: makes performance.md and its pictures from performance.json there."""

import os
import re
import statistics
import sys

import chart
import results
import targets
from results import NAMES

COLOURS = {"limit": "#868e96", "dedup": "#e8590c", "before": "#f4a261",
           "control": "#f4a261", "lmdb": "#2f9e44",
           "rocksdb": "#1c7ed6", "sqlite": "#ae3ec9", "postgres": "#1098ad", "dedup_postgres": "#0b7285", "redis": "#e03131"}
TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "performance.md.in")
DAMON = "; DAMON is at work and may drop pages of files that nobody has used for a while"
NOT_MEASURED = "Not measured yet."


def figure(value, digits=3):
    """A figure with as many places as it is good for."""
    if value is None:
        return ""
    if value >= 10 ** digits:
        return f"{round(value, digits - len(str(int(value)))):,.0f}"
    return f"{value:.{digits}g}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def by_peer(workload, name, values, field="per_second", peers=None, **variant):
    """A row a peer, a column a value of the variant `name`."""
    rows = []
    for peer in peers or workload.peers():
        rows.append([NAMES[peer]] + [
            figure(workload.median(peer, field, **{name: value}, **variant)) for value in values])
    return rows


def latency_cell(workload, peer, **variant):
    cells = [workload.median(peer, field, **variant) for field in ("p50_us", "p99_us", "max_us")]
    return " / ".join(figure(cell) for cell in cells) if None not in cells else ""


def cost_tables(workload, name, values, label):
    """Latency, processor time and bytes written."""
    head = [label] + [f"{value:,}" for value in values]
    peers = workload.peers()
    latency = [[NAMES[peer]] + [latency_cell(workload, peer, **{name: value}) for value in values]
               for peer in peers]
    return "\n\n".join([
        "Latency of a group in µs: median / 99th percentile / longest.", table(head, latency),
        "Processor seconds for a million keys, the server's included.",
        table(head, by_peer(workload, name, values, "cpu_seconds_per_million")),
        "Bytes written a key by the peer's processes.",
        table(head, by_peer(workload, name, values, "written_bytes_per_operation")),
        "Bytes that went to the disk a key meanwhile, the file system's own and all other programs' "
        "included.",
        table(head, by_peer(workload, name, values, "device_bytes_per_operation"))])


def ratio_rows(workload, variants):
    """This store's rate to others', a line each with every round."""
    rows = []
    for label, variant in variants:
        for what, peers in (("the limit", ["limit"]), ("the best on-disk peer", results.ON_DISK),
                            ("Redis", ["redis"]), ("itself before", ["before"]),
                            ("itself with few keys", ["control"])):
            ratios, best = workload.ratios(peers, **variant)
            if not ratios:
                continue
            named = f"{what}, {NAMES[best]}" if what.startswith("the best") else what
            rows.append([label, named, f"{statistics.median(ratios):.2f}",
                         ", ".join(f"{ratio:.2f}" for ratio in ratios)])
    return table(["work", "this store to", "median", "by round"], rows)


def line_chart(title, workload, name, values, labels, **variant):
    series = [(NAMES[peer], COLOURS[peer], peer == "limit",
               [workload.median(peer, **{name: value}, **variant) for value in values])
              for peer in workload.peers()]
    return chart.lines(title, labels, series)


def claims_part(w1, pictures):
    groups = w1.variants("group")
    pictures["claims"] = line_chart("Durable claims a second, by keys a group", w1, "group", groups,
                                    [f"{group:,}" for group in groups])
    return "\n\n".join([
        "![Durable claims a second](performance-claims.svg)",
        table(["claims a second, keys a group"] + [f"{group:,}" for group in groups],
              by_peer(w1, "group", groups)),
        ratio_rows(w1, [(f"{group:,} a group", {"group": group}) for group in groups]),
        cost_tables(w1, "group", groups, "keys a group")])


def threads_part(w2, pictures):
    threads = w2.variants("threads")
    pictures["threads"] = line_chart("Durable claims a second, by threads that claim one each", w2,
                                     "threads", threads, [f"{count}" for count in threads])
    return "\n\n".join([
        "![Durable claims a second by threads](performance-threads.svg)",
        table(["claims a second, threads"] + [f"{count}" for count in threads],
              by_peer(w2, "threads", threads)),
        ratio_rows(w2, [(f"{count} threads", {"threads": count}) for count in threads]),
        cost_tables(w2, "threads", threads, "threads")])


def cycles_part(w3, pictures):
    pictures["cycles"] = chart.bars(
        "Keys a second: claimed and completed, a tenth duplicates, 64 a group",
        [(NAMES[peer], COLOURS[peer], w3.median(peer)) for peer in w3.peers()], " /s")
    rows = [[NAMES[peer], figure(w3.median(peer)), latency_cell(w3, peer),
             figure(w3.median(peer, "cpu_seconds_per_million")),
             figure(w3.median(peer, "written_bytes_per_operation"))] for peer in w3.peers()]
    return "\n\n".join([
        "![Claims and completions a second](performance-cycles.svg)",
        table(["", "keys a second", "µs a group: median / p99 / longest",
               "processor s a million", "bytes written a key"], rows),
        ratio_rows(w3, [("64 a group", {"group": 64})])])


def lookups_part(w4, pictures):
    kinds = [(drawn, threads) for drawn in w4.variants("keys_drawn")
             for threads in w4.variants("threads")]
    labels = [f"{drawn}, {threads} thread{'s' if threads > 1 else ''}" for drawn, threads in kinds]
    series = [(NAMES[peer], COLOURS[peer], peer == "limit",
               [w4.median(peer, keys_drawn=drawn, threads=threads) for drawn, threads in kinds])
              for peer in w4.peers()]
    under = ["\n".join(label.split(", ")[-2:]) for label in labels]
    pictures["lookups"] = chart.lines("Lookups with receipt a second", under, series)

    def cells(cell):
        return [[NAMES[peer]] + [cell(peer, keys_drawn=drawn, threads=threads)
                                 for drawn, threads in kinds] for peer in w4.peers()]
    return "\n\n".join([
        "![Lookups a second](performance-lookups.svg)",
        table(["lookups a second"] + labels,
              cells(lambda peer, **variant: figure(w4.median(peer, **variant)))),
        ratio_rows(w4, [(label, {"keys_drawn": drawn, "threads": threads})
                        for label, (drawn, threads) in zip(labels, kinds)]),
        "Latency of a call in µs: median / 99th percentile / longest. Of calls for one key, one in 16 "
        "is timed.",
        table([""] + labels, cells(lambda peer, **variant: latency_cell(w4, peer, **variant)))])


def growth_part(w5, pictures):
    sizes = w5.variants("keys")
    labels = [chart.short(size) + " keys" for size in sizes]
    parts = []
    for number, work in enumerate(w5.variants("work")):
        name = f"growth-{number + 1}"
        pictures[name] = line_chart(f"{work[0].upper()}{work[1:]}: operations a second", w5, "keys",
                                    sizes, labels, work=work)
        parts.append(f"![{work}](performance-{name}.svg)")
        parts.append(table([f"{work}, a second"] + [f"{size:,} keys" for size in sizes],
                           by_peer(w5, "keys", sizes, work=work)))
    parts.append(ratio_rows(w5, [(f"{work}, {size:,} keys", {"work": work, "keys": size})
                                 for work in w5.variants("work") for size in sizes]))
    return "\n\n".join(parts)


def sweeps_part(w6, pictures):
    kinds = [("this store's sweep", "dedup", "sweep"),
             ("the same beside claims", "dedup", "sweep beside claims"),
             ("PostgreSQL's DELETE", "postgres", "sweep"),
             ("PostgreSQL's VACUUM", "postgres", "vacuum")]
    times = [(label, peer, w6.median(peer, "seconds", work=work)) for label, peer, work in kinds]
    times = [row for row in times if row[2] is not None]
    expired = w6.data["settings"]["expired"]
    pictures["sweeps"] = chart.bars(
        f"Seconds to remove {expired:,} expired keys",
        [(label, COLOURS[peer], seconds) for label, peer, seconds in times], " s")
    claims = [[work, figure(w6.median("dedup", work=work)), latency_cell(w6, "dedup", work=work),
               ", ".join(figure(value) for value in w6.figures("dedup", "p99_us", work=work))]
              for work in w6.variants("work") if work.startswith("claims")]
    return "\n\n".join([
        f"{expired:,} keys expire, {w6.data['settings']['live']:,} stay.",
        "![Seconds to remove what has expired](performance-sweeps.svg)",
        table(["", "seconds"], [[label, figure(seconds)] for label, _, seconds in times]),
        table(["64 a group", "claims a second", "µs a group: median / p99 / longest",
               "p99 by round"], claims)])


def openings_part(w7, pictures):
    sizes = w7.variants("keys")
    pictures["openings"] = chart.bars(
        "Seconds to open after kill -9",
        [(f"{NAMES[peer]}, {chart.short(size)}", COLOURS[peer],
          w7.median(peer, "seconds", keys=size))
         for size in sizes for peer in w7.peers(keys=size)], " s")
    return "\n\n".join([
        "![Seconds to open](performance-openings.svg)",
        table(["seconds"] + [f"{size:,} keys" for size in sizes],
              by_peer(w7, "keys", sizes, "seconds"))])


def sizes_part(w8, pictures):
    pictures["sizes"] = chart.bars(
        "Bytes on disk a key",
        [(NAMES[row["peer"]], COLOURS[row["peer"]], row["disk_bytes_per_key"])
         for row in w8.rows if row["what"].endswith("64-byte receipt")], " B")
    rows = [[NAMES[row["peer"]], row["what"], figure(row["disk_bytes_per_key"]),
             figure(row["own_memory_bytes_per_key"]), figure(row["mapped_memory_bytes_per_key"])]
            for row in w8.rows]
    return "\n\n".join([
        "![Bytes on disk a key](performance-sizes.svg)",
        table(["", "keys", "bytes on disk a key", "own memory", "mapped files in memory"], rows)])


def steady_part(w9, _):
    sizes = w9.data["settings"]["live"]
    rows = []
    for live in sizes:
        steps = [row for row in w9.rows if row["live"] == live]
        ratios = [row["disk_bytes"] / row["live_bytes"] for row in steps]
        memory = [row["own_memory_bytes"] / 1e6 for row in steps]
        rows.append([f"{live:,}", figure(statistics.median(ratios)), figure(max(ratios)),
                     f"{min(memory):.0f} to {max(memory):.0f}",
                     figure(sum(row["moved"] for row in steps) / (live * len(steps) / 10))])
    return table(["live keys", "size to live records, median", "at most", "own memory, MB",
                  "records moved for each that is claimed"], rows)


def guard_part(w10, _):
    rows = []
    for work in w10.variants("work"):
        cells = [w10.median("dedup", field, work=work)
                 for field in ("per_second", "cpu_seconds_per_million", "disk_per_second")]
        rows.append([work] + [figure(cell) for cell in cells])
    return table(["", "events a second", "processor s a million",
                  "the disk's flushes a second in between"], rows)


def on_postgres_part(w11, _):
    rows = []
    for row in w11.rows:
        if row["peer"] != "postgres":
            continue
        variant = {name: row[name] for name in ("work", "group", "keys_drawn") if name in row}
        what = row["work"] + "".join(f", {row[name]:,} a group" if name == "group"
                                     else f", {row[name]}" for name in variant if name != "work")
        plain, ours = (w11.median(peer, **variant) for peer in ("postgres", "dedup_postgres"))
        share = f"{ours / plain:.2f}" if ours else ""
        rows.append([what, figure(plain), figure(ours), share])
    return table(["a second", "a plain table", "this store on PostgreSQL", "ratio"], rows)


def left_out(workload):
    lines = [f"- {NAMES[peer]}: {' '.join(why.split())[-200:]}"
             for peer, why in workload.data["failed"].items()]
    return "\n\nLeft out:\n\n" + "\n".join(lines) if lines else ""


def circumstances(workloads):
    """What was measured when, where and with what; workloads may be from different runs."""
    rows = []
    about = {}
    for name, workload in sorted(workloads.items(), key=lambda item: int(item[0][1:])):
        data = workload.data
        host = data["machine"]
        peers = ", ".join(f"{NAMES[peer]} {version}" for peer, version in data["versions"].items()
                          if peer in NAMES and peer != "dedup")
        about[f"{host['processor']}, {host['cores']} cores, "
              f"{host['memory_bytes'] / 2 ** 30:.0f} GiB of memory; Linux {host['kernel']}, "
              f"{' '.join(host['file_system'].split())}"
              f"{DAMON if host.get('damon') else ''}; "
              f"{data['versions']['compiler']}; "
              f"{peers}"] = None
        rows.append([name, data["date"], f"{data['rounds']} of {data['ms'] / 1000:g} s a row",
                     data["versions"]["dedup"], figure(host["load_average_at_start"])])
    quick = any(workload.data["quick"] for workload in workloads.values())
    return "\n\n".join(filter(None, [
        "**Some of this is from a quick run with small numbers: it shows that everything works, "
        "not how fast it is.**" if quick else "",
        "\n\n".join(f"On: {line}." for line in about),
        table(["", "measured", "rounds", "revision", "load average before"], rows),
        "Nothing else should run meanwhile: with a load average of more than a few tenths, the "
        "figures tell about the other programs, too."]))


def targets_part(workloads):
    lines = targets.judge(workloads)
    met = sum(line.met for line in lines)
    return f"{met} of {len(lines)} are met.\n\n" + table(
        ["", "target", "measured", "met", "at"],
        [[line.what, line.target, line.measured, "yes" if line.met else "**no**", line.at]
         for line in lines])


PARTS = {"W1": claims_part, "W2": threads_part, "W3": cycles_part, "W4": lookups_part,
         "W5": growth_part, "W6": sweeps_part, "W7": openings_part, "W8": sizes_part,
         "W9": steady_part, "W10": guard_part, "W11": on_postgres_part}


def main():
    directory = sys.argv[1]
    workloads = results.read(os.path.join(directory, "performance.json"))
    pictures = {}

    def part(match):
        name = match.group(1)
        if name == "circumstances":
            return circumstances(workloads)
        if name == "targets":
            return targets_part(workloads)
        if name not in workloads:
            return NOT_MEASURED
        return PARTS[name](workloads[name], pictures) + left_out(workloads[name])

    with open(TEMPLATE, encoding="utf-8") as file:
        page = re.sub(r"\{\{(\w+)\}\}", part, file.read())
    with open(os.path.join(directory, "performance.md"), "w", encoding="utf-8") as file:
        file.write(page)
    for name, svg in pictures.items():
        if svg:
            path = os.path.join(directory, f"performance-{name}.svg")
            with open(path, "w", encoding="utf-8") as file:
                file.write(svg)


if __name__ == "__main__":
    main()
