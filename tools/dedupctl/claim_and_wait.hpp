// Claims a key, and waits for whoever holds it.
#pragma once

#include <functional>
#include <string>

#include "context.hpp"

namespace dedupctl {

struct ClaimAnswer {
    dedup::ClaimOutcome outcome;
    std::int64_t now_ms = 0;  // the store's
};

// What --hold and --attempts-max say of a claim that stays unanswered; the latter may be empty.
void set_policy(dedup::ClaimOptions& claim, bool hold, const std::string& attempts_max);

// Claims `key`. If it is in flight, tries again once it has been decided or may be taken over, for
// at most `wait`, or until `stopped` says so; null: never. A store that one process writes to is
// open for no longer than each try: while this process held it, nobody could complete the key.
[[nodiscard]] ClaimAnswer claim_and_wait(const Context& context, const std::string& key,
                                         const dedup::ClaimOptions& options, milliseconds wait,
                                         const std::function<bool()>& stopped = nullptr);

}  // namespace dedupctl
