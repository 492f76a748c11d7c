// Marks what the shared library exports; everything else is hidden.
#pragma once

#if __cplusplus < 202100L
#error "dedup needs C++23: compile with -std=c++23"
#endif

#include <version>

// The types of the two libraries have the same names and are not the same.
#if defined(_LIBCPP_VERSION) && !defined(DEDUP_LIBCXX)
#error "dedup is built with libstdc++: use -stdlib=libstdc++ (or, if yours is not, -DDEDUP_LIBCXX)"
#endif

#define DEDUP_API __attribute__((visibility("default")))
