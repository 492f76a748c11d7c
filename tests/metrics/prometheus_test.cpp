// What is served to Prometheus, to the letter where it is easy to get wrong. That the page as a
// whole parses is checked by tests/cli/prometheus_test.py.

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cache/helpers.hpp"
#include "support/stores.hpp"

using namespace dedup;
using namespace dedup::test;

namespace {

bool has_line(const std::string& page, const std::string& line) {
    return ("\n" + page).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("buckets are cumulative and end with all") {
    StoreMetrics metrics;
    for (const std::uint64_t value : {0U, 1U, 3U, 3U, 1000U}) {
        ++metrics.group_records.buckets[Histogram::bucket_of(value)];
        metrics.group_records.sum += value;
    }
    const std::string page = prometheus_text(metrics);
    CHECK(has_line(page, "# TYPE dedup_group_records histogram"));
    CHECK(has_line(page, "dedup_group_records_bucket{le=\"0\"} 1"));
    CHECK(has_line(page, "dedup_group_records_bucket{le=\"1\"} 2"));
    CHECK(has_line(page, "dedup_group_records_bucket{le=\"3\"} 4"));
    CHECK(has_line(page, "dedup_group_records_bucket{le=\"511\"} 4"));
    CHECK(has_line(page, "dedup_group_records_bucket{le=\"1023\"} 5"));
    CHECK(has_line(page, "dedup_group_records_bucket{le=\"+Inf\"} 5"));
    CHECK(has_line(page, "dedup_group_records_sum 1007"));
    CHECK(has_line(page, "dedup_group_records_count 5"));
}

TEST_CASE("times are in seconds") {
    StoreMetrics metrics;
    metrics.flush_ns.buckets[Histogram::bucket_of(1500)] = 2;
    metrics.flush_ns.sum = 3000;
    const std::string page = prometheus_text(metrics);
    CHECK(has_line(page, "dedup_flush_duration_seconds_bucket{le=\"1.023e-06\"} 0"));
    CHECK(has_line(page, "dedup_flush_duration_seconds_bucket{le=\"2.047e-06\"} 2"));
    CHECK(has_line(page, "dedup_flush_duration_seconds_sum 3e-06"));
    StoreStats stats;
    stats.last_sweep_ms = 1'700'000'000'123;
    CHECK(has_line(prometheus_text(stats),
                   "dedup_store_last_sweep_timestamp_seconds 1700000000.123"));
}

TEST_CASE("caches are told apart by namespace, those of one are added up, quotes are escaped") {
    TestStore store = store_factories().front().make();
    Cache one(*store, {.ns = "say \"hi\\\""});
    Cache same(*store, {.ns = "say \"hi\\\""});
    Cache other(*store, {.ns = "other"});
    must_claim(one, "a");
    must_claim(same, "b");
    must_claim(other, "c");
    const std::vector<CacheMetrics> caches{one.metrics(), same.metrics(), other.metrics()};
    const std::string page = prometheus_text(caches);
    CHECK(has_line(page, R"(dedup_claims_total{namespace="say \"hi\\\"",outcome="claimed"} 2)"));
    CHECK(has_line(page, R"(dedup_claims_total{namespace="other",outcome="claimed"} 1)"));
    CHECK(has_line(page, R"(dedup_renewals_total{namespace="other"} 0)"));
    CHECK(has_line(page, R"(dedup_claim_duration_seconds_count{namespace="other"} 1)"));
}
