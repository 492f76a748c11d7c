// Invariants of the library's own, checked unless NDEBUG is defined. Never for input, nor for what
// a disk or another process can do: those are errors.
#pragma once

#ifdef NDEBUG
#define DEDUP_ASSERT(condition) static_cast<void>(0)
#else
#include <cstdio>
#include <cstdlib>
#define DEDUP_ASSERT(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) [[unlikely]] {                                                           \
            std::fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                                          \
        }                                                                                          \
    } while (false)
#endif
