// What the log keeps of the clock, beside what the store's clock knows.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/context.hpp"
#include "engine/view.hpp"

namespace dedup {

// One thread at a time calls adopt().
class LogClock {
  public:
    explicit LogClock(StoreContext& context) : context_(context) {}

    // Takes up what the log says of the clock. context.written_time_ms is as of `manifest`. Gives
    // what clock_changes() is when all of that is written down.
    std::uint64_t adopt(const Manifest& manifest);
    // Whether `manifest` says something else.
    [[nodiscard]] bool differs(const Manifest& manifest) const {
        return manifest.clock != adopted_;
    }

    // Why a sweep as of `now_ms` must remove nothing; nullopt if it may. For any thread.
    [[nodiscard]] std::optional<SweepWithheld> why_withheld(const View& view,
                                                            const SweepOptions& options,
                                                            std::int64_t now_ms) const;
    // The history with the jump that would be noted now. (A read-only store notes none, as only its
    // writer knows how long the store has rested.) For any thread.
    [[nodiscard]] ClockHistory as_seen() const;

  private:
    [[nodiscard]] std::int64_t seen_ms() const;

    StoreContext& context_;
    ClockHistory adopted_;
};

}  // namespace dedup
