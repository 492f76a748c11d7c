// The callers that wait for a key to be decided, through whichever cache of one store.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "dedup/store.hpp"

namespace dedup {

// Any thread may call it. `mutex_` is held for no I/O.
class Waiters {
  public:
    class Place;

    // Who sleeps until something is decided that it waits for. One thread at a time uses it.
    class Sleeper {
      public:
        explicit Sleeper(Waiters& waiters) : waiters_(waiters) {}

        // Returns when woken, or after `at_most`. A wake() before it is not lost.
        void sleep(std::chrono::milliseconds at_most) {
            std::unique_lock lock(waiters_.mutex_);
            woken_by_.wait_for(lock, at_most, [this] { return woken_; });
            woken_ = false;
        }

        // From any thread.
        void wake() {
            const std::lock_guard lock(waiters_.mutex_);
            wake_locked();
        }

        // Calls `decided` for each of its places whose stream was decided since this was asked
        // last. It must be quick and call nothing of the Waiters: all others wait for it.
        template <class Decided>
        void take_decided(const Decided& decided) {
            const std::lock_guard lock(waiters_.mutex_);
            while (!decided_.empty()) {
                Place& place = *decided_.front();
                place.undecided_.splice(place.undecided_.end(), decided_, decided_.begin());
                decided(place);
            }
        }

      private:
        friend class Waiters;
        void wake_locked() {
            woken_ = true;
            woken_by_.notify_one();
        }

        Waiters& waiters_;
        std::condition_variable woken_by_;
        bool woken_ = false;
        std::list<Place*> decided_;
    };

    // A sleeper's place among the waiters of `stream`, whose bytes outlive it.
    class Place {
      public:
        Place(Sleeper& sleeper, StreamKey stream)
            : waiters_(sleeper.waiters_), sleeper_(sleeper), ns_(stream.ns) {
            const std::lock_guard lock(waiters_.mutex_);
            at_ = waiters_.by_key_.emplace(stream.key, this);
        }
        ~Place() {
            const std::lock_guard lock(waiters_.mutex_);
            waiters_.by_key_.erase(at_);
            if (undecided_.empty()) {
                sleeper_.decided_.erase(listed_);
            }
        }
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;

      private:
        friend class Waiters;
        Waiters& waiters_;
        Sleeper& sleeper_;
        const std::string_view ns_;
        // This place, unless it is on the sleeper's list: the one node moves between the two.
        std::list<Place*> undecided_{this};
        const std::list<Place*>::iterator listed_ = undecided_.begin();
        std::unordered_multimap<std::string_view, Place*>::iterator at_;
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
            if (at->second->ns_ == stream.ns) {
                Place& place = *at->second;
                auto& decided = place.sleeper_.decided_;
                decided.splice(decided.end(), place.undecided_);
                place.sleeper_.wake_locked();
            }
        }
    }

    std::mutex mutex_;
    std::unordered_multimap<std::string_view, Place*> by_key_;
};

}  // namespace dedup
