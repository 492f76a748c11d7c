// What a count looks for, and what it finds.
#pragma once

#include <cstdint>
#include <map>

#include "store/log_store.hpp"

namespace dedup {

// The entries of a sealed segment, each under the state of its record. With the streams that began
// anew in the segment itself, which are removed, they are all of its streams.
struct Recounted {
    Tally live;                 // the record is its stream's head, and the horizon leaves it
    Tally superseded;           // it is not the head, and the horizon leaves it
    Tally removed;              // the horizon removes it, whether it is the head or not
    std::uint64_t damaged = 0;  // it cannot be read, and counts as live
    std::int64_t expires_min_ms = INT64_MAX;  // of those that the horizon leaves
};

[[nodiscard]] Counted counted_anew(const Recounted& now, const Tally& in_tail);

struct LogStore::Count {
    // Claims in flight to be listed, by sequence.
    struct Unanswered {
        std::size_t claims_max = 0;
        std::map<std::uint64_t, UnansweredClaim> claims;

        [[nodiscard]] bool wants(std::uint64_t sequence) const {
            return claims.size() < claims_max ||
                   (claims_max != 0 && sequence < claims.rbegin()->first);
        }
        void offer(const Located& at);
    };

    const View& view;
    const TailNumbers& tail;
    Horizon from;  // what this removes has been counted before
    Horizon to;
    std::uint64_t as_of = 0;  // the last sequence when `to` was set
    // The catalog is being made anew. Links from segments that are gone are missing, so the entries
    // of all segments are looked at one by one.
    bool rebuilt = false;
    SweepReport& report;
    // Whether the report says when the next sweep has something to remove, also if this one has
    // removed nothing. Looking for that may take a walk through all entries.
    bool tells_next = true;
    Unanswered unanswered = {};
    std::map<std::uint64_t, Counted> counted = {};
    Tally removed = {};
    Tally retained = {};
    StateCounts newest_live = {};  // of the streams retained, those in the newest segment

    Result<void> remove(const Located& at);
};

}  // namespace dedup
