// What lookups see of a store at one moment, and what they find in it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "catalog/catalog.hpp"
#include "engine/unsealed.hpp"
#include "record/codec.hpp"

namespace dedup {

// Immutable, but for the newest delta.
struct View {
    std::vector<std::shared_ptr<Unsealed>> unsealed;  // newest first
    SnapshotPtr sealed;
    Horizon horizon;
};
using ViewPtr = std::shared_ptr<const View>;

// A record found in the log. `record` points into the segment, or into the FrameBuffer that it was
// read with: it lives as long as both are there and the buffer is left alone.
struct Located {
    const Segment* segment = nullptr;
    IndexEntry entry;
    Link link;
    RecordView record;
    std::uint64_t frame_bytes = 0;
};

// Whether a sweep has removed the stream whose head is `at`.
[[nodiscard]] inline bool removed(const View& view, const Located& at) {
    return view.horizon.removes(at.record.state(), at.entry.sequence, at.record.expires_at_ms);
}

// Entries with one id in the unsealed segments. Mostly there is at most one, which needs no
// allocation.
struct Candidate {
    const Segment* segment = nullptr;
    IndexEntry entry;
};
struct Candidates {
    Candidate newest;
    std::vector<Candidate> older;
};

}  // namespace dedup
