// Which segments a sweep drops, and which it compacts. Numbers in, a list out: reads nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "index/segment_row.hpp"

namespace dedup {

// What a plan needs to know of one sealed segment.
struct PlanSegment {
    SegmentRow row;
    StateCounts live;
    bool damaged = false;  // somewhere; then nothing can be moved out of it
};

struct PlanInput {
    std::vector<PlanSegment> sealed;  // oldest first
    SegmentRow newest;                // the one that is written to
    StateCounts newest_live;
    std::uint64_t unsealed_bytes = 0;  // of the other unsealed segments
    std::uint64_t segment_bytes = 0;   // how long segments become; 0: not known
    std::int64_t now_ms = 0;
    bool compact = false;          // SweepOptions::compact
    std::uint64_t bytes_goal = 0;  // compact until the log has at most so many bytes; 0: no goal
    // Whether a segment may hold a record that would show if all newer ones of its stream went:
    // see count.hpp. Asked only once that matters.
    std::function<bool(const PlanSegment&)> may_show = [](const PlanSegment&) { return false; };
};

struct PlannedSegment {
    SegmentRow row;
    bool compact = false;  // something may have to be moved; else it is dropped as it is
    StateCounts live;
};

// Those to drop come first, oldest first; then those to compact, the best first.
[[nodiscard]] std::vector<PlannedSegment> plan_segments(const PlanInput& input);

// A newest segment of fewer bytes is not worth ending.
[[nodiscard]] std::uint64_t ended_bytes_min(std::uint64_t segment_bytes);

// Whether the newest segment is to be ended for its garbage, so that it can be compacted too.
[[nodiscard]] bool ends_newest(const PlanInput& input);

}  // namespace dedup
