"""Questions to the measured results."""

import json
import statistics

NAMES = {"limit": "the limit", "dedup": "this store", "before": "this store before",
         "control": "this store, few keys",
         "lmdb": "LMDB", "rocksdb": "RocksDB", "sqlite": "SQLite", "postgres": "PostgreSQL",
         "dedup_postgres": "this store on PostgreSQL",
         "redis": "Redis"}
ON_DISK = ("lmdb", "rocksdb", "sqlite", "postgres")


class Workload:
    """One workload's results."""

    def __init__(self, data):
        self.data = data
        self.rows = data["rows"]

    def row(self, peer, **variant):
        for row in self.rows:
            if row["peer"] == peer and all(row.get(key) == value for key, value in variant.items()):
                return row
        return None

    def figures(self, peer, field="per_second", **variant):
        """One a round; empty if there are none."""
        row = self.row(peer, **variant)
        return [figures[field] for figures in row["rounds"] if field in figures] if row else []

    def median(self, peer, field="per_second", **variant):
        figures = self.figures(peer, field, **variant)
        return statistics.median(figures) if figures else None

    def peers(self, **variant):
        """Those that have such a row, in the order of NAMES."""
        return [peer for peer in NAMES if self.row(peer, **variant)]

    def variants(self, name):
        """The values of a variant, in the order in which they were measured."""
        return list(dict.fromkeys(row[name] for row in self.rows if name in row))

    def ratios(self, peers, **variant):
        """This store's rate to the best one of `peers`, a round; and who that was most often."""
        others = {peer: self.figures(peer, **variant) for peer in peers}
        others = {peer: figures for peer, figures in others.items() if figures}
        ours = self.figures("dedup", **variant)
        count = min([len(ours), *(len(figures) for figures in others.values())])
        if not others or not count:
            return [], None
        best = [max(others, key=lambda peer, at=at: others[peer][at]) for at in range(count)]
        ratios = [ours[at] / others[peer][at] for at, peer in enumerate(best)]
        return ratios, statistics.mode(best)


def read(path):
    """Workloads by name."""
    with open(path, encoding="utf-8") as file:
        return {name: Workload(data) for name, data in json.load(file)["workloads"].items()}
