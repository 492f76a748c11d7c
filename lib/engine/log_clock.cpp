#include "engine/log_clock.hpp"

namespace dedup {

std::uint64_t LogClock::adopt(const Manifest& manifest) {
    StoreClock& clock = context_.clock;
    if (manifest.time_from_segment() !=
        (adopted_.resets.empty() ? 0 : adopted_.resets.back().segment)) {
        clock.set_time(context_.written_time_ms);
    }
    adopted_ = manifest.clock;
    clock.set_clock_history(manifest.clock);
    const std::uint64_t changes = clock.clock_changes();
    if (context_.options.trust_clock) {
        clock.trust_clock();
    }
    return changes;
}

std::int64_t LogClock::seen_ms() const {
    return context_.options.read_only ? context_.written_time_ms.load()
                                      : context_.clock.saw_time(0);
}

std::optional<SweepWithheld> LogClock::why_withheld(const View& view, const SweepOptions& options,
                                                    std::int64_t now_ms) const {
    const std::int64_t edge_ms = view.horizon.expired_before_ms;
    const std::int64_t grace_ms = context_.clock.grace().count();
    const ClockHistory clock = context_.clock.clock_history();
    if (now_ms - grace_ms < edge_ms && !clock.resets.empty()) {
        // What an earlier sweep has removed must stay so, and a horizon has one edge only.
        const ClockReset& reset = clock.resets.back();
        return SweepWithheld{reset.from_ms, reset.to_ms, edge_ms + grace_ms, true};
    }
    if (options.trust_clock || context_.options.trust_clock) {
        return std::nullopt;
    }
    return context_.clock.withheld(now_ms, seen_ms());
}

ClockHistory LogClock::as_seen() const {
    ClockHistory clock = context_.clock.clock_history();
    const std::int64_t from_ms = seen_ms();
    const std::int64_t to_ms = context_.clock.clock_ms();
    if (StoreClock::is_jump(from_ms, to_ms)) {
        ClockJump jump;
        jump.from_ms = from_ms;
        jump.to_ms = to_ms;
        clock.jumps.push_back(jump);
    }
    return clock;
}

}  // namespace dedup
