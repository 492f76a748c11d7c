// What is known of one sealed segment, in numbers.
#pragma once

#include <cstdint>

#include "index/census.hpp"

namespace dedup {

// One sealed segment. The layout on disk is this structure, followed by its checksum.
struct SegmentRow {
    std::uint64_t id = 0;
    std::uint64_t bytes = 0;    // exact length of the file
    std::uint64_t entries = 0;  // streams with a record in it: the entries of its index
    std::uint64_t next_sequence = 1;
    std::int64_t time_high_ms = 0;
    std::int64_t expires_min_ms = INT64_MAX;  // nothing in it expires before; moves up with sweeps
    std::int64_t expires_max_ms = 0;  // latest expiry of its records; INT64_MAX: one never expires
    // All versions, by the state that each gives its stream, and the bytes that these take.
    StateCounts versions{};
    StateCounts version_bytes{};
    // The totals of its census.
    StateCounts streams{};
    StateCounts superseded{};
    StateCounts removed{};

    [[nodiscard]] StateCounts live() const {
        StateCounts live = streams;
        live -= superseded;
        live -= removed;
        return live;
    }
    [[nodiscard]] std::uint64_t records() const { return versions.total(); }
    // About what the records of so many streams take of its bytes: records of one state are taken
    // to be of one size.
    [[nodiscard]] std::uint64_t bytes_of(const StateCounts& counts) const;

    bool operator==(const SegmentRow&) const = default;
};
static_assert(sizeof(SegmentRow) == 22 * 8);

}  // namespace dedup
