#include "crash/ledger_cache.hpp"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>

#include "crash/told.hpp"

namespace dedup::test {
namespace {

// Whether a call was answered: by the protocol, and not by a store that failed.
template <class T>
bool is_answered(const Result<T>& result) {
    if (result) {
        return true;
    }
    const Code code = result.error().code;
    return code == Code::stale_claim || code == Code::receipt_mismatch ||
           code == Code::not_claimed || code == Code::busy || code == Code::invalid_argument;
}

template <class T>
bool is_answered(const std::vector<Result<T>>& results) {
    return std::ranges::all_of(results, [](const Result<T>& one) { return is_answered(one); });
}

// Of a claim that was made, which the model is told; else 0.
template <class T>
std::uint64_t fence_in(const Result<T>& result) {
    if constexpr (std::is_same_v<T, ClaimOutcome> || std::is_same_v<T, RememberOutcome>) {
        return new_fence(result);
    } else {
        return 0;
    }
}

}  // namespace

LedgerCache::LedgerCache(LedgerStore& store) : store_(store), cache_(store, told_options()) {}

// `parts_of` gives the call's parts, by the time at which it was made and its outcome.
template <class Make, class Parts>
auto LedgerCache::noted(const Make& make, const Parts& parts_of) {
    Ledger& ledger = store_.ledger();
    CacheCall call;
    call.first = ledger.entries.size();
    const std::int64_t now_ms = store_.now_ms();
    auto outcome = make();
    call.parts = parts_of(now_ms, outcome);
    call.end = ledger.entries.size();
    call.known = is_answered(outcome);
    ledger.calls.push_back(std::make_shared<const CacheCall>(std::move(call)));
    return outcome;
}

// `apply` is what the model is asked: by the time, and by the fence of a claim that was made.
template <class Make, class Apply>
auto LedgerCache::noted_one(const std::string& key, const Make& make, const Apply& apply) {
    return noted(make, [&](std::int64_t now_ms, const auto& outcome) {
        const std::uint64_t fence = fence_in(outcome);
        return std::vector<CacheCall::Part>{
            {key, [=](KeyModel& model) { (void)apply(model, now_ms, fence); }}};
    });
}

Result<ClaimOutcome> LedgerCache::claim(const std::string& key, const ClaimOptions& options) {
    return noted_one(
        key, [&] { return cache_.claim(key, options); },
        [options](KeyModel& model, std::int64_t now_ms, std::uint64_t fence) {
            return model.claim(now_ms, options, fence);
        });
}

std::vector<Result<ClaimOutcome>> LedgerCache::claim_many(std::span<const ClaimRequest> requests) {
    return noted([&] { return cache_.claim_many(requests); },
                 [&](std::int64_t now_ms, const std::vector<Result<ClaimOutcome>>& outcomes) {
                     std::vector<CacheCall::Part> parts;
                     for (std::size_t i = 0; i < requests.size(); ++i) {
                         const std::uint64_t fence = new_fence(outcomes[i]);
                         const ClaimOptions& options = requests[i].options;
                         parts.push_back({requests[i].key, [=](KeyModel& model) {
                                              (void)model.claim(now_ms, options, fence);
                                          }});
                     }
                     return parts;
                 });
}

Result<void> LedgerCache::complete(const Claim& claim, const std::string& receipt,
                                   const CompleteOptions& options) {
    return noted_one(
        claim.key, [&] { return cache_.complete(claim, receipt, options); },
        [=, fence = claim.claim_sequence](KeyModel& model, std::int64_t now_ms, std::uint64_t) {
            return model.complete(now_ms, fence, receipt, options.ttl);
        });
}

std::vector<Result<void>> LedgerCache::complete_many(std::span<const Completion> completions) {
    return noted([&] { return cache_.complete_many(completions); },
                 [&](std::int64_t now_ms, const std::vector<Result<void>>&) {
                     std::vector<CacheCall::Part> parts;
                     for (const Completion& done : completions) {
                         parts.push_back({done.claim.key, [=](KeyModel& model) {
                                              (void)model.complete(now_ms,
                                                                   done.claim.claim_sequence,
                                                                   done.receipt, done.options.ttl);
                                          }});
                     }
                     return parts;
                 });
}

Result<bool> LedgerCache::release(const Claim& claim) {
    return noted_one(
        claim.key, [&] { return cache_.release(claim); },
        [fence = claim.claim_sequence](KeyModel& model, std::int64_t now_ms, std::uint64_t) {
            return model.release(now_ms, fence);
        });
}

Result<Claim> LedgerCache::renew(const Claim& claim, std::chrono::milliseconds lease) {
    return noted_one(
        claim.key, [&] { return cache_.renew(claim, lease); },
        [=, fence = claim.claim_sequence](KeyModel& model, std::int64_t now_ms, std::uint64_t) {
            return model.renew(now_ms, fence, lease);
        });
}

Result<RememberOutcome> LedgerCache::remember(const std::string& key, const std::string& receipt,
                                              const ClaimOptions& options) {
    return noted_one(
        key, [&] { return cache_.remember(key, receipt, options); },
        [=](KeyModel& model, std::int64_t now_ms, std::uint64_t fence) {
            return model.remember(now_ms, receipt, options, fence);
        });
}

Result<void> LedgerCache::note(const Claim& claim, const std::string& metadata) {
    return noted_one(
        claim.key, [&] { return cache_.note(claim, metadata); },
        [=, fence = claim.claim_sequence](KeyModel& model, std::int64_t now_ms, std::uint64_t) {
            return model.note(now_ms, fence, metadata);
        });
}

Result<void> LedgerCache::hold(const Claim& claim, const std::string& reason) {
    return noted_one(
        claim.key, [&] { return cache_.hold(claim, reason); },
        [=, fence = claim.claim_sequence](KeyModel& model, std::int64_t now_ms, std::uint64_t) {
            return model.hold(now_ms, fence, reason);
        });
}

Result<void> LedgerCache::resolve(const std::string& key, std::uint64_t claim_sequence,
                                  const Resolution& resolution) {
    return noted_one(
        key, [&] { return cache_.resolve(key, claim_sequence, resolution); },
        [=](KeyModel& model, std::int64_t now_ms, std::uint64_t) {
            return model.resolve(now_ms, claim_sequence, resolution);
        });
}

Result<bool> LedgerCache::forget(const std::string& key, std::uint64_t claim_sequence,
                                 const std::string& reason) {
    return noted_one(
        key, [&] { return cache_.forget(key, claim_sequence, reason); },
        [=](KeyModel& model, std::int64_t now_ms, std::uint64_t) {
            return model.forget(now_ms, claim_sequence, reason);
        });
}

}  // namespace dedup::test
