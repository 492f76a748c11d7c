// The callers of one cache that wait for a key to be decided.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "dedup/cache.hpp"

namespace dedup {

class Cache::Waiters {
    struct Waiter {
        std::condition_variable woken_by;
        bool woken = false;
    };

  public:
    // One caller's place among the waiters of `key`, from construction to destruction. A wake()
    // is not lost if it comes after the construction, even if it comes before sleep().
    class Place {
      public:
        Place(Waiters& waiters, std::string_view key) : waiters_(waiters) {
            const std::lock_guard lock(waiters_.mutex_);
            at_ = waiters_.by_key_.emplace(key, &waiter_);
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

    // Wakes the waiters of each operation's key whose answer is not an error. Takes no lock if all
    // are: in a forked child, where nothing succeeds, it may be held by a thread of the parent.
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
            if (!answers[i]) {
                continue;
            }
            auto [at, end] = by_key_.equal_range(ops[i].key);
            for (; at != end; ++at) {
                at->second->woken = true;
                at->second->woken_by.notify_one();
            }
        }
    }

  private:
    std::mutex mutex_;
    std::unordered_multimap<std::string_view, Waiter*> by_key_;
};

}  // namespace dedup
