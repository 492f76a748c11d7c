// Requests whose answers are taken from a queue, which a descriptor announces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "c/answers.hpp"
#include "c/border.hpp"
#include "cache/requests.hpp"
#include "env/mutex.hpp"

namespace dedup {

// Threads: any may give and take; `mutex_` guards what is marked, and is never held during I/O.
// Invariants: requests_ counts what was given and not taken, wherever it is; done_ has room for
// that many answers, so that none is ever lost for want of memory; once the answers of a batch are
// in, the descriptor is readable if and only if done_ has any.
class RequestQueue {
  public:
    // Throws std::system_error if there is no thread.
    RequestQueue(std::shared_ptr<OpenCache> cache, int descriptor, std::size_t threads,
                 std::size_t requests_max);
    ~RequestQueue();  // carries out what was given
    RequestQueue(const RequestQueue&) = delete;
    RequestQueue& operator=(const RequestQueue&) = delete;

    // `tag` comes back in the answer. Errors: busy.
    [[nodiscard]] Result<void> claim(std::uint64_t tag, ClaimRequest request);
    [[nodiscard]] Result<void> complete(std::uint64_t tag, Completion completion);
    [[nodiscard]] Result<void> release(std::uint64_t tag, Claim claim);
    [[nodiscard]] Answers take();

    [[nodiscard]] const OpenCache& cache() const { return *cache_; }
    [[nodiscard]] int descriptor() const { return descriptor_; }

  private:
    template <class A, class T, class What>
    Result<void> give(std::uint64_t tag, What what);
    template <class T>
    void answered(std::uint64_t tag, const Result<T>& result);
    void announce();

    const std::shared_ptr<OpenCache> cache_;
    const int descriptor_;
    const std::size_t requests_max_;

    Mutex mutex_;
    std::size_t requests_ DEDUP_GUARDED_BY(mutex_) = 0;
    Answers done_ DEDUP_GUARDED_BY(mutex_);
    bool announced_ DEDUP_GUARDED_BY(mutex_) = false;  // the descriptor is readable
    std::unique_ptr<RequestThreads> threads_;
};

}  // namespace dedup

struct dedup_queue {
    std::unique_ptr<dedup::RequestQueue> requests;
};
