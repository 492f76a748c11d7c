// Which segments a sweep drops and which it compacts: tables of numbers, without a store.
#include "sweep/plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace dedup {
namespace {

constexpr std::uint64_t kSegmentBytes = 64'000'000;
constexpr std::int64_t kNowMs = 1'000'000;
constexpr std::int64_t kDayMs = 86'400'000;

// A segment of 1,000 completed records, of which so many live.
PlanSegment segment(std::uint64_t id, std::uint64_t live, std::uint64_t bytes = kSegmentBytes,
                    std::int64_t expires_ms = kNowMs + kDayMs) {
    PlanSegment segment;
    segment.row.id = id;
    segment.row.bytes = bytes;
    segment.row.versions.completed = 1000;
    segment.row.version_bytes.completed = bytes;
    segment.row.expires_max_ms = expires_ms;
    segment.live.completed = live;
    return segment;
}

PlanInput input(std::vector<PlanSegment> sealed) {
    PlanInput input;
    input.sealed = std::move(sealed);
    input.newest = segment(1000, 0, 4096).row;
    input.newest_live.completed = 1000;
    input.segment_bytes = kSegmentBytes;
    input.now_ms = kNowMs;
    return input;
}

// As "3 5c": segments in the plan's order, with a c if they are compacted.
std::string text(const std::vector<PlannedSegment>& planned) {
    std::string text;
    for (const PlannedSegment& segment : planned) {
        text += (text.empty() ? "" : " ") + std::to_string(segment.row.id) +
                (segment.compact ? "c" : "");
    }
    return text;
}

TEST_CASE("plan: what lives stays, what is empty is dropped, what is mostly garbage is compacted") {
    struct Row {
        const char* what;
        std::vector<PlanSegment> sealed;
        const char* plan;
    };
    const Row rows[] = {
        {"nothing", {}, ""},
        {"all of it lives", {segment(1, 1000), segment(2, 1000)}, ""},
        {"empty ones, oldest first", {segment(1, 0), segment(2, 1000), segment(3, 0)}, "1 3"},
        {"less than a sixth of the log is garbage",
         {segment(1, 600), segment(2, 1000), segment(3, 1000)},
         ""},
        {"more than a sixth", {segment(1, 300), segment(2, 1000), segment(3, 1000)}, "1c"},
        {"enough of it, and no more",
         {segment(1, 300), segment(2, 310), segment(3, 1000), segment(4, 1000), segment(5, 1000)},
         "1c"},
        {"empty ones first", {segment(1, 100), segment(2, 0)}, "2 1c"},
        {"of equal ones the older", {segment(1, 300), segment(2, 300)}, "1c 2c"},
        {"what is about to expire is worth less",
         {segment(1, 300, kSegmentBytes, kNowMs + 1), segment(2, 400), segment(3, 1000)},
         "2c 1c"},
    };
    for (const Row& row : rows) {
        CAPTURE(std::string(row.what));
        CHECK(text(plan_segments(input(row.sealed))) == std::string(row.plan));
    }
    // The log is mostly garbage, but of the newest segment: nothing is gained by moving the other.
    PlanInput newest = input({segment(1, 900)});
    newest.newest = segment(1000, 0).row;
    newest.newest_live = {};
    CHECK(plan_segments(newest).empty());
}

TEST_CASE("plan: a segment without live streams that hides an older record is moved out of first") {
    PlanInput with = input({segment(1, 900), segment(2, 0), segment(3, 0)});
    std::vector<std::uint64_t> asked;
    with.may_show = [&](const PlanSegment& older) {
        asked.push_back(older.row.id);
        return true;
    };
    const auto planned = plan_segments(with);
    CHECK(std::ranges::count_if(planned, [](const auto& s) { return !s.compact; }) == 0);
    CHECK(asked == std::vector<std::uint64_t>{1});  // once is enough

    with.may_show = [](const PlanSegment&) { return false; };
    CHECK(text(plan_segments(with)) == "2 3");
}

TEST_CASE("plan: nothing is moved out of a damaged segment; without live streams it is dropped") {
    PlanSegment damaged = segment(1, 100);
    damaged.damaged = true;
    CHECK(text(plan_segments(input({damaged}))).empty());
    damaged.live = {};
    CHECK(text(plan_segments(input({damaged}))) == "1");
}

TEST_CASE("plan: for a goal of bytes garbage is given back however little it is") {
    PlanInput with = input({segment(1, 990), segment(2, 980), segment(3, 1000)});
    CHECK(text(plan_segments(with)).empty());
    with.bytes_goal = kSegmentBytes;
    CHECK(text(plan_segments(with)) == "2c 1c");
    with.bytes_goal = 10 * kSegmentBytes;  // reached already
    CHECK(text(plan_segments(with)).empty());
}

TEST_CASE(
    "plan: a compacting sweep leaves a 32nd, and merges small segments once there are eight") {
    PlanInput with = input({segment(1, 900), segment(2, 1000)});
    with.compact = true;
    CHECK(text(plan_segments(with)) == "1c");

    std::vector<PlanSegment> small;
    for (std::uint64_t id = 1; id <= 7; ++id) {
        small.push_back(segment(id, 1000, kSegmentBytes / 64));
    }
    with = input(small);
    with.compact = true;
    CHECK(plan_segments(with).empty());
    small.push_back(segment(8, 1000, kSegmentBytes / 64));
    with = input(small);
    with.compact = true;
    CHECK(plan_segments(with).size() == 8);
}

TEST_CASE("plan: the newest segment is ended if it is large, and mostly garbage, as is the log") {
    struct Row {
        const char* what;
        std::uint64_t bytes;
        std::uint64_t live;
        std::uint64_t log_live;  // of a sealed segment beside it
        bool ends;
    };
    const Row rows[] = {
        {"it lives", kSegmentBytes / 2, 1000, 1000, false},
        {"it is garbage", kSegmentBytes / 2, 10, 1000, true},
        {"it is small", 4096, 10, 1000, false},
        {"it is garbage, and next to nothing of the log", 2 << 20, 10, 1000, false},
    };
    for (const Row& row : rows) {
        CAPTURE(std::string(row.what));
        PlanInput with = input({segment(1, row.log_live)});
        with.newest = segment(1000, 0, row.bytes).row;
        with.newest_live.completed = row.live;
        CHECK(ends_newest(with) == row.ends);
    }
}

}  // namespace
}  // namespace dedup
