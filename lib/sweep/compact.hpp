// Giving back the space of what has been swept away.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/append.hpp"
#include "sweep/drop.hpp"
#include "sweep/planner.hpp"

namespace dedup {

// One sweep's work on the files. Segments without live streams are dropped. While too much of the
// log is garbage, the segment where that saves most is compacted: its live heads are appended again
// at the tail with their sequences, and then it is dropped too.
//
// Holds no view while it waits for anything: that would keep files from being given back.
class Compactor {
  public:
    // With `bytes_goal`, segments are compacted until the log has at most so many bytes, as far as
    // that can be, however little of them is garbage. 0: there is no goal.
    Compactor(StoreContext& context, const Reader& reader, LogWriter& writer, Sealer& sealer,
              SweepPlanner& planner, Dropper& dropper, const SweepOptions& options,
              std::uint64_t bytes_goal, SweepState& state, SweepReport& report)
        : context_(context),
          reader_(reader),
          writer_(writer),
          sealer_(sealer),
          planner_(planner),
          dropper_(dropper),
          options_(options),
          bytes_goal_(bytes_goal),
          state_(state),
          report_(report) {}

    // The caller holds the planner's mutex. Stops early at a limit, or when the disk has no room to
    // move records to. `newest_live`: the live streams of the newest segment.
    Result<void> run(const StateCounts& newest_live) DEDUP_ANNOTATION(no_thread_safety_analysis);

  private:
    struct Moving {
        StreamId id;
        std::uint64_t sequence = 0;
        std::uint32_t offset = 0;
        State state = State::in_flight;
        bool shield = false;  // removed itself, but an older record would come back without it
        std::string encoded;
    };

    [[nodiscard]] bool at_limit() const;
    [[nodiscard]] Result<void> show_progress(std::uint64_t bytes_more) const;
    [[nodiscard]] PlanInput plan_input(const Now& now, const StateCounts& newest_live) const;
    Result<void> seal_unsealed(std::uint64_t newest);
    Result<void> drop_empty(std::span<const PlannedSegment> planned)
        DEDUP_REQUIRES(planner_.mutex());
    Result<void> compact_all(std::span<const PlannedSegment> planned)
        DEDUP_REQUIRES(planner_.mutex());
    Result<void> drop(std::span<const PlannedSegment> planned) DEDUP_REQUIRES(planner_.mutex());
    Result<bool> compact(const PlannedSegment& planned) DEDUP_REQUIRES(planner_.mutex());
    [[nodiscard]] Result<std::vector<std::uint32_t>> places_of_shields(
        const View& view, const SealedSegment& sealed) const;
    Result<bool> move_all(const PlannedSegment& planned) DEDUP_REQUIRES(planner_.mutex());
    Result<void> pick(const View& view, const Segment& segment, const Frame& frame,
                      std::vector<Moving>& moving, std::uint64_t& moved_before);
    Result<bool> shields(const View& view, const Segment& segment, const StreamId& id,
                         StreamKey stream) const;
    Result<void> move(const Segment& from, std::vector<Moving>& moving);
    Result<void> move_in_turn(const Turn& turn, const Segment& from,
                              std::span<const Moving> moving);

    StoreContext& context_;
    const Reader& reader_;
    LogWriter& writer_;
    Sealer& sealer_;
    SweepPlanner& planner_;
    Dropper& dropper_;
    const SweepOptions& options_;
    const std::uint64_t bytes_goal_;
    SweepState& state_;
    SweepReport& report_;
    std::uint64_t bytes_ = 0;        // given back so far
    std::uint64_t bytes_total_ = 0;  // of the segments to drop
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace dedup
