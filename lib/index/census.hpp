// How many streams a segment holds, by namespace and state: what makes a sweep's report exact
// without reading the records.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "dedup/error.hpp"
#include "dedup/sweep.hpp"

namespace dedup {

// Counts by namespace.
using Tally = std::map<std::string, StateCounts, std::less<>>;
// The same for several segments, by id.
using SegmentTallies = std::map<std::uint64_t, Tally>;

// That of segment `id`; empty if there is none.
[[nodiscard]] const Tally& tally_of(const SegmentTallies& tallies, std::uint64_t id);

[[nodiscard]] inline StateCounts& counts_of(Tally& tally, std::string_view ns) {
    const auto at = tally.find(ns);
    return at != tally.end() ? at->second : tally.emplace(ns, StateCounts{}).first->second;
}

[[nodiscard]] StateCounts total(const Tally& tally);
void add(Tally& to, const Tally& more);

// The streams of one segment. Each is counted under the state of its newest record there.
struct Census {
    Tally streams;     // a stream that began anew after it was swept counts again
    Tally superseded;  // of them, those with a newer record in a later segment
    Tally removed;     // of them, those that sweeps have removed

    // Those whose head is in the segment, and that no sweep has removed.
    [[nodiscard]] Tally live() const;

    bool operator==(const Census&) const = default;
};

[[nodiscard]] std::string encode_census(const Census& census);
// Errors: corruption.
[[nodiscard]] Result<Census> decode_census(std::string_view bytes);

}  // namespace dedup
