#pragma once

#include <cstdint>

#include "record_text.hpp"

namespace dedupctl {

// Keys by their state now.
struct KeyCounts {
    std::uint64_t in_flight = 0;  // of these stuck are past their lease, and held wait
    std::uint64_t stuck = 0;
    std::uint64_t held = 0;
    std::uint64_t completed = 0;
    std::uint64_t released = 0;
    std::uint64_t expired = 0;
    std::int64_t oldest_ms = 0;  // when the claim that has been in flight longest was made

    void add(const dedup::Record& record, const Moment& moment);
    KeyCounts& operator+=(const KeyCounts& more);
};

// {"in_flight": ..., "stuck": ...} and so on.
[[nodiscard]] Json counts_json(const KeyCounts& counts);

}  // namespace dedupctl
