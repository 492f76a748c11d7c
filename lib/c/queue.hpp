// Requests that nobody waits for: a few threads carry out what waits, all of it at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <variant>
#include <vector>

#include "c/answers.hpp"
#include "c/border.hpp"
#include "env/mutex.hpp"

namespace dedup {

struct QueuedRequest {
    std::uint64_t tag = 0;
    // What is claimed, completed, or released.
    std::variant<ClaimRequest, Completion, Claim> what;
};

// Threads: any may give and take; `mutex_` guards what is marked, and is never held during I/O.
// Invariants: requests_ counts what was given and not taken, wherever it is; done_ has room for
// that many answers, so that none is ever lost for want of memory; the descriptor is readable if
// and only if done_ has answers.
class RequestQueue {
  public:
    // Throws std::system_error if there is no thread.
    RequestQueue(std::shared_ptr<OpenCache> cache, int descriptor, std::size_t threads,
                 std::size_t requests_max);
    ~RequestQueue();  // carries out what was given
    RequestQueue(const RequestQueue&) = delete;
    RequestQueue& operator=(const RequestQueue&) = delete;

    // Errors: busy.
    [[nodiscard]] Result<void> give(QueuedRequest request);
    [[nodiscard]] Answers take();

    [[nodiscard]] const OpenCache& cache() const { return *cache_; }
    [[nodiscard]] int descriptor() const { return descriptor_; }

  private:
    void run();
    void end_threads();
    template <class Request, class Call>
    void carry_out(std::vector<QueuedRequest>& batch, const Call& call);

    const std::shared_ptr<OpenCache> cache_;
    const int descriptor_;
    const std::size_t requests_max_;

    Mutex mutex_;
    Condition changed_;
    std::vector<QueuedRequest> waiting_ DEDUP_GUARDED_BY(mutex_);
    std::size_t requests_ DEDUP_GUARDED_BY(mutex_) = 0;
    Answers done_ DEDUP_GUARDED_BY(mutex_);
    bool stop_ DEDUP_GUARDED_BY(mutex_) = false;
    std::vector<std::thread> threads_;
};

}  // namespace dedup

struct dedup_queue {
    std::unique_ptr<dedup::RequestQueue> requests;
};
