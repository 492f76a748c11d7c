// The calls that concern one key.
#include <chrono>
#include <memory>

#include "c/answers.hpp"
#include "c/border.hpp"
#include "c/options.hpp"

namespace dedup {
namespace {

// Hands one answer over; an error becomes that of the call.
template <class Outcome>
Result<void> give(const Result<Outcome>& outcome, dedup_outcome** to) {
    if (!outcome) {
        return std::unexpected(outcome.error());
    }
    auto one = std::make_unique<dedup_outcome>();
    one->answers.add(outcome);
    one->answers.finish();
    *to = one.release();
    return {};
}

Result<void> give_flag(const Result<bool>& done, int* to) {
    if (!done) {
        return std::unexpected(done.error());
    }
    if (to != nullptr) {
        *to = *done ? 1 : 0;
    }
    return {};
}

// As across(), for a call on a claim: `body` gets the cache and the claim.
template <class Body, class... Outputs>
int across_claim(dedup_error* error, dedup_cache* cache, dedup_bytes key, std::uint64_t fence,
                 const Body& body, Outputs*... outputs) {
    return across(
        error, Effect::possible,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            return body(in, DEDUP_TRY(claim_of(cache->open->ns, key, fence)));
        },
        outputs...);
}

}  // namespace
}  // namespace dedup

using namespace dedup;

int dedup_cache_new(dedup_store* store, const dedup_cache_options* options, dedup_cache** cache,
                    dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            DEDUP_TRY(needs(cache, "cache"));
            static_cast<void>(DEDUP_TRY(use(store)));
            auto open = std::make_shared<OpenCache>(store->open, DEDUP_TRY(cache_options(options)));
            *cache = new dedup_cache{std::move(open)};
            return {};
        },
        cache);
}

void dedup_cache_free(dedup_cache* cache) {
    delete cache;
}

int dedup_claim(dedup_cache* cache, const void* key, size_t key_bytes,
                const dedup_claim_options* options, dedup_outcome** outcome, dedup_error* error) {
    return across(
        error, Effect::possible,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            DEDUP_TRY(needs(outcome, "outcome"));
            return give(in.claim(DEDUP_TRY(bytes(key, key_bytes, "key")),
                                 DEDUP_TRY(claim_options(options))),
                        outcome);
        },
        outcome);
}

int dedup_complete(dedup_cache* cache, const void* key, size_t key_bytes, uint64_t claim_sequence,
                   const void* receipt, size_t receipt_bytes, const dedup_complete_options* options,
                   dedup_error* error) {
    return across_claim(error, cache, {key, key_bytes}, claim_sequence,
                        [&](Cache& in, const Claim& claim) -> Result<void> {
                            return in.complete(claim,
                                               DEDUP_TRY(bytes(receipt, receipt_bytes, "receipt")),
                                               DEDUP_TRY(complete_options(options)));
                        });
}

int dedup_complete_current(dedup_cache* cache, const void* key, size_t key_bytes,
                           const void* receipt, size_t receipt_bytes,
                           const dedup_complete_options* options, dedup_error* error) {
    return across(error, Effect::possible, [&]() -> Result<void> {
        Cache& in = *DEDUP_TRY(use(cache));
        return in.complete_current(DEDUP_TRY(bytes(key, key_bytes, "key")),
                                   DEDUP_TRY(bytes(receipt, receipt_bytes, "receipt")),
                                   DEDUP_TRY(complete_options(options)));
    });
}

int dedup_release(dedup_cache* cache, const void* key, size_t key_bytes, uint64_t claim_sequence,
                  int* released, dedup_error* error) {
    return across_claim(
        error, cache, {key, key_bytes}, claim_sequence,
        [&](Cache& in, const Claim& claim) { return give_flag(in.release(claim), released); },
        released);
}

int dedup_release_current(dedup_cache* cache, const void* key, size_t key_bytes, int* released,
                          dedup_error* error) {
    return across(
        error, Effect::possible,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            return give_flag(in.release_current(DEDUP_TRY(bytes(key, key_bytes, "key"))), released);
        },
        released);
}

