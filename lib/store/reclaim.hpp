// Giving back the space of what has been swept away.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "store/count.hpp"
#include "store/log_store.hpp"

namespace dedup {

// One sweep's work on the files. Segments without live streams are dropped. While too much of the
// log is garbage, the segment where that saves most is compacted: its live heads are
// appended again at the tail with their sequences, and then it is dropped too.
class LogStore::Reclaim {
  public:
    // With `bytes_goal`, segments are compacted until the log has at most so many bytes, as far as
    // that can be, however little of them is garbage. 0: there is no goal.
    Reclaim(LogStore& store, const SweepOptions& options, SweepReport& report,
            std::uint64_t bytes_goal);

    // Says in the report what run() would do once `count` was true.
    void plan(const Count& count);
    // Stops early at a limit, or when the disk has no room to move records to.
    // `newest_live`: the live streams of the newest segment.
    Result<void> run(const StateCounts& newest_live);

  private:
    // (No snapshot: that would keep the files, and the catalog's pages, from being given back.)
    struct Candidate {
        SegmentRow row;
        bool compact = false;  // something may have to be moved
        StateCounts live;
    };
    struct Moving {
        StreamId id;
        std::uint64_t sequence = 0;
        std::uint32_t offset = 0;
        State state = State::in_flight;
        bool shield = false;  // removed itself, but an older record would come back without it
        std::string encoded;
    };

    [[nodiscard]] bool at_limit() const;
    [[nodiscard]] std::uint64_t moved_from(std::uint64_t id) const;
    [[nodiscard]] std::uint64_t ended_bytes_min() const;
    [[nodiscard]] Result<void> show_progress(std::uint64_t bytes_more) const;
    [[nodiscard]] std::vector<Candidate> candidates(const View& view, const TailNumbers& tail,
                                                    const Horizon& horizon,
                                                    const std::map<std::uint64_t, Counted>& counted,
                                                    const StateCounts& newest_live) const;
    Result<void> drop_empty(std::span<const Candidate> candidates);
    [[nodiscard]] std::uint64_t newest_if_garbage(const View& view, const TailNumbers& tail,
                                                  const std::map<std::uint64_t, Counted>& counted,
                                                  const StateCounts& newest_live) const;
    Result<void> seal_tail(std::uint64_t newest);
    Result<void> compact_all(std::span<const Candidate> candidates);
    Result<void> drop(std::span<const Candidate> candidates);
    Result<bool> compact(const Candidate& candidate);
    [[nodiscard]] Result<std::vector<std::uint32_t>> places_of_shields(
        const View& view, const SealedSegment& sealed) const;
    Result<bool> move_all(const Candidate& candidate);
    Result<void> pick(const View& view, const Segment& segment, const Frame& frame,
                      std::vector<Moving>& moving, Compacted& compacted);
    Result<bool> shields(const View& view, const Segment& segment, const StreamId& id,
                         StreamKey stream) const;
    Result<void> move(const Segment& from, std::vector<Moving>& moving);
    Result<void> move_as_leader(const Segment& from, std::span<const Moving> moving);

    LogStore& store_;
    const SweepOptions& options_;
    const std::uint64_t garbage_share_;
    SweepReport& report_;
    const std::uint64_t bytes_goal_;
    std::uint64_t bytes_ = 0;        // given back so far
    std::uint64_t bytes_total_ = 0;  // of the segments to drop
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace dedup
