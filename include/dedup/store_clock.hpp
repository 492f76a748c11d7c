// The time of one store: what every engine reads it from.
//
// It never runs backwards, and a jump forward is noted before anybody can see the time behind it.
// Users of a store need StreamStore::now_ms only; this is for engines.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include "dedup/clock.hpp"
#include "dedup/export.hpp"
#include "dedup/sweep.hpp"

namespace dedup {

// Gives the time in milliseconds since 1970-01-01 UTC. Called from many threads at once; must not
// throw.
using Clock = std::function<std::int64_t()>;

// The operating system's clock; 0 if that is set before 1970.
[[nodiscard]] DEDUP_API std::int64_t system_now_ms();

// Any number of threads may use one, but for set_time and set_jumps.
class DEDUP_API StoreClock {
  public:
    // What becomes of a jump of the clock.
    enum class Jumps : std::uint8_t {
        withhold,  // it is noted, and sweeps remove nothing for a day
        trust,     // it is noted, and that is all
        ignore,    // it is not noted
    };

    StoreClock(Clock clock, std::chrono::milliseconds grace, Jumps jumps)
        : clock_(std::move(clock)), grace_(grace), jumps_(jumps) {}

    // The clock's time, but never less than the highest that has been seen.
    [[nodiscard]] std::int64_t now_ms() { return watch_time(clock_()); }
    [[nodiscard]] std::chrono::milliseconds grace() const { return grace_; }

    // Raises the highest time seen to `time_ms` if that is later; returns the highest.
    std::int64_t saw_time(std::int64_t time_ms) {
        std::int64_t high = time_high_ms_.load(std::memory_order_relaxed);
        while (time_ms > high && !time_high_ms_.compare_exchange_weak(high, time_ms)) {
        }
        return std::max(high, time_ms);
    }

    // Whether a step from one time to another is a jump. The first time that a store sees is none.
    [[nodiscard]] static bool is_jump(std::int64_t from_ms, std::int64_t to_ms) {
        return from_ms > 0 && to_ms > from_ms && to_ms - from_ms > kClockJump.count();
    }
    // Whether seeing this time now would be one.
    [[nodiscard]] bool would_jump(std::int64_t time_ms) const {
        return is_jump(time_high_ms_.load(std::memory_order_acquire), time_ms);
    }
    // As saw_time, and takes notice of a jump: before anybody can see the time behind it.
    std::int64_t watch_time(std::int64_t time_ms) {
        if (would_jump(time_ms)) [[unlikely]] {
            note_jump(time_ms);
        }
        return saw_time(time_ms);
    }

    // What the clock says. The store does not see that time.
    [[nodiscard]] std::int64_t clock_ms() const { return clock_(); }

    // Why a sweep as of `now_ms` must remove nothing, when `seen_ms` is the highest time seen so
    // far: nothing, if it may.
    [[nodiscard]] std::optional<SweepWithheld> withheld(std::int64_t now_ms,
                                                        std::int64_t seen_ms) const;
    void trust_clock();  // settles all jumps so far

    // Changes whenever clock_history() does.
    [[nodiscard]] std::uint64_t clock_changes() const {
        return clock_changes_.load(std::memory_order_acquire);
    }
    [[nodiscard]] ClockHistory clock_history() const;
    // The same, for writing it down: `sequence` is now known of its jumps, and `changes` is as of
    // this history.
    [[nodiscard]] ClockHistory clock_history_at(std::uint64_t sequence, std::uint64_t& changes);
    // Takes over what was written down.
    void set_clock_history(ClockHistory history);
    // Sets the time back. No other thread may be asking for the time, unless it may get either.
    void set_time(std::int64_t time_ms) { time_high_ms_ = time_ms; }
    void set_jumps(Jumps jumps) { jumps_ = jumps; }

  private:
    void note_jump(std::int64_t time_ms);

    Clock clock_;
    std::chrono::milliseconds grace_;
    Jumps jumps_;
    std::atomic<std::int64_t> time_high_ms_{0};
    mutable std::mutex mutex_;  // guards history_; the last in the order of locks
    ClockHistory history_;
    std::atomic<std::uint64_t> clock_changes_{0};
};

}  // namespace dedup
