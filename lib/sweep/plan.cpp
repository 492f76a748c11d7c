#include "sweep/plan.hpp"

#include <algorithm>
#include <utility>

namespace dedup {
namespace {

// Segments are compacted while more than this part of the log is garbage. With the catalog a store
// stays below twice its live records.
constexpr std::uint64_t kGarbageShare = 6;
constexpr std::uint64_t kGarbageShareCompact = 32;  // what sweeps themselves write is garbage, too
// Segments that never expire are weighed as if they expired in 30 days.
constexpr std::int64_t kWasteTimeMaxMs = std::int64_t{30} * 24 * 3'600'000;
// A compacting sweep merges segments of less than this part of a segment once it finds so many.
constexpr std::uint64_t kSmallShare = 2;
constexpr std::ptrdiff_t kSmallSegmentsMax = 8;
// A newest segment of fewer bytes than this, or than these parts of a segment and of the log, is
// not ended for its garbage.
constexpr std::uint64_t kEndedBytesMin = 1024 * 1024;
constexpr std::uint64_t kEndedSegmentShare = 4;
constexpr std::uint64_t kEndedLogShare = 128;
// With a goal it is, but for next to nothing: a header and a manifest are not given back.
constexpr std::uint64_t kEndedForGoalBytesMin = 1024;

// Of the log or a part of it.
struct Space {
    std::uint64_t bytes = 0;
    std::uint64_t live = 0;  // of them, those of live records

    Space& operator+=(const Space& more) {
        bytes += more.bytes;
        live += more.live;
        return *this;
    }
    // Whether more than this part of it is garbage.
    [[nodiscard]] bool is_wasted(std::uint64_t share) const {
        return (bytes - live) * share > bytes;
    }
};

Space space(const SegmentRow& row, const StateCounts& live) {
    return {row.bytes, row.bytes_of(live)};
}

std::uint64_t garbage_share(const PlanInput& input) {
    return input.compact ? kGarbageShareCompact : kGarbageShare;
}

// The log as it is without the sealed segments that have no live streams.
Space log_space(const PlanInput& input) {
    Space log = space(input.newest, input.newest_live);
    // What is garbage in the other unsealed ones is not dropped now.
    log += {input.unsealed_bytes, input.unsealed_bytes};
    for (const PlanSegment& sealed : input.sealed) {
        log += sealed.live.total() == 0 ? Space() : space(sealed.row, sealed.live);
    }
    return log;
}

// The space that moving a segment's live records saves, times how long it would have been wasted,
// over what it costs. So what is about to expire altogether is left to do that.
std::pair<double, std::uint64_t> worth(const PlannedSegment& segment, std::int64_t now_ms) {
    const auto [bytes, live] = space(segment.row, segment.live);
    const std::int64_t time_ms =
        std::clamp<std::int64_t>(segment.row.expires_max_ms - now_ms, 1, kWasteTimeMaxMs);
    return {static_cast<double>(bytes - live) * static_cast<double>(time_ms) /
                static_cast<double>(live + 1),
            ~segment.row.id};  // of equal ones the oldest
}

// Those that can be dropped as they are, and the others that can be moved out of.
struct Sorted {
    std::vector<PlannedSegment> empty;
    std::vector<PlannedSegment> others;
};

Sorted sort_out(const PlanInput& input) {
    Sorted sorted;
    // An older segment that stays has a record that is not removed, only superseded.
    bool older_may_show = false;
    std::vector<const PlanSegment*> staying;  // not looked at yet
    for (const PlanSegment& sealed : input.sealed) {
        const bool empty = sealed.live.total() == 0;
        if (empty && !older_may_show) {
            older_may_show = std::ranges::any_of(
                staying, [&](const PlanSegment* older) { return input.may_show(*older); });
            staying.clear();
        }
        // What is damaged cannot be moved, and may be what hides an older record.
        const bool compact = !empty || older_may_show;
        const bool stays = compact && sealed.damaged;
        if (!stays) {
            (empty ? sorted.empty : sorted.others).push_back({sealed.row, compact, sealed.live});
        }
        if (!empty || stays) {
            staying.push_back(&sealed);
        }
    }
    return sorted;
}

}  // namespace

std::vector<PlannedSegment> plan_segments(const PlanInput& input) {
    auto [planned, others] = sort_out(input);
    std::ranges::sort(others, std::ranges::greater(),
                      [&](const PlannedSegment& segment) { return worth(segment, input.now_ms); });
    const auto is_small = [&](const PlannedSegment& segment) {
        return input.compact && segment.row.bytes * kSmallShare < input.segment_bytes;
    };
    const std::uint64_t share = garbage_share(input);
    Space log = log_space(input);
    const bool merge = std::ranges::count_if(others, is_small) >= kSmallSegmentsMax;
    for (const PlannedSegment& best : others) {
        const Space here = space(best.row, best.live);
        const bool needed =
            input.bytes_goal != 0 && log.bytes > input.bytes_goal && here.bytes > here.live;
        if (needed || (log.is_wasted(share) && here.is_wasted(share)) ||
            (merge && is_small(best))) {
            log.bytes -= here.bytes - here.live;
            planned.push_back(best);
        }
    }
    return std::move(planned);
}

std::uint64_t ended_bytes_min(std::uint64_t segment_bytes) {
    return segment_bytes == 0 ? kEndedBytesMin
                              : std::min(kEndedBytesMin, segment_bytes / kEndedSegmentShare);
}

bool ends_newest(const PlanInput& input) {
    const SegmentRow& row = input.newest;
    const Space newest = space(row, input.newest_live);
    const Space log = log_space(input);
    if (input.bytes_goal != 0 && newest.bytes > newest.live + kEndedForGoalBytesMin &&
        log.live + (newest.bytes - newest.live) > input.bytes_goal) {
        return true;
    }
    // A segment whose records are all live has the manifests of sweeps for garbage. One that goes
    // on from its limit has just moved these records there: were it to end the segment again and
    // again, it would never be done.
    const bool compact = input.compact && row.records() > input.newest_live.total();
    const std::uint64_t bytes_min =
        compact ? 0 : std::max(ended_bytes_min(input.segment_bytes), log.bytes / kEndedLogShare);
    const std::uint64_t share = compact ? kGarbageShareCompact : kGarbageShare;
    return newest.bytes >= bytes_min && newest.is_wasted(share) && log.is_wasted(share);
}

}  // namespace dedup
