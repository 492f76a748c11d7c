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
    std::uint32_t packed = 0;  // 2 bits: State of the record; above them: when it expires

    [[nodiscard]] State state() const { return static_cast<State>(packed % 4); }
    // The expiry_step() of the record's expiry.
    [[nodiscard]] std::uint32_t expiry() const { return packed / 4; }

    bool operator==(const IndexEntry&) const = default;
};

// Expiries in an index are rounded down to steps of 4,096 ms, which lets 30 bits reach the year
// 2109. All later ones share the last step but one; the last is for those that never come.
inline constexpr std::uint32_t kExpiryNever = (1U << 30) - 1;
inline constexpr std::uint32_t kExpiryLate = kExpiryNever - 1;

[[nodiscard]] constexpr std::uint32_t expiry_step(std::int64_t expires_at_ms) {
    const std::int64_t step = expires_at_ms / 4096;
    return expires_at_ms == 0    ? kExpiryNever
           : step >= kExpiryLate ? kExpiryLate
                                 : static_cast<std::uint32_t>(step);
}

// The earliest expiry of a step but kExpiryNever.
[[nodiscard]] constexpr std::int64_t expiry_step_start(std::uint32_t step) {
    return std::int64_t{step} * 4096;
}

[[nodiscard]] constexpr std::uint32_t pack(State state, std::int64_t expires_at_ms) {
    return expiry_step(expires_at_ms) * 4 + static_cast<std::uint32_t>(state);
}
static_assert(sizeof(IndexEntry) == 24);

}  // namespace dedup
