// What a sweep of a store in memory removes, and its report. Decides only; changes nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "dedup/store.hpp"
#include "store/memory_streams.hpp"

namespace dedup {

// What streams take; or what those take that an append is going to begin.
struct Room {
    std::uint64_t keys = 0;
    std::uint64_t bytes = 0;
};

[[nodiscard]] bool fits(const Capacity& capacity, const Room& held, const Room& wanted);

// The streams to remove, by the sequence of their heads, in ascending order.
struct Removal {
    std::vector<std::uint64_t> expired;
    std::vector<std::uint64_t> evicted;
};

[[nodiscard]] std::vector<std::uint64_t> choose_expired(const MemoryStreams& streams,
                                                        std::int64_t time_ms,
                                                        std::chrono::milliseconds grace);

// The oldest completions that have to go for `wanted`, once all that is `expired` has. None if even
// all of them would not do.
[[nodiscard]] std::vector<std::uint64_t> choose_evicted(const MemoryStreams& streams,
                                                        const std::vector<std::uint64_t>& expired,
                                                        const Capacity& capacity,
                                                        const Room& wanted);

// Times are left to the caller.
[[nodiscard]] SweepReport report_of(const MemoryStreams& streams, const Removal& removal,
                                    std::size_t unanswered_max);

}  // namespace dedup
