// Sweeps and statistics: reports that own what their pointers lead to.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <stop_token>
#include <vector>

#include "c/border.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

dedup_bytes text_in(const std::string& text) {
    return {text.c_str(), text.size()};
}

dedup_counts counts_in(const StateCounts& counts) {
    return {counts.in_flight, counts.completed, counts.released};
}

// Points into `from`, which stays where it is.
struct OwnedSweepReport : dedup_sweep_report {
    explicit OwnedSweepReport(SweepReport report);

    const SweepReport from;
    std::vector<dedup_swept_namespace> swept;
    std::vector<const dedup_swept_namespace*> swept_at;
    std::vector<dedup_unanswered> claims;
    std::vector<const dedup_unanswered*> claims_at;
};

OwnedSweepReport::OwnedSweepReport(SweepReport report)
    : dedup_sweep_report{}, from(std::move(report)) {
    now_ms = from.now_ms;
    dry_run = from.dry_run ? 1 : 0;
    finished = from.finished ? 1 : 0;
    if (from.withheld) {
        withheld = 1;
        withheld_by_reset = from.withheld->by_reset ? 1 : 0;
        withheld_jump_from_ms = from.withheld->jump_from_ms;
        withheld_since_ms = from.withheld->since_ms;
        withheld_until_ms = from.withheld->until_ms;
    }
    removed = counts_in(from.removed);
    retained = counts_in(from.retained);
    evicted = from.evicted;
    next_expiry_ms = from.next_expiry_ms.value_or(0);
    segments_dropped = from.segments_dropped;
    segments_compacted = from.segments_compacted;
    records_dropped = from.records_dropped;
    records_moved = from.records_moved;
    bytes_before = from.bytes_before;
    bytes_after = from.bytes_after;
    longest_pause_us = from.longest_pause_us;
    duration_us = from.duration_us;
    damaged = from.damaged;
    damage = text_in(from.damage);
    swept.reserve(from.namespaces.size());
    for (const SweptNamespace& each : from.namespaces) {
        swept.push_back({text_in(each.ns), counts_in(each.removed), counts_in(each.retained)});
        swept_at.push_back(&swept.back());
    }
    claims.reserve(from.unanswered.size());
    for (const UnansweredClaim& each : from.unanswered) {
        claims.push_back({text_in(each.ns), text_in(each.key), text_in(each.owner),
                          each.claim_sequence, each.claimed_at_ms, each.expired_at_ms, each.attempt,
                          0, text_in(each.event_id), text_in(each.note)});
        claims_at.push_back(&claims.back());
    }
    namespaces_count = swept_at.size();
    namespaces = swept_at.data();
    unanswered_count = claims_at.size();
    unanswered = claims_at.data();
}

struct OwnedStats : dedup_stats {
    explicit OwnedStats(StoreStats stats);

    const StoreStats from;
};

OwnedStats::OwnedStats(StoreStats stats) : dedup_stats{}, from(std::move(stats)) {
    store_id = text_in(from.store_id);
    streams = {from.in_flight, from.completed, from.released};
    records = from.records;
    last_sequence = from.last_sequence;
    time_high_ms = from.time_high_ms;
    clock_ms = from.clock_ms;
    withheld = from.withheld ? 1 : 0;
    withheld_until_ms = from.withheld ? from.withheld->until_ms : 0;
    catalog_rebuilt = from.catalog_rebuilt ? 1 : 0;
    segments_sealed = from.segments_sealed;
    segments_unsealed = from.segments_unsealed;
    log_bytes = from.log_bytes;
    catalog_bytes = from.catalog_bytes;
    tail_bytes = from.tail_bytes;
    memory_bytes = from.memory_bytes;
    torn_bytes_dropped = from.torn_bytes_dropped;
    evicted = from.evicted;
    last_sweep_ms = from.last_sweep_ms;
    damaged = from.damaged;
    damage = text_in(from.damage);
    background_error = text_in(from.background_error);
    sweep_error = text_in(from.sweep_error);
    write_error = text_in(from.write_error);
}

// `stop` ends the sweep when the callback says so.
Result<SweepOptions> sweep_options(const dedup_sweep_options* given, std::stop_source& stop) {
    const dedup_sweep_options taken = DEDUP_TRY(take_struct(given, "dedup_sweep_options"));
    SweepOptions options;
    options.dry_run = DEDUP_TRY(flag(taken.dry_run, "dry_run"));
    options.trust_clock = DEDUP_TRY(flag(taken.trust_clock, "trust_clock"));
    options.compact = DEDUP_TRY(flag(taken.compact, "compact"));
    options.count_retained = !DEDUP_TRY(flag(taken.skip_retained, "skip_retained"));
    if (taken.now_ms < 0 || taken.time_max_ms < 0) {
        return invalid(fmt::format("now_ms is {} and time_max_ms {}; neither may be negative",
                                   taken.now_ms, taken.time_max_ms));
    }
    if (taken.now_ms != 0) {
        options.now_ms = taken.now_ms;
    }
    options.time_max = std::chrono::milliseconds{taken.time_max_ms};
    options.records_max = taken.records_max;
    options.bytes_max = taken.bytes_max;
    if (taken.unanswered_max != 0) {
        options.unanswered_max = taken.unanswered_max;
    }
    if (taken.progress != nullptr) {
        options.stop = stop.get_token();
        options.progress = [progress = taken.progress, context = taken.context, &stop](
                               std::uint64_t done, std::uint64_t total) {
            if (progress(context, done, total) != 0) {
                stop.request_stop();
            }
        };
    }
    return options;
}

}  // namespace
}  // namespace dedup

using namespace dedup;

int dedup_sweep(dedup_store* store, const dedup_sweep_options* options, dedup_sweep_report** report,
                dedup_error* error) {
    return across(
        error, Effect::possible,
        [&]() -> Result<void> {
            StreamStore& in = *DEDUP_TRY(use(store));
            std::stop_source stop;
            SweepReport done = DEDUP_TRY(in.sweep(DEDUP_TRY(sweep_options(options, stop))));
            if (report != nullptr) {
                *report = std::make_unique<OwnedSweepReport>(std::move(done)).release();
            }
            return {};
        },
        report);
}

void dedup_sweep_report_free(dedup_sweep_report* report) {
    delete static_cast<OwnedSweepReport*>(report);
}

int dedup_get_stats(dedup_store* store, dedup_stats** stats, dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            StreamStore& in = *DEDUP_TRY(use(store));
            DEDUP_TRY(needs(stats, "stats"));
            *stats = std::make_unique<OwnedStats>(DEDUP_TRY(in.stats())).release();
            return {};
        },
        stats);
}

void dedup_stats_free(dedup_stats* stats) {
    delete static_cast<OwnedStats*>(stats);
}
