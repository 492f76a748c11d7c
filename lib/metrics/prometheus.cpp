// Source of the format: "Exposition formats" of Prometheus' documentation, text format 0.0.4; of
// the names: "Metric and label naming" there.

#include <fmt/format.h>

#include <initializer_list>
#include <map>
#include <string_view>

#include "dedup/metrics.hpp"
#include "dedup/store.hpp"
#include "metrics/prometheus_page.hpp"

namespace dedup {
namespace {

using prometheus::kPerSecondMs;
using prometheus::kPerSecondNs;
using prometheus::kPerSecondUs;
using prometheus::label;
using prometheus::Page;

double seconds(std::int64_t time_ms) {
    return static_cast<double>(time_ms) / kPerSecondMs;
}

void add_space(Page& page, const StoreStats& stats) {
    page.metric("dedup_store_segments", "gauge", "Files of the log, by whether they are sealed.");
    page.sample(stats.segments_sealed, "state=\"sealed\"");
    page.sample(stats.segments_unsealed, "state=\"unsealed\"");
    page.gauge("dedup_store_log_bytes", "Size of the log.", stats.log_bytes);
    page.gauge("dedup_store_catalog_bytes", "Size of the catalog, as far as it is in use.",
               stats.catalog_bytes);
    page.gauge("dedup_store_tail_bytes", "The part of the log that the next opening replays.",
               stats.tail_bytes);
    page.gauge("dedup_store_memory_bytes", "Held by the store's own tables in this process.",
               stats.memory_bytes);
    page.gauge("dedup_store_torn_bytes", "Of an unfinished write, dropped by the last opening.",
               stats.torn_bytes_dropped);
    page.gauge("dedup_store_catalog_rebuilt", "1 if the last opening made the catalog anew.",
               stats.catalog_rebuilt ? 1 : 0);
}

void add_sweeps(Page& page, const StoreStats& stats) {
    page.counter("dedup_store_evicted_streams_total",
                 "Completed streams that were removed for want of room, since the store was made.",
                 stats.evicted);
    page.metric("dedup_store_last_sweep_timestamp_seconds", "gauge",
                "The time of the last sweep; 0 if there was none.");
    page.sample(seconds(stats.last_sweep_ms));
    page.gauge("dedup_store_sweep_failed", "1 if the last sweep failed.",
               stats.sweep_error.empty() ? 0 : 1);
    page.gauge("dedup_store_background_failed", "1 if sealing in the background failed.",
               stats.background_error.empty() ? 0 : 1);
}

// A counter of caches with the values of one label: which call, or how it ended.
struct Outcome {
    std::string_view value;
    std::uint64_t CacheCounts::*number;
};

using ByNamespace = std::map<std::string, CacheMetrics>;

void add_counts(Page& page, const ByNamespace& caches, std::string_view name, std::string_view help,
                std::initializer_list<Outcome> outcomes) {
    page.metric(name, "counter", help);
    for (const auto& [ns, metrics] : caches) {
        for (const auto& [value, number] : outcomes) {
            const std::string outcome =
                value.empty() ? "" : fmt::format(",{}", label("outcome", value));
            page.sample(metrics.counts.*number, label("namespace", ns) + outcome);
        }
    }
}

void add_times(Page& page, const ByNamespace& caches, std::string_view name, std::string_view help,
               Histogram CacheMetrics::*histogram, double per_second = kPerSecondNs) {
    page.metric(name, "histogram", help);
    for (const auto& [ns, metrics] : caches) {
        page.samples(metrics.*histogram, per_second, label("namespace", ns));
    }
}

}  // namespace

std::string prometheus_text(const StoreStats& stats) {
    Page page;
    page.metric("dedup_store_info", "gauge", "Which store this is; always 1.");
    page.sample(std::uint64_t{1}, label("store_id", stats.store_id));
    page.metric("dedup_store_streams", "gauge",
                "Streams by the state of their newest record, expired ones included.");
    page.sample(stats.in_flight, "state=\"in_flight\"");
    page.sample(stats.completed, "state=\"completed\"");
    page.sample(stats.released, "state=\"released\"");
    page.gauge("dedup_store_records", "Records in the log, superseded ones included.",
               stats.records);
    page.counter("dedup_store_sequences_total", "The highest sequence that may be assigned.",
                 stats.last_sequence);
    page.metric("dedup_store_last_activity_timestamp_seconds", "gauge",
                "The highest time that the store has seen.");
    page.sample(seconds(stats.time_high_ms));
    add_space(page, stats);
    add_sweeps(page, stats);
    return page.take();
}

std::string prometheus_text(const StoreMetrics& metrics) {
    Page page;
    page.counter("dedup_appended_records_total", "Records appended by callers.", metrics.appended);
    page.counter("dedup_append_conflicts_total",
                 "Appends whose expected sequence was not the head.", metrics.conflicts);
    page.counter("dedup_append_errors_total", "Appends that failed otherwise.", metrics.refused);
    page.counter("dedup_written_bytes_total", "Bytes written to the log.", metrics.bytes_written);
    page.counter("dedup_sweeps_total", "Sweeps, without dry runs.", metrics.sweeps);
    page.counter("dedup_sweep_errors_total", "Sweeps that failed.", metrics.sweeps_failed);
    page.counter("dedup_swept_streams_total", "Streams removed by sweeps.",
                 metrics.streams_removed);
    page.histogram("dedup_group_records", "Records written and flushed together.",
                   metrics.group_records, 1);
    page.histogram("dedup_flush_duration_seconds", "How long the log's flushes took.",
                   metrics.flush_ns, kPerSecondNs);
    page.histogram("dedup_sweep_duration_seconds", "How long sweeps took.", metrics.sweep_us,
                   kPerSecondUs);
    return page.take();
}

std::string prometheus_text(std::span<const CacheMetrics> caches) {
    ByNamespace by_namespace;
    for (const CacheMetrics& more : caches) {
        CacheMetrics& sum = by_namespace[more.ns];
        sum.counts += more.counts;
        sum.claim_ns += more.claim_ns;
        sum.complete_ns += more.complete_ns;
        sum.work_ms += more.work_ms;
        sum.lookup_ns += more.lookup_ns;
    }
    Page page;
    add_counts(page, by_namespace, "dedup_claims_total", "Claims, by what they came to.",
               {{"claimed", &CacheCounts::claimed},
                {"taken_over", &CacheCounts::taken_over},
                {"remembered", &CacheCounts::remembered},
                {"duplicate", &CacheCounts::duplicates},
                {"in_flight", &CacheCounts::in_flight},
                {"mismatch", &CacheCounts::mismatches},
                {"held", &CacheCounts::held}});
    add_counts(
        page, by_namespace, "dedup_completions_total", "Completions of claims.",
        {{"completed", &CacheCounts::completed}, {"repeated", &CacheCounts::completed_again}});
    add_counts(page, by_namespace, "dedup_releases_total", "Releases of claims.",
               {{"released", &CacheCounts::released}, {"nothing", &CacheCounts::released_nothing}});
    add_counts(page, by_namespace, "dedup_renewals_total", "Leases that were renewed.",
               {{"", &CacheCounts::renewed}});
    add_counts(page, by_namespace, "dedup_evidence_total",
               "Notes, holds and decisions about claims.",
               {{"noted", &CacheCounts::noted},
                {"held", &CacheCounts::put_on_hold},
                {"resolved", &CacheCounts::resolved},
                {"forgotten", &CacheCounts::forgotten}});
    add_counts(page, by_namespace, "dedup_offset_commits_total",
               "Commits of positions, by what they came to.",
               {{"committed", &CacheCounts::offsets_committed},
                {"repeated", &CacheCounts::offsets_repeated},
                {"behind", &CacheCounts::offsets_behind}});
    add_counts(page, by_namespace, "dedup_lookups_total", "Lookups, by what they found.",
               {{"absent", &CacheCounts::lookups_absent},
                {"completed", &CacheCounts::lookups_completed},
                {"in_flight", &CacheCounts::lookups_in_flight}});
    add_counts(page, by_namespace, "dedup_races_lost_total",
               "Appends that lost a race and were decided anew.", {{"", &CacheCounts::races_lost}});
    add_counts(page, by_namespace, "dedup_stale_claims_total",
               "Calls with a claim that somebody else had replaced, or that had ended.",
               {{"", &CacheCounts::stale}});
    add_counts(page, by_namespace, "dedup_errors_total", "Calls that failed otherwise.",
               {{"", &CacheCounts::errors}});
    add_times(page, by_namespace, "dedup_claim_duration_seconds",
              "How long calls that claimed something took.", &CacheMetrics::claim_ns);
    add_times(page, by_namespace, "dedup_complete_duration_seconds",
              "How long calls that completed, released or renewed something took.",
              &CacheMetrics::complete_ns);
    add_times(page, by_namespace, "dedup_lookup_duration_seconds",
              "How long one in 64 lookups took.", &CacheMetrics::lookup_ns);
    add_times(page, by_namespace, "dedup_work_duration_seconds", "From a claim to its completion.",
              &CacheMetrics::work_ms, kPerSecondMs);
    return page.take();
}

std::string prometheus_text(std::span<const OpenClaims> claims) {
    Page page;
    const auto each = [&](std::string_view name, std::string_view help, const auto& value) {
        page.metric(name, "gauge", help);
        for (const OpenClaims& of : claims) {
            page.sample(value(of), label("namespace", of.ns));
        }
    };
    each("dedup_open_claims", "Claims in flight that have not expired.",
         [](const OpenClaims& of) { return of.count; });
    each("dedup_open_claims_past_lease", "Of these, those whose lease has run out unanswered.",
         [](const OpenClaims& of) { return of.past_lease; });
    each("dedup_open_claims_held", "Of these, those that wait for a decision.",
         [](const OpenClaims& of) { return of.held; });
    each("dedup_open_claims_oldest_timestamp_seconds",
         "When the one that has been in flight longest was claimed.",
         [](const OpenClaims& of) { return seconds(of.oldest_ms); });
    return page.take();
}

}  // namespace dedup
