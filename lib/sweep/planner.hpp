// What a sweep would do: where its horizon goes, and which segments it gives back.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "contract/capacity.hpp"
#include "engine/count.hpp"
#include "engine/log_clock.hpp"
#include "engine/reader.hpp"
#include "engine/store_catalog.hpp"
#include "env/owned_mutex.hpp"
#include "sweep/plan.hpp"

namespace dedup {

// One sweep, or dry run, at a time: who calls holds the mutex, but for dry_run(), which takes it.
// It is the first in the order of locks.
class SweepPlanner {
  public:
    SweepPlanner(StoreContext& context, const Reader& reader, const StoreCatalog& catalog,
                 const LogClock& clock)
        : context_(context), reader_(reader), catalog_(catalog), clock_(clock) {}

    // Also held while a sweep calls back.
    [[nodiscard]] OwnedMutex& mutex() DEDUP_ANNOTATION(lock_returned(mutex_)) { return mutex_; }

    // What a sweep would do now; changes nothing. `segment_bytes` as in PlanInput.
    [[nodiscard]] Result<SweepReport> dry_run(const SweepOptions& options,
                                              std::uint64_t segment_bytes);

    // The horizon as of the report's time, unless that is withheld, and with so many completed
    // streams more behind it; the view's own if that would remove nothing. Nothing else removes
    // anything.
    [[nodiscard]] Result<Horizon> next_horizon(const Now& now, const SweepReport& report,
                                               const Room& evict) DEDUP_REQUIRES(mutex_);

    // The numbers that a plan needs. `counted` is what the catalog does not know yet. Lives as long
    // as `now`.
    [[nodiscard]] PlanInput plan_input(const Now& now, const Horizon& horizon,
                                       const std::map<std::uint64_t, Counted>& counted,
                                       const StateCounts& newest_live) const;

    // How far sweeps have got with a segment that is still there.
    struct Compacted {
        std::uint64_t offset = kSegmentHeaderBytes;
        std::uint64_t moved = 0;  // records
    };
    [[nodiscard]] Compacted& compacted(std::uint64_t segment) DEDUP_REQUIRES(mutex_) {
        return compacted_[segment];
    }
    void forget_compacted(std::uint64_t segment) DEDUP_REQUIRES(mutex_) {
        compacted_.erase(segment);
    }
    // How many records of a segment have been moved out of it.
    [[nodiscard]] std::uint64_t moved_from(std::uint64_t segment) const DEDUP_REQUIRES(mutex_);

  private:
    [[nodiscard]] Result<void> plan(const SweepOptions& options, std::uint64_t segment_bytes,
                                    SweepReport& report) DEDUP_REQUIRES(mutex_);
    [[nodiscard]] Result<bool> removes_more(const View& view, const Horizon& next)
        DEDUP_REQUIRES(mutex_);
    [[nodiscard]] Result<bool> look_for_removed(const View& view, const Part& part,
                                                const Horizon& next, std::int64_t& expires_min_ms)
        DEDUP_REQUIRES(mutex_);
    [[nodiscard]] Result<std::uint64_t> oldest_completed(const View& view, Horizon horizon,
                                                         const Room& evict) const;

    StoreContext& context_;
    const Reader& reader_;
    const StoreCatalog& catalog_;
    const LogClock& clock_;

    OwnedMutex mutex_;
    std::map<std::uint64_t, Compacted> compacted_ DEDUP_GUARDED_BY(mutex_);
    // Of what this removes nothing is left, and a sealed segment has nothing that expires earlier.
    Horizon looked_to_ DEDUP_GUARDED_BY(mutex_);
    std::map<std::uint64_t, std::int64_t> looked_expires_min_ms_ DEDUP_GUARDED_BY(mutex_);
};

}  // namespace dedup
