// What a command under `dedupctl exec` is told, as variables.
#pragma once

#include <string>
#include <vector>

#include "context.hpp"

namespace dedupctl {

// "NAME=value" each: the store and the namespace, so that a dedupctl within the command works on
// the same key, and the claim. A password in the store's URL is in it.
[[nodiscard]] std::vector<std::string> exec_environment(const Context& context,
                                                        const dedup::Claim& claim);

}  // namespace dedupctl
