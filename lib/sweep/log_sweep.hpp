// Sweeping a log store: a horizon is set, which removes all expired streams at once; what it has
// removed is counted; and then their space is given back.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "contract/capacity.hpp"
#include "engine/append.hpp"
#include "env/mutex.hpp"
#include "sweep/compact.hpp"
#include "sweep/drop.hpp"
#include "sweep/planner.hpp"

namespace dedup {

// The order of its steps is what a crash between any two of them can be recovered from:
//   1. the manifest with the horizon, durably: from here on the streams are gone
//   2. the counts and the report, in one transaction of the catalog
//   3. for what is dropped or compacted: moves, the manifest without the segments, the catalog, the
//      files
//   4. the report with what was given back
class LogSweep {
  public:
    LogSweep(StoreContext& context, ShownView& shown, const Reader& reader, StoreCatalog& catalog,
             const LogClock& clock, CommitQueue& queue, LogWriter& writer, Sealer& sealer,
             SweepPlanner& planner)
        : context_(context),
          shown_(shown),
          reader_(reader),
          catalog_(catalog),
          clock_(clock),
          writer_(writer),
          sealer_(sealer),
          planner_(planner),
          dropper_(context, reader, catalog, queue, writer) {}

    // While the store is opened, with no other thread: takes over what the catalog says, and
    // finishes what the log says and the catalog does not know, after a crash within a sweep, or
    // when the catalog has been made anew (`rebuilt`).
    [[nodiscard]] Result<void> begin(const SweepState& state, const Manifest& manifest,
                                     bool rebuilt);

    // See StreamStore::sweep; not a dry run. Not from within the progress of another one.
    [[nodiscard]] Result<SweepReport> sweep(const SweepOptions& options);

    // Makes room for as many of the appends that want it as possible, beginning with the first:
    // sweeps, and evicts if that does not help. Gives for how much it has. Each round makes more.
    // Errors: out_of_space: there never is room for the first, and nothing has been evicted; or
    // those of sweeps.
    [[nodiscard]] Result<Room> make_room(std::span<const Room> wanted, std::uint64_t round);

    // Why the last sweep failed; empty: it did not.
    [[nodiscard]] std::string error() const;
    // Of the last one, also of one that found nothing to do.
    [[nodiscard]] std::int64_t last_ms() const { return last_ms_; }

  private:
    // What a sweep does for the sake of an append.
    struct MakeRoom {
        Room evict;                   // so much at least, oldest completions first
        std::uint64_t log_bytes = 0;  // give back space until the log has so few; 0: as always
        Usage usage = {};             // filled in: of the store when the sweep is done
    };

    [[nodiscard]] Result<SweepReport> run(const SweepOptions& options, MakeRoom* room)
        DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] Result<void> run_steps(const SweepOptions& options, MakeRoom* room,
                                         SweepReport& report,
                                         std::chrono::steady_clock::time_point start)
        DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] bool has_counted_all() const DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] Result<StateCounts> remove_and_count(const SweepOptions& options, MakeRoom* room,
                                                       SweepReport& report)
        DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] Result<StateCounts> advance(const SweepOptions& options, const MakeRoom* room,
                                              SweepReport& report) DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] Result<void> advance_horizon(const SweepOptions& options, const MakeRoom* room,
                                               SweepReport& report, Now& now)
        DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] Result<void> set_horizon(const Horizon& to, Now& now, SweepReport& report);
    [[nodiscard]] Result<bool> try_to_set_horizon(const Turn& turn, Horizon to, Now& now,
                                                  SweepReport& report);
    [[nodiscard]] Result<void> keep_report(SweepReport& report) DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] Result<void> write_counts(const std::map<std::uint64_t, Counted>& counted,
                                            const SweepState& state, const SweepReport* report);
    [[nodiscard]] Result<Usage> usage() const;
    [[nodiscard]] std::uint64_t log_bytes_now() const;

    StoreContext& context_;
    ShownView& shown_;
    const Reader& reader_;
    StoreCatalog& catalog_;
    const LogClock& clock_;
    LogWriter& writer_;
    Sealer& sealer_;
    SweepPlanner& planner_;  // whose mutex lets one sweep run at a time, and guards what follows
    Dropper dropper_;
    SweepState state_;  // as in the catalog

    std::atomic<std::int64_t> last_ms_{0};
    mutable Mutex error_mutex_;
    std::string error_ DEDUP_GUARDED_BY(error_mutex_);
};

// Appends as `appender` does, and makes room for what finds none. Each round either answers an item
// or has made room for one, which other appends may have taken; so the rounds without an answer are
// bounded, and each makes more room than the one before.
void make_room_and_append(Appender& appender, LogSweep& sweep, std::span<const Append> batch,
                          Batch mode, Refused refused, std::vector<Result<std::uint64_t>>& results);

}  // namespace dedup
