// What lookups see of a store at one moment, and what they find in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "catalog/catalog.hpp"
#include "engine/unsealed.hpp"
#include "record/codec.hpp"

namespace dedup {

// How many segments may wait to be sealed before appends wait for the sealer. A log with more of
// them is sealed piece by piece before it opens, so that memory stays bounded.
inline constexpr std::size_t kUnsealedMax = 4;

// Immutable, but for the newest delta.
struct View {
    std::vector<std::shared_ptr<Unsealed>> unsealed;  // newest first
    SnapshotPtr sealed;
    Horizon horizon;
};
using ViewPtr = std::shared_ptr<const View>;

// `view` with a newer snapshot, and without the unsealed segments that this one has.
[[nodiscard]] std::shared_ptr<View> with_sealed(const View& view, SnapshotPtr sealed);

// A record found in the log. `record` points into the segment, or into the FrameBuffer that it was
// read with: it lives as long as both are there and the buffer is left alone.
struct Located {
    const Segment* segment = nullptr;
    IndexEntry entry;
    Link link;
    RecordView record;
    std::uint64_t frame_bytes = 0;
};

// Whether two places are one. (A moved record is in two segments, with one sequence.)
[[nodiscard]] inline bool same_place(const Located& one, const Located& other) {
    return one.segment->id() == other.segment->id() && one.entry.sequence == other.entry.sequence;
}

// Whether a sweep has removed the stream whose head is `at`.
[[nodiscard]] inline bool removed(const View& view, const Located& at) {
    return view.horizon.removes(at.record.state(), at.entry.sequence, at.record.expires_at_ms);
}

// Entries with one id in the unsealed segments. Mostly there is at most one, which needs no
// allocation.
struct UnsealedEntry {
    const Segment* segment = nullptr;
    IndexEntry entry;
};
struct UnsealedEntries {
    UnsealedEntry newest;
    std::vector<UnsealedEntry> older;
};

// Looks into the deltas of a view, of which the newest may be growing: see ShownView.
[[nodiscard]] UnsealedEntries probe(const View& view, const StreamId& id);

// One segment of a view, as it was when this was made. Lives as long as the view.
struct Part {
    const Segment* segment = nullptr;
    SegmentRow row;                         // as far as it is known while it is unsealed
    const SealedSegment* sealed = nullptr;  // one of these two is null
    const Unsealed* unsealed = nullptr;
    std::size_t entries = 0;  // of the delta, if it is unsealed

    // False: all of its records are superseded or gone.
    [[nodiscard]] bool may_live() const { return sealed == nullptr || row.live().total() != 0; }
};

// Numbers of the unsealed segments at the moment when `sequence` was the last one applied.
struct UnsealedNumbers {
    struct Of {
        std::shared_ptr<Unsealed> unsealed;
        Tally streams;
        std::size_t entries = 0;
        SegmentRow row;
        std::size_t memory_bytes = 0;  // of the delta
    };
    std::uint64_t sequence = 0;
    std::vector<Of> parts;      // newest first
    SegmentTallies superseded;  // of all of them together
    SegmentTallies reclaimed;

    // Of one part. Of the streams that sweeps have removed, only those are left out that have begun
    // anew.
    [[nodiscard]] Census census(std::size_t part) const;
    // True only if `horizon` leaves no stream whose head is in this part.
    [[nodiscard]] bool removes_all(std::size_t part, const Horizon& horizon) const;
};

// A view, and the numbers that go with it.
struct Now {
    ViewPtr view;
    UnsealedNumbers unsealed;
};

}  // namespace dedup
