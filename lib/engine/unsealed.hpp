// A segment whose index is still in memory, and the reading of it after a restart.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>

#include "catalog/catalog.hpp"
#include "index/delta.hpp"
#include "log/segment.hpp"
#include "log/stream_id.hpp"

namespace dedup {

// A frame is hardly ever smaller; a delta of this many entries a segment need not grow.
inline constexpr std::uint64_t kFrameBytesTypical = 96;

// A segment is full once a group has reached past its end; mostly by less than this.
inline constexpr std::uint64_t kMapSlack = 4 * 1024 * 1024;

// Turns streams into ids. The mask lets a test make ids collide.
struct Locator {
    HashSecret secret{};
    std::uint64_t mask = UINT64_MAX;

    [[nodiscard]] StreamId id(const StreamKey& stream) const {
        return {stream_id(stream, secret).xxh & mask};
    }
};

// What a record's append changes besides the log.
struct Applied {
    IndexEntry entry;
    Link link;
    // Of the record that the link leads to, if it is in the same segment. (Its offset does not tell
    // it from others of its frame.)
    std::uint64_t replaced_sequence = 0;
    std::string_view ns;  // lives for the call that gets it only
    std::int64_t timestamp_ms = 0;
    std::int64_t expires_at_ms = 0;
    std::uint64_t bytes = 0;  // its part of the frame
    bool moved = false;
};

struct Unsealed {
    // `room` bytes is what the segment is expected to grow to. Of a segment that is going to be
    // read and is `there` bytes long, the delta is small as long as little comes: a process that
    // opens a store for a single claim would spend most of its time on the pages of a large one.
    Unsealed(std::shared_ptr<const Segment> of, std::uint64_t room, std::uint64_t there)
        : segment(std::move(of)), delta(entries_at_first(room, there), room / kFrameBytesTypical) {
        segment->map(room + kMapSlack);
        row.id = segment->id();
        row.bytes = kSegmentHeaderBytes;
        row.next_sequence = segment->header().next_sequence;
        row.time_high_ms = segment->header().time_high_ms;
    }

    // Takes up a record in two steps: readers see it, and it is counted. Only the second one needs
    // memory, if the delta has room.
    void show(const Applied& applied) {
        const bool replaces_own = applied.link.segment == row.id;
        delta.put(applied.entry, replaces_own ? applied.replaced_sequence : 0);
    }
    void count(const Applied& applied);
    void apply(const Applied& applied) {
        show(applied);
        count(applied);
    }
    // Takes up a frame without records that says so.
    void raise(std::int64_t time_ms, std::uint64_t last_assigned) {
        row.time_high_ms = std::max(row.time_high_ms, time_ms);
        row.next_sequence = std::max(row.next_sequence, last_assigned + 1);
    }
    // The segment's frames reach up to `bytes`.
    void grown_to(std::uint64_t bytes) {
        row.bytes = bytes;
        segment->has_frames_to(bytes);
    }

    // The same name, which lives as long as this.
    [[nodiscard]] std::string_view intern(std::string_view ns);

    std::shared_ptr<const Segment> segment;
    Delta delta;
    SegmentRow row;             // as it would be sealed now, but for row.entries and the totals
    Manifest manifest;          // the last one in it
    Tally streams;              // see Census
    SegmentTallies superseded;  // streams of older segments that have a newer record in this one
    SegmentTallies reclaimed;   // swept streams that began anew in this one, by where they had been
    std::uint64_t last_sequence = 0;  // of the newest record in it; row.next_sequence may be higher
    // Where replaying it met no valid frame, by offset, and where it went on.
    std::map<std::uint64_t, std::uint64_t> damaged;

  private:
    static std::size_t entries_at_first(std::uint64_t room, std::uint64_t there);
    StateCounts& counts(std::string_view ns);

    // Most appends are to the namespace of the one before.
    std::string_view last_ns_;
    StateCounts* last_counts_ = nullptr;
};

// What the frames of a segment say of it.
struct Replayed {
    std::uint64_t flushed = kSegmentHeaderBytes;  // so much of it is known to have been flushed
    // Its last frame is the mark that a closed store ends with, and all before that was flushed.
    bool closed = false;
};

// Reads frames of `unsealed.segment` from unsealed.row.bytes on and applies them, up to the first
// place without a valid frame.
// `whole_bytes`, if not 0, says how long the segment is: then it goes on behind what is damaged,
// and takes from there what can be told. Whoever asks for one of these keys is told of the damage.
// Errors: corruption (valid frames that contradict each other), unsupported_version, io.
[[nodiscard]] Result<Replayed> replay(Unsealed& unsealed, const Locator& locator,
                                      std::uint64_t whole_bytes = 0);

}  // namespace dedup
