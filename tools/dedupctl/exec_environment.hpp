// What a command under `dedupctl exec` is told, as variables.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "context.hpp"

namespace dedupctl {

// "NAME=value" each: the store and the namespace, so that a dedupctl within the command works on
// the same key, the claim, and what is known of the one before it, empty if there was none. A
// password in the store's URL is in it. A note ends at its first NUL.
[[nodiscard]] std::vector<std::string> exec_environment(
    const Context& context, const dedup::Claim& claim,
    const std::optional<dedup::Previous>& previous);

}  // namespace dedupctl
