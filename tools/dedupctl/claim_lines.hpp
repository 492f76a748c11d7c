// Lines of standard input that name a key and one of its claims, so that what is done to them is
// done to no other claim: by the time that a line is read, somebody else may hold the key.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"
#include "context.hpp"
#include "key_argument.hpp"

namespace dedupctl {

// --claims FORM. Empty: the lines are keys alone. "tabs": a key, a tab and its claim_sequence.
// "json": an object with `namespace`, `key` or `key_base64`, and `claim_sequence`, as of `ls`,
// `held` and `claim`.
[[nodiscard]] Option claims_option(std::string& form);

// What became of each line: `work` gets the claims that they name, and answers to each. A line that
// names none, or one of another namespace, is an error that keeps no other from its answer.
using ClaimWork = std::function<std::vector<KeyAnswer>(std::span<const dedup::Claim> claims)>;
[[nodiscard]] std::vector<KeyAnswer> for_claims(const Context& context, std::string_view form,
                                                std::span<const std::string_view> lines,
                                                const ClaimWork& work);

}  // namespace dedupctl
