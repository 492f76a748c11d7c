// What Guard, Lease and http::serve share about one attempt.
#pragma once

#include <cstdint>

namespace dedup {

// Whether what fails at this attempt is not to be tried again.
[[nodiscard]] inline bool is_last(std::uint32_t attempt, std::uint32_t attempts_max) {
    return attempts_max != 0 && attempt >= attempts_max;
}

}  // namespace dedup