int dedup_renew(dedup_cache* cache, const void* key, size_t key_bytes, uint64_t claim_sequence,
                int64_t lease_ms, int64_t* deadline_ms, dedup_error* error) {
    return across_claim(
        error, cache, {key, key_bytes}, claim_sequence,
        [&](Cache& in, const Claim& claim) -> Result<void> {
            const auto renewed = DEDUP_TRY(in.renew(claim, std::chrono::milliseconds{lease_ms}));
            if (deadline_ms != nullptr) {
                *deadline_ms = renewed.deadline_ms;
            }
            return {};
        },
        deadline_ms);
}

int dedup_note(dedup_cache* cache, const void* key, size_t key_bytes, uint64_t claim_sequence,
               const void* metadata, size_t metadata_bytes, dedup_error* error) {
    return across_claim(error, cache, {key, key_bytes}, claim_sequence,
                        [&](Cache& in, const Claim& claim) -> Result<void> {
                            return in.note(claim,
                                           DEDUP_TRY(bytes(metadata, metadata_bytes, "metadata")));
                        });
}

int dedup_hold(dedup_cache* cache, const void* key, size_t key_bytes, uint64_t claim_sequence,
               const void* reason, size_t reason_bytes, dedup_error* error) {
    return across_claim(error, cache, {key, key_bytes}, claim_sequence,
                        [&](Cache& in, const Claim& claim) -> Result<void> {
                            return in.hold(claim, DEDUP_TRY(bytes(reason, reason_bytes, "reason")));
                        });
}

int dedup_resolve(dedup_cache* cache, const void* key, size_t key_bytes, uint64_t claim_sequence,
                  const dedup_resolution* resolution, dedup_error* error) {
    return across(error, Effect::possible, [&]() -> Result<void> {
        Cache& in = *DEDUP_TRY(use(cache));
        return in.resolve(DEDUP_TRY(bytes(key, key_bytes, "key")), claim_sequence,
                          DEDUP_TRY(resolution_of(resolution)));
    });
}

int dedup_forget(dedup_cache* cache, const void* key, size_t key_bytes, uint64_t claim_sequence,
                 dedup_bytes reason, dedup_bytes by, int* forgotten, dedup_error* error) {
    return across(
        error, Effect::possible,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            return give_flag(
                in.forget(DEDUP_TRY(bytes(key, key_bytes, "key")), claim_sequence,
                          DEDUP_TRY(bytes(reason, "reason")), DEDUP_TRY(bytes(by, "by"))),
                forgotten);
        },
        forgotten);
}

int dedup_lookup(dedup_cache* cache, const void* key, size_t key_bytes, dedup_outcome** outcome,
                 dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            DEDUP_TRY(needs(outcome, "outcome"));
            return give(in.lookup(DEDUP_TRY(bytes(key, key_bytes, "key"))), outcome);
        },
        outcome);
}

int dedup_remember(dedup_cache* cache, const void* key, size_t key_bytes, const void* receipt,
                   size_t receipt_bytes, const dedup_claim_options* options,
                   dedup_outcome** outcome, dedup_error* error) {
    return across(
        error, Effect::possible,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            DEDUP_TRY(needs(outcome, "outcome"));
            return give(in.remember(DEDUP_TRY(bytes(key, key_bytes, "key")),
                                    DEDUP_TRY(bytes(receipt, receipt_bytes, "receipt")),
                                    DEDUP_TRY(claim_options(options))),
                        outcome);
        },
        outcome);
}

int dedup_wait(dedup_cache* cache, const void* key, size_t key_bytes, int64_t timeout_ms,
               dedup_outcome** outcome, dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            DEDUP_TRY(needs(outcome, "outcome"));
            return give(in.wait(DEDUP_TRY(bytes(key, key_bytes, "key")),
                                std::chrono::milliseconds{timeout_ms}),
                        outcome);
        },
        outcome);
}
