// How a stream is located: by XXH3 over namespace and key with the store's random secret, so that
// nobody can craft keys that share it. It only locates: the full key is compared before any answer.
#pragma once

#include <array>
#include <cstdint>

#include "dedup/store.hpp"

namespace dedup {

struct StreamId {
    std::uint64_t xxh = 0;

    auto operator<=>(const StreamId&) const = default;
};

// 192 random bytes; see XXH3's custom secrets.
using HashSecret = std::array<char, 192>;

[[nodiscard]] StreamId stream_id(const StreamKey& stream, const HashSecret& secret);

// The newest record of one stream within one segment: what the delta and the sealed indexes hold.
// This is also the layout on disk; see docs/format.md.
struct IndexEntry {
    StreamId id;
    std::uint64_t sequence = 0;
    std::uint32_t offset = 0;  // of the frame; never 0, where the segment header is
    std::uint32_t state = 0;   // State of the record

    bool operator==(const IndexEntry&) const = default;
};
static_assert(sizeof(IndexEntry) == 24);

}  // namespace dedup
