#pragma once

#include <expected>
#include <string>
#include <utility>

#include "dedup/error.hpp"

namespace dedup {

// What a caller's mistake is answered with.
[[nodiscard]] inline std::unexpected<Error> invalid(std::string message) {
    return std::unexpected(Error{.code = Code::invalid_argument, .message = std::move(message)});
}

}  // namespace dedup
