// Cache lines: their size, and fetching them ahead of their use.
#pragma once

#include <cstddef>

namespace dedup {

inline constexpr std::size_t kCacheLineBytes = 64;

// Fetches the cache line at `place`. The empty statement keeps it: a function that only prefetches
// seems to have no effect, and g++ 12 leaves out the calls of such a function.
inline void prefetch(const void* place) {
    __builtin_prefetch(place);
    asm volatile("");
}

// The same for so many cache lines, the first of them at `place`.
inline void prefetch_lines(const char* place, std::size_t lines) {
    for (std::size_t line = 0; line < lines; ++line) {
        prefetch(place + line * kCacheLineBytes);
    }
}

}  // namespace dedup
