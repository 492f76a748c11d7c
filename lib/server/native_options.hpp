// The options of the native commands: pairs of a name and a value, in any order.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "dedup/cache.hpp"
#include "server/session.hpp"

namespace dedup::server {

// What a native command may say of its request. Each command takes some of them.
struct NativeOptions {
    CacheOptions cache;
    ClaimOptions claim;
    std::optional<std::string> metadata;  // as it was given, for a completion
    std::optional<std::chrono::milliseconds> wait;
    bool any_order = false;  // of the reply
    std::string reason;
    std::string by;
};

enum : unsigned {
    kTakesNs = 0,  // all do
    kTakesTtl = 1,
    kTakesMetadata = 2,
    kTakesRequest = 4,  // owner, fingerprint, event, expiry
    kTakesLease = 8,
    kTakesWait = 16,
    kTakesUnanswered = 32,  // what becomes of the claim if nobody answers it
    kTakesReason = 64,      // and who says so
    kTakesOrder = 128,
};

// Reads the pairs behind the first `from` arguments. Gives what is wrong, or nothing.
[[nodiscard]] std::string read_options(const Request& request, std::size_t from, unsigned takes,
                                       NativeOptions& options);

}  // namespace dedup::server
