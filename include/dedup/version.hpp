// Which version this is: of the headers that a program was built with, and of the library that it
// runs with.
#pragma once

#include <string_view>

#include "dedup/export.hpp"

// Of these headers. While the first number is 0, programs must be built again when the second one
// changes, and the shared library's name changes with it.
#define DEDUP_VERSION_MAJOR 0
#define DEDUP_VERSION_MINOR 2
#define DEDUP_VERSION_PATCH 0

// As one number that can be compared: 0.2.0 is 200, 1.12.3 is 11203.
#define DEDUP_VERSION_NUMBER \
    (DEDUP_VERSION_MAJOR * 10000 + DEDUP_VERSION_MINOR * 100 + DEDUP_VERSION_PATCH)

namespace dedup {

// Of the library, such as "0.2.0". Any thread.
[[nodiscard]] DEDUP_API std::string_view version();

}  // namespace dedup
