// The jumps of a store's clock as its database keeps them.
#pragma once

#include <string>
#include <string_view>

#include "dedup/clock.hpp"
#include "dedup/error.hpp"

namespace dedup::pg {

// Resets are left out: a database's clock is not reset by this library.
[[nodiscard]] std::string encode_jumps(const ClockHistory& history);
// Errors: corruption.
[[nodiscard]] Result<ClockHistory> decode_jumps(std::string_view bytes);

}  // namespace dedup::pg
