// What the layers that stand on a cache need of it: to carry out operations of their own as it
// carries out its own, which are counted among its metrics, told to its observer, and wake those
// who wait.
#pragma once

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>
#include <vector>

#include "cache/counters.hpp"
#include "cache/decide.hpp"
#include "cache/recorder.hpp"
#include "cache/settle.hpp"
#include "contract/waiters.hpp"

namespace dedup {

struct CacheInside {
    // How long there is something to wait for, if nobody decides; zero: there is nothing.
    [[nodiscard]] static std::chrono::milliseconds time_to_wait(
        const Result<LookupOutcome>& outcome, std::int64_t now_ms) {
        using std::chrono::milliseconds;
        const InFlight* const claim = outcome ? outcome->in_flight() : nullptr;
        if (claim == nullptr || claim->held) {
            return milliseconds{0};
        }
        if (claim->lease_until_ms == 0) {
            return milliseconds::max();
        }
        // Up to the last millisecond of the lease, and then once more.
        return now_ms > claim->lease_until_ms
                   ? milliseconds{0}
                   : std::max(milliseconds{claim->lease_until_ms - now_ms}, milliseconds{1});
    }

    [[nodiscard]] static StreamStore& store(const Cache& cache) { return cache.store_; }
    [[nodiscard]] static Waiters& waiters(StreamStore& store) { return *store.waiters_; }
    [[nodiscard]] static const CacheOptions& options(const Cache& cache) { return cache.options_; }

    template <class Op>
    static Result<typename Op::Answer> settle(Cache& cache, const Op& op) {
        return cache.settle_one(op);
    }

    // For what is appended together with other things: what it came to is written into this, and
    // counted in the end.
    [[nodiscard]] static Recorder recorder(const Cache& cache) {
        return Recorder(cache.options_.observer, nullptr);
    }
    static void count(const Cache& cache, const CacheCounts& counts) {
        cache.counters_->add(counts);
    }
    static void count_work(Cache& cache, std::span<const CompleteOp> ops,
                           std::span<const Result<void>> answers) {
        cache.count_work(ops, answers);
    }
};

template <class Op>
std::vector<Result<typename Op::Answer>> Cache::settle(std::span<const Op> ops) {
    using Answer = typename Op::Answer;
    constexpr bool kLooks = std::is_same_v<Op, LookupOp>;
    constexpr bool kClaims = std::is_same_v<Op, ClaimOp> || std::is_same_v<Op, RememberOp>;
    if (!options_checked_) {
        counters_->add({.errors = ops.size()});
        return std::vector<Result<Answer>>(ops.size(), std::unexpected(options_checked_.error()));
    }
    Recorder recorder(options_.observer, kClaims ? &counters_->mostly_new : nullptr);
    const bool timed = !kLooks || Counters::times_lookup();
    const auto start =
        timed ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
    auto answers = settle_span(store_, ops, recorder);
    counters_->add(recorder.counts);
    if (timed && (kLooks || recorder.appended)) {
        CountedHistogram& times = kLooks    ? counters_->lookup_ns
                                  : kClaims ? counters_->claim_ns
                                            : counters_->complete_ns;
        times.add(nanoseconds_since(start));
    }
    if constexpr (std::is_same_v<Op, CompleteOp>) {
        count_work(ops, answers);
    }
    if constexpr (Op::kDecides) {
        CacheInside::waiters(store_).wake(ops, answers);
    }
    return answers;
}

template <class Op>
Result<typename Op::Answer> Cache::settle_one(const Op& op) {
    return std::move(settle(std::span<const Op>(&op, 1)).front());
}

}  // namespace dedup
