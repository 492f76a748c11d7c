// Finding and counting what a horizon removes.
//
// A stream is removed if its head was behind the horizon when that was set. Appends go on while
// this is counted, and some begin such streams anew. So a count is as of sequence S: a stream's
// head is its newest record with a sequence of at most S, reached by links from newer ones.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/reader.hpp"

namespace dedup {

// Called for the heads that are found.
using Found = std::function<Result<void>(const Located&)>;

// Calls found(head) if the stream of `entry` was removed by `to`, and its head as of `as_of` lies
// in `segment`.
[[nodiscard]] Result<void> find_removed(const Reader& reader, const View& view,
                                        const Segment& segment, const IndexEntry& entry,
                                        const Horizon& to, std::uint64_t as_of, const Found& found);

// The streams of an unsealed segment that `to` leaves. `found` gets those that it removes, whether
// now or earlier, but for those that have begun anew.
[[nodiscard]] Result<Tally> live_in_unsealed(const Reader& reader, const Now& now, std::size_t part,
                                             const Horizon& to, const Found& found);

// The live streams of the store.
[[nodiscard]] Result<StateCounts> live_streams(const Reader& reader, const Now& now);

// Of a sealed segment; `counted` is what the catalog does not know yet.
[[nodiscard]] StateCounts live_in(const SealedSegment& sealed, const UnsealedNumbers& unsealed,
                                  const std::map<std::uint64_t, Counted>& counted = {});

[[nodiscard]] std::uint64_t log_bytes(const Reader& reader, const View& view);

// What one count looks for, and what it finds.
struct Count {
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

    const Now& now;
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

// Counts what count.to removes and count.from did not.
[[nodiscard]] Result<void> run_count(const Reader& reader, Count& count);

// The entries of a sealed segment, each under the state of its record. With the streams that began
// anew in the segment itself, which are removed, they are all of its streams.
struct Recounted {
    Tally live;                 // the record is its stream's head, and the horizon leaves it
    Tally superseded;           // it is not the head, and the horizon leaves it
    Tally removed;              // the horizon removes it, whether it is the head or not
    std::uint64_t damaged = 0;  // it cannot be read, and counts as live
    std::int64_t expires_min_ms = INT64_MAX;  // of those that the horizon leaves
};

// Counts the entries of a segment as of a sequence, one by one. This is the definition of a census:
// it follows from the log and the horizon alone. A sweep and a seal keep the numbers up to date
// without reading the records; a catalog that is made anew takes them from here, and `verify`
// compares.
[[nodiscard]] Result<Recounted> recount(const Reader& reader, const View& view,
                                        const SealedSegment& sealed, const Horizon& horizon,
                                        std::uint64_t as_of);

// What a catalog that is made anew says of a segment. `in_unsealed` of its streams are superseded
// by the unsealed segments, which go on saying so.
[[nodiscard]] Counted counted_anew(const Recounted& now, const Tally& in_unsealed);

// Whether the segment may hold a record that `horizon` leaves and that is not its stream's head. It
// would show if all newer records of its stream went. `live` heads are in the segment.
[[nodiscard]] bool may_show(const Reader& reader, const SealedSegment& sealed,
                            const Horizon& horizon, std::uint64_t live);

// The earliest expiry of a stream that `horizon` leaves: when the next sweep has something to
// remove.
[[nodiscard]] Result<std::optional<std::int64_t>> next_expiry(const Reader& reader,
                                                              const View& view,
                                                              const Horizon& horizon);

}  // namespace dedup
