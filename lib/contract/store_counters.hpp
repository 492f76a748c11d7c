// What a store has done; see StoreMetrics.
#pragma once

#include <cstdint>
#include <span>

#include "dedup/store.hpp"
#include "metrics/counter.hpp"

namespace dedup {

struct StoreCounters {
    Counter appended;
    Counter conflicts;
    Counter refused;
    Counter bytes_written;
    Counter flushes;
    Counter sweeps;
    Counter sweeps_failed;
    Counter streams_removed;
    CountedHistogram group_records;
    CountedHistogram flush_ns;
    CountedHistogram sweep_us;

    // Counts what was not appended; what was is counted by the group.
    void count_failed(std::span<const Result<std::uint64_t>> results) {
        std::uint64_t lost = 0;
        std::uint64_t failed = 0;
        for (const auto& result : results) {
            if (!result) {
                ++(result.error().code == Code::sequence_conflict ? lost : failed);
            }
        }
        if (lost + failed != 0) {
            conflicts.add(lost);
            refused.add(failed);
        }
    }

    void count_group(std::uint64_t records) {
        appended.add(records);
        group_records.add(records);
    }

    void count_sweep(const SweepReport& report) {
        sweeps.add(1);
        streams_removed.add(report.removed.total());
        sweep_us.add(report.duration_us);
    }

    [[nodiscard]] StoreMetrics snapshot() const {
        return {.appended = appended.value(),
                .conflicts = conflicts.value(),
                .refused = refused.value(),
                .bytes_written = bytes_written.value(),
                .flushes = flushes.value(),
                .sweeps = sweeps.value(),
                .sweeps_failed = sweeps_failed.value(),
                .streams_removed = streams_removed.value(),
                .group_records = group_records.snapshot(),
                .flush_ns = flush_ns.snapshot(),
                .sweep_us = sweep_us.snapshot()};
    }
};

}  // namespace dedup
