// One sweep, as far as it has come.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "contract/sweep_tally.hpp"
#include "metrics/counter.hpp"
#include "postgres/postgres_store.hpp"

namespace dedup::pg {

struct PostgresStore::Sweeping {
    const SweepOptions& options;
    std::int64_t cut_ms = 0;  // what expired before this has expired, its grace included
    TimePoint start = std::chrono::steady_clock::now();
    SweepTally tally;
    SweepReport report = {};
    std::optional<std::int64_t> id = {};  // of the report, once something was removed

    // The report as it is so far.
    [[nodiscard]] SweepReport written(bool interrupted) const {
        SweepReport now = report;
        tally.write(now);
        now.interrupted = interrupted;
        now.duration_us = microseconds_since(start);
        return now;
    }
    [[nodiscard]] bool should_stop() const {
        return options.stop.stop_requested() ||
               (options.time_max.count() > 0 &&
                std::chrono::steady_clock::now() - start >= options.time_max);
    }
};

}  // namespace dedup::pg
