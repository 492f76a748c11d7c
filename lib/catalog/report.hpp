// Sweep reports as the catalog keeps them.
#pragma once

#include <string>
#include <string_view>

#include "dedup/error.hpp"
#include "dedup/sweep.hpp"

namespace dedup {

[[nodiscard]] std::string encode_report(const SweepReport& report);
// Errors: corruption.
[[nodiscard]] Result<SweepReport> decode_report(std::string_view bytes);

}  // namespace dedup
