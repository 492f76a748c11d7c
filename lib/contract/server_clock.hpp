// A server's clock, as seen from here.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>

namespace dedup {

// What the server last said, and the time that has passed here since. For any thread.
class ServerClock {
  public:
    // `server_ms` was the server's time somewhere between `sent` and now: half-way, as far as
    // anybody knows. Who gives the time of now gets one that is never ahead of the server's.
    void saw(std::int64_t server_ms, std::chrono::steady_clock::time_point sent) {
        const auto under_way = std::chrono::duration_cast<std::chrono::milliseconds>(
            std::chrono::steady_clock::now() - sent);
        const std::int64_t now = passed_ms();
        offset_ms_ = server_ms - (now - under_way.count() / 2);
        seen_ms_ = now;
    }

    [[nodiscard]] std::int64_t now_ms() const {
        return std::max<std::int64_t>(0, passed_ms() + offset_ms_);
    }
    // Since the server last said anything.
    [[nodiscard]] std::int64_t age_ms() const { return passed_ms() - seen_ms_; }

  private:
    // Also while the machine sleeps, which std::chrono::steady_clock does not count.
    static std::int64_t passed_ms() {
        timespec now{};
        ::clock_gettime(CLOCK_BOOTTIME, &now);
        return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
    }

    std::atomic<std::int64_t> offset_ms_{0};
    std::atomic<std::int64_t> seen_ms_{0};
};

}  // namespace dedup
