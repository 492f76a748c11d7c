// Marks what the shared library exports; everything else is hidden.
#pragma once

#if __cplusplus < 202100L
#error "dedup needs C++23: compile with -std=c++23"
#endif

#define DEDUP_API __attribute__((visibility("default")))
