// Claims without a thread that waits for them: each call returns at once, and its answer comes to a
// function later. For event loops and coroutines.
//
//     async->claim_async("order-17", {.lease = 30s}, [&](dedup::Result<dedup::ClaimOutcome>
//     outcome) {
//         post(loop, std::move(outcome));  // on a thread of the library's: hand it on
//     });
//
// What is given while the disk is busy is carried out together, with one flush. An answer comes
// from the thread that has carried it out, as soon as it is durable.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "dedup/cache.hpp"

namespace dedup {

struct AsyncOptions {
    std::uint32_t threads = 2;  // 1 to 16; one collects while the other waits for the disk
    // Given and not answered yet, waits not included: 1 to 1,000,000.
    std::uint32_t requests_max = 65'536;
    std::uint32_t waits_max = 65'536;  // likewise of waits
};

template <class T>
using Answered = std::move_only_function<void(Result<T>)>;

// All functions may be called from any thread, also from an answer's. Each takes what it needs; if
// it succeeds its function is called once, on a thread of the library's that holds no lock, and
// else never. That function must not throw, must not destroy the AsyncCache, and holds up the
// answers behind it.
// Errors of the calls themselves: invalid_argument (the function is empty), busy (requests_max or
// waits_max are there; that bounds the memory), closed (it is being destroyed), and failed in a
// forked child. All others come as answers, as from the Cache. An answer of outcome_unknown may
// also mean that memory ran out.
class DEDUP_API AsyncCache {
  public:
    // `cache` must outlive it. Errors: invalid_argument, io (no thread).
    [[nodiscard]] static Result<std::unique_ptr<AsyncCache>> start(
        Cache& cache, const AsyncOptions& options = {});
    // Carries out what has been given and answers it. Waits end with what was last seen; those
    // that are due or decided are looked up once more, all together. An answer that comes meanwhile
    // can ask for nothing more: its calls give closed.
    ~AsyncCache();
    AsyncCache(const AsyncCache&) = delete;
    AsyncCache& operator=(const AsyncCache&) = delete;

    [[nodiscard]] Result<void> claim_async(std::string key, ClaimOptions options,
                                           Answered<ClaimOutcome> answered);
    [[nodiscard]] Result<void> complete_async(Completion completion, Answered<void> answered);
    [[nodiscard]] Result<void> release_async(Claim claim, Answered<bool> answered);

    // As Cache::wait, at most `timeout`. Any number of waits takes one thread.
    [[nodiscard]] Result<void> wait_async(std::string key, std::chrono::milliseconds timeout,
                                          Answered<LookupOutcome> answered);

  private:
    class Impl;
    explicit AsyncCache(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace dedup
