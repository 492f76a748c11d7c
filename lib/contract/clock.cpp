#include <algorithm>
#include <chrono>

#include "dedup/store_clock.hpp"

namespace dedup {
namespace {

template <class T>
void keep_newest(std::vector<T>& events) {
    if (events.size() > kClockEventsMax) {
        events.erase(events.begin(), events.end() - kClockEventsMax);
    }
}

}  // namespace

std::int64_t system_now_ms() {
    using namespace std::chrono;
    const auto since_1970 = system_clock::now().time_since_epoch();
    return std::max<std::int64_t>(0, duration_cast<milliseconds>(since_1970).count());
}

void StoreClock::note_jump(std::int64_t time_ms) {
    const std::lock_guard lock(mutex_);
    const std::int64_t high_ms = saw_time(0);
    if (jumps_ != Jumps::ignore && is_jump(high_ms, time_ms)) {
        ClockJump jump;
        jump.from_ms = high_ms;
        jump.to_ms = time_ms;
        jump.settled = jumps_ == Jumps::trust;
        history_.jumps.push_back(jump);
        keep_newest(history_.jumps);
        ++clock_changes_;
    }
    // Under the lock: whoever sees this time finds the jump, too.
    saw_time(time_ms);
}

std::optional<SweepWithheld> StoreClock::withheld(std::int64_t now_ms, std::int64_t seen_ms) const {
    const std::lock_guard lock(mutex_);
    if (jumps_ == Jumps::trust) {
        return std::nullopt;
    }
    ClockJump last;
    if (is_jump(seen_ms, now_ms)) {
        last.from_ms = seen_ms;
        last.to_ms = now_ms;
    } else if (!history_.jumps.empty()) {
        last = history_.jumps.back();
    }
    if (last.to_ms == 0 || last.settled || now_ms - last.to_ms >= kClockJump.count()) {
        return std::nullopt;
    }
    const std::int64_t until_ms = std::min(last.to_ms, INT64_MAX - kClockJump.count());
    return SweepWithheld{last.from_ms, last.to_ms, until_ms + kClockJump.count()};
}

void StoreClock::trust_clock() {
    const std::lock_guard lock(mutex_);
    for (ClockJump& jump : history_.jumps) {
        clock_changes_ += jump.settled ? 0 : 1;
        jump.settled = true;
    }
}

ClockHistory StoreClock::clock_history() const {
    const std::lock_guard lock(mutex_);
    return history_;
}

ClockHistory StoreClock::clock_history_at(std::uint64_t sequence, std::uint64_t& changes) {
    const std::lock_guard lock(mutex_);
    for (ClockJump& jump : history_.jumps) {
        jump.sequence = std::min(jump.sequence, sequence);
    }
    changes = clock_changes_;
    return history_;
}

void StoreClock::set_clock_history(ClockHistory history) {
    const std::lock_guard lock(mutex_);
    history_ = std::move(history);
    keep_newest(history_.jumps);
    keep_newest(history_.resets);
    ++clock_changes_;
}

}  // namespace dedup
