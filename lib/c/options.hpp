// The options of dedup.h as those of the library.
#pragma once

#include <cstdint>
#include <string_view>

#include "c/border.hpp"
#include "dedup/cache.hpp"
#include "dedup/dedup.h"

namespace dedup {

[[nodiscard]] Result<CacheOptions> cache_options(const dedup_cache_options* given);
[[nodiscard]] Result<ClaimOptions> claim_options(const dedup_claim_options& given);
[[nodiscard]] Result<ClaimOptions> claim_options(const dedup_claim_options* given);
[[nodiscard]] Result<CompleteOptions> complete_options(const dedup_complete_options& given);
[[nodiscard]] Result<CompleteOptions> complete_options(const dedup_complete_options* given);
[[nodiscard]] Result<Resolution> resolution_of(const dedup_resolution* given);

// A claim as its holder knows it: the fence must be one.
[[nodiscard]] Result<Claim> claim_of(std::string_view ns, dedup_bytes key,
                                     std::uint64_t claim_sequence);

}  // namespace dedup
