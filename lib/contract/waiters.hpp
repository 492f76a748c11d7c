// The callers that wait for a key to be decided, through whichever cache of one store.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "dedup/store.hpp"

namespace dedup {

// Any thread may call it. `mutex_` is held for no I/O.
class Waiters {
    struct Waiter {
        std::string_view ns;
        std::condition_variable woken_by = {};
        bool woken = false;
    };

  public:
    // One caller's place among the waiters of `stream`, from construction to destruction. A wake()
    // is not lost if it comes after the construction, even if it comes before sleep().
    class Place {
      public:
        Place(Waiters& waiters, StreamKey stream) : waiters_(waiters), waiter_{stream.ns} {
            const std::lock_guard lock(waiters_.mutex_);
            at_ = waiters_.by_key_.emplace(stream.key, &waiter_);
        }
        ~Place() {
            const std::lock_guard lock(waiters_.mutex_);
            waiters_.by_key_.erase(at_);
        }
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;

        // Returns when woken, or after `at_most`.
        void sleep(std::chrono::milliseconds at_most) {
            std::unique_lock lock(waiters_.mutex_);
            waiter_.woken_by.wait_for(lock, at_most, [this] { return waiter_.woken; });
            waiter_.woken = false;
        }

      private:
        Waiters& waiters_;
        Waiter waiter_;
        std::unordered_multimap<std::string_view, Waiter*>::iterator at_;
    };

    // Wakes the waiters of each operation's stream whose answer is not an error. Takes no lock if
    // all are: in a forked child, where nothing succeeds, it may be held by a thread of the parent.
    template <class Ops, class Answers>
    void wake(const Ops& ops, const Answers& answers) {
        if (std::ranges::none_of(answers, [](const auto& answer) { return answer.has_value(); })) {
            return;
        }
        const std::lock_guard lock(mutex_);
        if (by_key_.empty()) {
            return;
        }
        for (std::size_t i = 0; i < ops.size(); ++i) {
            if (answers[i]) {
                wake_all({ops[i].cache.ns, ops[i].key});
            }
        }
    }

  private:
    void wake_all(StreamKey stream) {
        auto [at, end] = by_key_.equal_range(stream.key);
        for (; at != end; ++at) {
            if (at->second->ns == stream.ns) {
                at->second->woken = true;
                at->second->woken_by.notify_one();
            }
        }
    }

    std::mutex mutex_;
    std::unordered_multimap<std::string_view, Waiter*> by_key_;
};

}  // namespace dedup
