// What Guard, Lease and http::serve share about one attempt: whether it is the last, and whether
// its holder has said what it was about to do.
#pragma once

#include <cstdint>
#include <string_view>

#include "dedup/cache.hpp"
#include "record/try.hpp"

namespace dedup {

// Whether what fails at this attempt is not to be tried again.
[[nodiscard]] inline bool is_last(std::uint32_t attempt, std::uint32_t attempts_max) {
    return attempts_max != 0 && attempt >= attempts_max;
}

// Whether the claim is current, and says something else than it began with, which is `first`
// (Claimed::metadata). The same words again are not seen: whoever can remembers that it has noted.
[[nodiscard]] inline Result<bool> is_noted(Cache& cache, const Claim& claim,
                                           std::string_view first) {
    const LookupOutcome found = DEDUP_TRY(cache.lookup(claim.key));
    const InFlight* const mine = found.in_flight();
    return mine != nullptr && mine->claim_sequence == claim.claim_sequence &&
           !mine->metadata.empty() && mine->metadata != first;
}

}  // namespace dedup
