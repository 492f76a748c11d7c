// What a claim, a lookup or a remember found, printed the same way by every command.
#pragma once

#include <string_view>

#include "context.hpp"

namespace dedupctl {

// Each prints one outcome of `key` and returns the command's exit code.

int print_claimed(Context& context, const dedup::Claim& claim, std::int64_t now_ms);

// The receipt alone goes to standard output; the explanation goes to standard error. `outcome` is
// "completed" or "duplicate".
int print_completed(Context& context, std::string_view key, const dedup::Completed& completed,
                    std::string_view outcome, std::int64_t now_ms);

int print_in_flight(Context& context, std::string_view key, const dedup::InFlight& in_flight,
                    std::int64_t now_ms);

int print_mismatch(Context& context, std::string_view key, const dedup::Mismatch& mismatch,
                   std::int64_t now_ms);

// Without --claim, a command answers for whoever holds the key. If there were others before, says
// on standard error whose claim that was: a late worker may have meant his own. `held` is what was
// found before; `verb` is "completed" or "released".
void note_whose_claim(std::string_view verb, const dedup::LookupOutcome& held);

int print_absent(Context& context, std::string_view key);

}  // namespace dedupctl
