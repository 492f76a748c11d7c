#include "dedup/cache.hpp"

#include <algorithm>
#include <utility>

#include "cache/inside.hpp"

namespace dedup {
using std::chrono::milliseconds;
using std::chrono::steady_clock;

Cache::Cache(StreamStore& store, CacheOptions options)
    : store_(store),
      options_(std::move(options)),
      options_checked_(check_options(options_)),
      counters_(std::make_unique<Counters>()) {}

Cache::~Cache() = default;

// How long the work of those that have been completed took.
void Cache::count_work(std::span<const CompleteOp> ops, std::span<const Result<void>> answers) {
    const std::int64_t now_ms = store_.now_ms();
    for (std::size_t i = 0; i < ops.size(); ++i) {
        if (answers[i] && ops[i].claim != nullptr && ops[i].claim->since_ms != 0) {
            counters_->work_ms.add(static_cast<std::uint64_t>(
                std::max<std::int64_t>(now_ms - ops[i].claim->since_ms, 0)));
        }
    }
}

Result<ClaimOutcome> Cache::claim(std::string_view key, const ClaimOptions& options) {
    return settle_one(ClaimOp{options_, key, options});
}

std::vector<Result<ClaimOutcome>> Cache::claim_many(std::span<const ClaimRequest> requests) {
    std::vector<ClaimOp> ops;
    ops.reserve(requests.size());
    for (const ClaimRequest& request : requests) {
        ops.push_back({options_, request.key, request.options});
    }
    return settle(std::span<const ClaimOp>(ops));
}

Result<void> Cache::complete(const Claim& claim, std::string_view receipt,
                             const CompleteOptions& options) {
    return settle_one(CompleteOp{options_, claim.key, &claim, receipt, options});
}

Result<void> Cache::complete_current(std::string_view key, std::string_view receipt,
                                     const CompleteOptions& options) {
    return settle_one(CompleteOp{options_, key, nullptr, receipt, options});
}

std::vector<Result<void>> Cache::complete_many(std::span<const Completion> completions) {
    std::vector<CompleteOp> ops;
    ops.reserve(completions.size());
    for (const auto& [claim, receipt, options] : completions) {
        ops.push_back({options_, claim.key, &claim, receipt, options});
    }
    return settle(std::span<const CompleteOp>(ops));
}

Result<bool> Cache::release(const Claim& claim) {
    return settle_one(ReleaseOp{options_, claim.key, &claim});
}

std::vector<Result<bool>> Cache::release_many(std::span<const Claim> claims) {
    std::vector<ReleaseOp> ops;
    ops.reserve(claims.size());
    for (const Claim& claim : claims) {
        ops.push_back({options_, claim.key, &claim});
    }
    return settle(std::span<const ReleaseOp>(ops));
}

Result<bool> Cache::release_current(std::string_view key) {
    return settle_one(ReleaseOp{options_, key, nullptr});
}

Result<Claim> Cache::renew(const Claim& claim, milliseconds lease) {
    return settle_one(RenewOp{options_, claim.key, &claim, lease});
}

std::vector<Result<Claim>> Cache::renew_many(std::span<const Claim> claims, milliseconds lease) {
    std::vector<RenewOp> ops;
    ops.reserve(claims.size());
    for (const Claim& claim : claims) {
        ops.push_back({options_, claim.key, &claim, lease});
    }
    return settle(std::span<const RenewOp>(ops));
}

Result<void> Cache::note(const Claim& claim, std::string_view metadata) {
    return settle_one(NoteOp{options_, claim.key, &claim, metadata});
}

std::vector<Result<void>> Cache::note_many(std::span<const Note> notes) {
    std::vector<NoteOp> ops;
    ops.reserve(notes.size());
    for (const auto& [claim, metadata] : notes) {
        ops.push_back({options_, claim.key, &claim, metadata});
    }
    return settle(std::span<const NoteOp>(ops));
}

Result<void> Cache::hold(const Claim& claim, std::string_view reason) {
    return settle_one(HoldOp{options_, claim.key, &claim, reason});
}

Result<void> Cache::resolve(std::string_view key, std::uint64_t claim_sequence,
                            const Resolution& resolution) {
    return settle_one(ResolveOp{options_, key, claim_sequence, resolution});
}

Result<bool> Cache::forget(std::string_view key, std::uint64_t claim_sequence,
                           std::string_view reason, std::string_view by) {
    return settle_one(ForgetOp{options_, key, claim_sequence, reason, by});
}

Result<RememberOutcome> Cache::remember(std::string_view key, std::string_view receipt,
                                        const ClaimOptions& options) {
    return settle_one(RememberOp{options_, key, receipt, options});
}

std::vector<Result<RememberOutcome>> Cache::remember_many(
    std::span<const RememberRequest> requests) {
    std::vector<RememberOp> ops;
    ops.reserve(requests.size());
    for (const auto& [key, receipt, options] : requests) {
        ops.push_back({options_, key, receipt, options});
    }
    return settle(std::span<const RememberOp>(ops));
}

// What a settled round comes to, without the vectors that a span needs.
Result<LookupOutcome> Cache::lookup(std::string_view key) {
    if (!Counters::times_lookup()) {
        return look_up(key);
    }
    const auto start = steady_clock::now();
    auto outcome = look_up(key);
    counters_->lookup_ns.add(nanoseconds_since(start));
    return outcome;
}

Result<LookupOutcome> Cache::look_up(std::string_view key) {
    const auto failed = [&](const Error& error) {
        counters_->add({.errors = 1});
        return std::unexpected(error);
    };
    const LookupOp op{options_, key};
    if (!options_checked_) {
        return failed(options_checked_.error());
    }
    if (Result<void> checked = op.check(); !checked) {
        return failed(checked.error());
    }
    auto head = store_.head({options_.ns, key});
    if (!head) {
        return failed(head.error());
    }
    auto outcome = LookupOp::answer({*head, store_.now_ms(), store_.grace()});
    counters_->add_lookup(outcome);
    return outcome;
}

std::vector<Result<LookupOutcome>> Cache::lookup_many(std::span<const std::string_view> keys) {
    std::vector<LookupOp> ops;
    ops.reserve(keys.size());
    for (const std::string_view key : keys) {
        ops.push_back({options_, key});
    }
    return settle(std::span<const LookupOp>(ops));
}

Result<LookupOutcome> Cache::wait(std::string_view key, milliseconds timeout) {
    const auto start = steady_clock::now();
    timeout = std::max(timeout, milliseconds{0});
    if (auto outcome = lookup(key); !outcome) {
        return outcome;  // without a lock, for the same reason as in Waiters::wake
    }
    Waiters::Sleeper sleeper(CacheInside::waiters(store_));
    Waiters::Place place(
        sleeper, {options_.ns, key});  // before the first look, so that no decision is missed
    for (;;) {
        auto outcome = lookup(key);
        const milliseconds left = CacheInside::time_to_wait(outcome, store_.now_ms());
        const auto waited = std::chrono::duration_cast<milliseconds>(steady_clock::now() - start);
        if (left == left.zero() || waited >= timeout) {
            return outcome;
        }
        sleeper.sleep(place.pause(std::min(left, timeout - waited)));
    }
}

CacheMetrics Cache::metrics() const {
    return {.ns = options_.ns,
            .counts = counters_->sum(),
            .claim_ns = counters_->claim_ns.snapshot(),
            .complete_ns = counters_->complete_ns.snapshot(),
            .work_ms = counters_->work_ms.snapshot(),
            .lookup_ns = counters_->lookup_ns.snapshot()};
}

}  // namespace dedup
