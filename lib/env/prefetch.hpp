// Fetching memory ahead of its use.
#pragma once

namespace dedup {

// Fetches the cache line at `place`. The empty statement keeps it: a function that only prefetches
// seems to have no effect, and g++ 12 leaves out the calls of such a function.
inline void prefetch(const void* place) {
    __builtin_prefetch(place);
    asm volatile("");
}

}  // namespace dedup
