// Those who wait for keys without a thread of their own.
#pragma once

#include <chrono>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "cache/inside.hpp"
#include "dedup/async.hpp"
#include "env/mutex.hpp"

namespace dedup {

// One thread looks at all keys that are waited for: those that were decided at once, the others
// now and then. Any thread may add. `mutex_` guards what has come and the thread has not taken up
// yet; what it has is its own.
class AsyncWaits {
  public:
    // Throws std::system_error if there is no thread.
    explicit AsyncWaits(Cache& cache);
    ~AsyncWaits();  // answers all that wait, as things are
    AsyncWaits(const AsyncWaits&) = delete;
    AsyncWaits& operator=(const AsyncWaits&) = delete;

    void add(std::string key, std::chrono::milliseconds timeout, Answered<LookupOutcome> answered);

  private:
    using Time = std::chrono::steady_clock::time_point;
    struct Wait {
        std::string key;
        Time end;
        Answered<LookupOutcome> answered;
        std::optional<Waiters::Place> place = {};  // at its end, which the key outlives
        std::chrono::milliseconds poll{0};
        Time next = {};  // when it is looked at; the first time at once
    };

    void run();
    bool take_up();  // false: the end has come
    void look(bool at_all);
    [[nodiscard]] std::chrono::milliseconds until_next() const;

    Cache& cache_;
    Waiters::Sleeper sleeper_;
    std::list<Wait> waits_;
    Mutex mutex_;
    std::list<Wait> come_ DEDUP_GUARDED_BY(mutex_);
    bool stop_ DEDUP_GUARDED_BY(mutex_) = false;
    std::thread thread_;
};

}  // namespace dedup
