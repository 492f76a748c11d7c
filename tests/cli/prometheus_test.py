"""stats --format prometheus: a page that Prometheus takes, with the numbers of the store."""

import math
import pathlib
import re

import cli
from cli import ERROR, OK, USAGE

ALERTS = pathlib.Path(__file__).parents[2] / "docs/examples/alerts.yml"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (\S+)")


def parse(page):
    """Samples by name and labels; fails on whatever the text format 0.0.4 does not allow."""
    samples, types, helped, current = {}, {}, set(), None
    assert page.endswith("\n")
    for line in page[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            assert name not in helped and text, line
            helped.add(name)
            current = name
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and name not in types, f"TYPE not behind its HELP: {line}"
            assert kind in ("counter", "gauge", "histogram"), line
            assert (kind == "counter") == name.endswith("_total"), line
            types[name] = kind
        else:
            name, labels, value = SAMPLE.fullmatch(line).groups()
            family = name
            if types.get(current) == "histogram":
                family = re.sub("_(bucket|sum|count)$", "", name)
            assert family == current and family in types, f"not with its HELP: {line}"
            key = (name, labels or "")
            assert key not in samples, f"twice: {line}"
            samples[key] = float(value)
            assert math.isfinite(samples[key]) and samples[key] >= 0, line
    assert helped == set(types)
    return samples


class Prometheus(cli.CliTest):
    def page(self):
        return parse(self.dedupctl("stats", "--format", "prometheus", expect=OK).text)

    def test_the_page_has_the_numbers_of_stats(self):
        self.dedupctl("claim", "held", expect=OK)
        for key in ("a", "b"):
            self.dedupctl("remember", key, expect=OK)
        self.dedupctl("claim", "gone", expect=OK)
        self.dedupctl("release", "gone", expect=OK)
        stats = self.dedupctl("--json", "stats", expect=OK).json
        page = self.page()
        for name, labels, value in (
                ("dedup_store_streams", 'state="in_flight"', 1),
                ("dedup_store_streams", 'state="completed"', 2),
                ("dedup_store_streams", 'state="released"', 1),
                ("dedup_store_info", f'store_id="{stats["store_id"]}"', 1),
                ("dedup_store_records", "", stats["records"]),
                ("dedup_store_sequences_total", "", stats["last_sequence"]),
                ("dedup_store_segments", 'state="sealed"', 0),
                ("dedup_store_segments", 'state="unsealed"', 1),
                ("dedup_store_log_bytes", "", stats["log_bytes"]),
                ("dedup_store_catalog_bytes", "", stats["catalog_bytes"]),
                ("dedup_store_tail_bytes", "", stats["tail_bytes"]),
                ("dedup_store_last_activity_timestamp_seconds", "",
                 stats["time_high_ms"] / 1000),
                ("dedup_store_last_sweep_timestamp_seconds", "", 0),
                ("dedup_store_evicted_streams_total", "", 0),
                ("dedup_store_sweep_failed", "", 0),
                ("dedup_store_background_failed", "", 0),
                ("dedup_store_next_sweep_streams", "", 0)):
            self.assertEqual(page[name, labels], value, name)

    def test_claims_that_wait_for_an_answer(self):
        self.dedupctl("remember", "done", expect=OK)
        self.assertFalse([name for name, _ in self.page() if name.startswith("dedup_open")])
        self.dedupctl("claim", "a", expect=OK)
        self.dedupctl("claim", "short", "--ttl", "1ms", expect=OK)
        self.dedupctl("-n", "other", "claim", "b", "--lease", "1ms", expect=OK)
        self.dedupctl("-n", "other", "claim", "c", "--lease", "1h", expect=OK)
        at = self.dedupctl("--json", "inspect", "a", expect=OK).json["records"][-1]["timestamp_ms"]
        self.wait_until(lambda: self.page()["dedup_open_claims", 'namespace="default"'] == 1,
                        "the short one has expired")
        page = self.page()
        for name, ns, value in (("dedup_open_claims", "other", 2),
                                ("dedup_open_claims_past_lease", "default", 0),
                                ("dedup_open_claims_past_lease", "other", 1),
                                ("dedup_open_claims_oldest_timestamp_seconds", "default",
                                 at / 1000)):
            self.assertEqual(page[name, f'namespace="{ns}"'], value, name)

    def test_the_alerts_ask_for_what_there_is(self):
        self.dedupctl("claim", "a", expect=OK)
        rules = ALERTS.read_text(encoding="utf-8")
        names = set(re.findall(r"\bdedup_(?!server_)\w+", rules))  # of serve: serve_http_test.py
        self.assertGreater(len(names), 5)
        self.assertEqual(names - {name for name, _ in self.page()}, set())

    def test_sweeps_are_seen(self):
        self.dedupctl("claim", "k", "--ttl", "1ms", expect=OK)
        self.wait_until(lambda: self.page()["dedup_store_next_sweep_streams", ""] == 1,
                        "the claim has expired")
        report = self.dedupctl("--json", "sweep", expect=OK).json
        page = self.page()
        self.assertEqual(page["dedup_store_last_sweep_timestamp_seconds", ""],
                         report["now_ms"] / 1000)
        self.assertEqual(page["dedup_store_next_sweep_streams", ""], 0)

    def test_it_works_beside_a_writer(self):
        self.hold_store()
        self.assertEqual(self.page()["dedup_store_streams", 'state="completed"'], 1)

    def test_wrong_uses(self):
        self.dedupctl("stats", "--format", "xml", expect=USAGE)
        self.dedupctl("--json", "stats", "--format", "prometheus", expect=USAGE)
        self.assertInError(self.store,
                           self.dedupctl("stats", "--format", "prometheus", expect=ERROR))

    def test_the_parser_of_this_test_refuses_what_is_wrong(self):
        good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 1\n"
        self.assertEqual(parse(good), {("a_total", 'x="1"'): 1})
        for wrong in (good[:-1], good + "a_total{x=\"1\"} 2\n", good + "b 1\n",
                      good.replace("counter", "gauge"), good.replace("# HELP a_total A.\n", ""),
                      good.replace(" 1\n", " one\n"), good.replace('"1"', '"\\x"')):
            with self.assertRaises((AssertionError, AttributeError, ValueError), msg=wrong):
                parse(wrong)


if __name__ == "__main__":
    cli.main()
