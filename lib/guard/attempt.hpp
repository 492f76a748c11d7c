// What Guard, Lease and http::serve share about one attempt: whether it is the last, and whether
// its holder has said what it was about to do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "dedup/cache.hpp"
#include "record/try.hpp"

namespace dedup {

// Whether what fails at this attempt is not to be tried again.
[[nodiscard]] inline bool is_last(std::uint32_t attempt, std::uint32_t attempts_max) {
    return attempts_max != 0 && attempt >= attempts_max;
}

// What a claim's metadata says before its holder has noted anything: what it was claimed with, or
// the note of the claim before it, unless somebody has answered for that one.
[[nodiscard]] inline std::string first_note(const ClaimOptions& options,
                                            const std::optional<Previous>& previous) {
    if (!options.metadata.empty() || !previous || previous->end == End::resolved ||
        previous->end == End::forgotten) {
        return options.metadata;
    }
    return previous->note;
}

// Whether the claim is current, and says something else than at first. The same words again are
// not seen: whoever can should remember that it has noted.
[[nodiscard]] inline Result<bool> is_noted(Cache& cache, const Claim& claim,
                                           std::string_view first) {
    const LookupOutcome found = DEDUP_TRY(cache.lookup(claim.key));
    const InFlight* const mine = found.in_flight();
    return mine != nullptr && mine->claim_sequence == claim.claim_sequence &&
           !mine->metadata.empty() && mine->metadata != first;
}

}  // namespace dedup
