// Those who wait for keys without a thread of their own.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/inside.hpp"
#include "dedup/async.hpp"
#include "env/mutex.hpp"

namespace dedup {

// One thread looks at all keys that are waited for: at once at those that were decided, at the
// others when their places say so, and together at all that are due. Any thread may add. `mutex_`
// guards what is marked; what the thread has taken up is its own.
class AsyncWaits {
  public:
    // Throws std::system_error if there is no thread.
    AsyncWaits(Cache& cache, std::size_t waits_max);
    ~AsyncWaits();
    AsyncWaits(const AsyncWaits&) = delete;
    AsyncWaits& operator=(const AsyncWaits&) = delete;

    // Errors: busy, closed.
    [[nodiscard]] Result<void> add(std::string key, std::chrono::milliseconds timeout,
                                   Answered<LookupOutcome> answered);

    void close();  // from now on nothing can be added
    void end();    // closes; returns when all that wait are answered

  private:
    using Time = std::chrono::steady_clock::time_point;
    struct Wait;
    using Waits = std::multimap<Time, std::unique_ptr<Wait>>;  // by when they are looked at next

    void run();
    bool take_up();  // false: the end has come
    Waits take_due(Time now);
    void look(Waits due, Time now);
    [[nodiscard]] std::vector<Result<LookupOutcome>> look_up(const Waits& due);
    void look_again(Waits::node_type node, Time next);
    [[nodiscard]] static std::chrono::milliseconds pause(Wait& wait, Time now,
                                                         std::chrono::milliseconds at_most);
    void answer(std::unique_ptr<Wait> wait);
    [[nodiscard]] std::chrono::milliseconds until_next() const;

    Cache& cache_;
    const std::size_t waits_max_;
    Waiters::Sleeper sleeper_;
    Waits waits_;
    Mutex mutex_;
    Waits come_ DEDUP_GUARDED_BY(mutex_);             // not taken up yet
    std::size_t count_ DEDUP_GUARDED_BY(mutex_) = 0;  // added and not answered
    bool closed_ DEDUP_GUARDED_BY(mutex_) = false;
    bool stop_ DEDUP_GUARDED_BY(mutex_) = false;
    std::thread thread_;
};

}  // namespace dedup
