// A Cache whose calls are noted in the ledger of its store: what callers were told must still be
// so after a crash. See told.hpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "crash/ledger.hpp"
#include "dedup/cache.hpp"

namespace dedup::test {

// One thread at a time. Each function is the Cache's of that name.
class LedgerCache {
  public:
    explicit LedgerCache(LedgerStore& store);

    Result<ClaimOutcome> claim(const std::string& key, const ClaimOptions& options = {});
    std::vector<Result<ClaimOutcome>> claim_many(std::span<const ClaimRequest> requests);
    Result<void> complete(const Claim& claim, const std::string& receipt,
                          const CompleteOptions& options = {});
    std::vector<Result<void>> complete_many(std::span<const Completion> completions);
    Result<bool> release(const Claim& claim);
    Result<Claim> renew(const Claim& claim, std::chrono::milliseconds lease);
    Result<RememberOutcome> remember(const std::string& key, const std::string& receipt,
                                     const ClaimOptions& options = {});
    Result<void> note(const Claim& claim, const std::string& metadata);
    Result<void> hold(const Claim& claim, const std::string& reason);
    Result<void> resolve(const std::string& key, std::uint64_t claim_sequence,
                         const Resolution& resolution);
    Result<bool> forget(const std::string& key, std::uint64_t claim_sequence,
                        const std::string& reason);

  private:
    template <class Make, class Parts>
    auto noted(const Make& make, const Parts& parts_of);
    template <class Make, class Apply>
    auto noted_one(const std::string& key, const Make& make, const Apply& apply);

    LedgerStore& store_;
    Cache cache_;
};

}  // namespace dedup::test
