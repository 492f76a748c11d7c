// The callers that wait for a key to be decided, through whichever cache of one store.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "dedup/store.hpp"

namespace dedup {

// Tells a store's waiters what others decide, where somebody can: a server.
class Announcer {
  public:
    Announcer() = default;
    Announcer(const Announcer&) = delete;
    Announcer& operator=(const Announcer&) = delete;
    virtual ~Announcer() = default;

    // Has the waiters of `stream` woken once it is decided; also, for nothing, after `at_most` or
    // before. False: it does not, so they have to look. Any thread; throws nothing.
    [[nodiscard]] virtual bool announce(StreamKey stream, std::chrono::milliseconds at_most) = 0;
};

// Any thread may call it. `mutex_` is held for no I/O.
class Waiters {
  public:
    class Place;

    // How often those who wait look for what others decide, if nobody announces that. The pause
    // grows from the one to the other.
    static constexpr std::chrono::milliseconds kPauseMin{1};
    static constexpr std::chrono::milliseconds kPauseMax{50};

    // Who sleeps until something is decided that it waits for. One thread at a time uses it.
    class Sleeper {
      public:
        explicit Sleeper(Waiters& waiters) : waiters_(waiters) {}

        // Returns when woken, or after `at_most`. A wake() before it is not lost.
        void sleep(std::chrono::milliseconds at_most) {
            constexpr std::chrono::hours kMost{24 * 365};  // what a clock can add
            std::unique_lock lock(waiters_.mutex_);
            woken_by_.wait_for(lock, std::min<std::chrono::milliseconds>(at_most, kMost),
                               [this] { return woken_; });
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
            waiters_.places_.fetch_add(1, std::memory_order_acq_rel);
        }
        ~Place() {
            const std::lock_guard lock(waiters_.mutex_);
            waiters_.places_.fetch_sub(1, std::memory_order_relaxed);
            waiters_.by_key_.erase(at_);
            if (undecided_.empty()) {
                sleeper_.decided_.erase(listed_);
            }
        }
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;

        // How long the sleeper may sleep, of `left`, when a look has found nothing new: until it is
        // woken, if the stream is announced, or until the next look. Called by the sleeper's
        // thread.
        [[nodiscard]] std::chrono::milliseconds pause(std::chrono::milliseconds left) {
            pause_ = std::clamp(2 * pause_, kPauseMin, kPauseMax);
            if (waiters_.announcer_ == nullptr) {
                return waiters_.until_look(pause_, left);
            }
            // An announcement for nothing, as where two clocks differ, is not asked for again at
            // once.
            const auto now = std::chrono::steady_clock::now();
            if (now < not_before_) {
                return std::min(left,
                                std::chrono::ceil<std::chrono::milliseconds>(not_before_ - now));
            }
            not_before_ = now + pause_;
            return waiters_.announcer_->announce({ns_, at_->first}, left)
                       ? left
                       : waiters_.until_look(pause_, left);
        }

      private:
        friend class Waiters;
        Waiters& waiters_;
        Sleeper& sleeper_;
        const std::string_view ns_;
        // This place, unless it is on the sleeper's list: the one node moves between the two.
        std::list<Place*> undecided_{this};
        const std::list<Place*>::iterator listed_ = undecided_.begin();
        std::unordered_multimap<std::string_view, Place*>::iterator at_;
        std::chrono::milliseconds pause_{0};                  // of the sleeper's thread
        std::chrono::steady_clock::time_point not_before_{};  // likewise
    };

    // Before anybody waits. It outlives all who do.
    void set_announcer(Announcer& announcer) { announcer_ = &announcer; }

    // For tests: who is not woken looks no more, and so nothing but a wake ends a wait.
    void look_never() { looks_ = false; }

    // Wakes the waiters of each operation's stream whose answer is not an error. Takes no lock if
    // all are: in a forked child, where nothing succeeds, it may be held by a thread of the parent.
    template <class Ops, class Answers>
    void wake(const Ops& ops, const Answers& answers) {
        const bool all_failed =
            std::ranges::none_of(answers, [](const auto& answer) { return answer.has_value(); });
        if (all_failed || nobody_waits()) {
            return;
        }
        const std::lock_guard lock(mutex_);
        for (std::size_t i = 0; i < ops.size(); ++i) {
            if (answers[i]) {
                wake_places({ops[i].cache.ns, ops[i].key});
            }
        }
    }

    // Wakes those of one stream.
    void wake(StreamKey stream) {
        if (!nobody_waits()) {
            const std::lock_guard lock(mutex_);
            wake_places(stream);
        }
    }

    // Wakes all, whatever they wait for.
    void wake_all() {
        const std::lock_guard lock(mutex_);
        for (const auto& [key, place] : by_key_) {
            wake_place(*place);
        }
    }

  private:
    // Whoever waits takes a place (1) and then looks (2). Whoever decides has appended (3), and
    // then asks this (4). 1 and 4 change one atomic number, so one of them comes first. If 1 does,
    // 4 sees the place. If 4 does, 1 acquires what 4 released, hence 3 happens before 2, and the
    // look finds what was decided. A mere load in 4 could miss a place whose look misses the
    // append.
    [[nodiscard]] bool nobody_waits() {
        return places_.fetch_add(0, std::memory_order_acq_rel) == 0;
    }

    [[nodiscard]] std::chrono::milliseconds until_look(std::chrono::milliseconds pause,
                                                       std::chrono::milliseconds left) const {
        return looks_ ? std::min(pause, left) : left;
    }

    void wake_places(StreamKey stream) {
        auto [at, end] = by_key_.equal_range(stream.key);
        for (; at != end; ++at) {
            if (at->second->ns_ == stream.ns) {
                wake_place(*at->second);
            }
        }
    }

    static void wake_place(Place& place) {
        auto& decided = place.sleeper_.decided_;
        decided.splice(decided.end(), place.undecided_);
        place.sleeper_.wake_locked();
    }

    std::mutex mutex_;
    std::unordered_multimap<std::string_view, Place*> by_key_;
    std::atomic<std::size_t> places_ = 0;  // those of by_key_
    Announcer* announcer_ = nullptr;
    std::atomic<bool> looks_ = true;
};

}  // namespace dedup
