// How a stream is located: two hashes side by side.
//
// FNV-1a of the key names the stream for people; anybody can compute it, and craft keys that
// share it. XXH3 over namespace and key with the store's random secret keeps such keys apart in
// every table. Both only locate: the full key is compared before any answer.
#pragma once

#include <array>
#include <cstdint>

#include "dedup/store.hpp"

namespace dedup {

struct StreamId {
    std::uint64_t xxh = 0;
    std::uint64_t fnv = 0;

    auto operator<=>(const StreamId&) const = default;
};

// 192 random bytes; see XXH3's custom secrets.
using HashSecret = std::array<char, 192>;

[[nodiscard]] StreamId stream_id(StreamKey stream, const HashSecret& secret);

// The newest record of one stream within one segment: what the delta and the sealed indexes hold.
// This is also the layout on disk; see docs/format.md.
struct IndexEntry {
    StreamId id;
    std::uint64_t sequence = 0;
    std::uint32_t offset = 0;  // of the frame; never 0, where the segment header is
    std::uint32_t state = 0;   // State of the record

    bool operator==(const IndexEntry&) const = default;
};
static_assert(sizeof(IndexEntry) == 32);

}  // namespace dedup
