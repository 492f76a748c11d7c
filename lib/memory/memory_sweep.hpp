// What a sweep of a store in memory removes, and its report. Decides only; changes nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "contract/capacity.hpp"
#include "dedup/store.hpp"
#include "memory/memory_streams.hpp"

namespace dedup {

// The streams to remove, by the sequence of their heads, in ascending order.
struct Removal {
    std::vector<std::uint64_t> expired;
    std::vector<std::uint64_t> evicted;
};

[[nodiscard]] std::vector<std::uint64_t> choose_expired(const MemoryStreams& streams,
                                                        std::int64_t time_ms,
                                                        std::chrono::milliseconds grace);

// What is left once all that is `expired` has gone.
[[nodiscard]] Usage usage_without(const MemoryStreams& streams,
                                  const std::vector<std::uint64_t>& expired);

// The oldest completions, so many keys and so many bytes of them.
[[nodiscard]] std::vector<std::uint64_t> choose_evicted(const MemoryStreams& streams,
                                                        const std::vector<std::uint64_t>& expired,
                                                        const Room& evict);

// Times are left to the caller.
[[nodiscard]] SweepReport report_of(const MemoryStreams& streams, const Removal& removal,
                                    std::size_t unanswered_max);

}  // namespace dedup
