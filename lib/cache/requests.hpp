// Requests that nobody waits for: a few threads carry out what has been given, all of it at once.
#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <variant>
#include <vector>

#include "dedup/async.hpp"
#include "env/mutex.hpp"

namespace dedup {

template <class What, class T>
struct Asked {
    What what;
    Answered<T> answered;
};
using AskedClaim = Asked<ClaimRequest, ClaimOutcome>;
using AskedCompletion = Asked<Completion, void>;
using AskedRelease = Asked<Claim, bool>;

// Threads: any may give; `mutex_` guards what is marked, and is held neither during I/O nor while
// an answer is given. Every request that was given is answered once.
class RequestThreads {
  public:
    using Request = std::variant<AskedClaim, AskedCompletion, AskedRelease>;

    // `batch_done` is called on a thread whose answers so far came together; it may be empty, and
    // must not throw. Throws std::system_error if there is no thread.
    RequestThreads(Cache& cache, std::size_t threads, std::size_t requests_max,
                   std::function<void()> batch_done = {});
    ~RequestThreads();  // carries out what was given
    RequestThreads(const RequestThreads&) = delete;
    RequestThreads& operator=(const RequestThreads&) = delete;

    // Errors: busy, closed.
    [[nodiscard]] Result<void> give(Request request);

    void close();  // from now on nothing can be given
    void end();    // closes; returns when all that was given is answered

  private:
    void run();

    Cache& cache_;
    const std::size_t requests_max_;
    const std::function<void()> batch_done_;
    Mutex mutex_;
    Condition changed_;
    std::vector<Request> waiting_ DEDUP_GUARDED_BY(mutex_);
    std::size_t requests_ DEDUP_GUARDED_BY(mutex_) = 0;  // given and not answered
    bool closed_ DEDUP_GUARDED_BY(mutex_) = false;
    std::vector<std::thread> threads_;
};

}  // namespace dedup
