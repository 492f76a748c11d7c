// The server's clock, as seen from here.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace dedup::pg {

// What the server last said, and the time since by this machine's steady clock. For any thread.
class ServerClock {
  public:
    // `server_ms` was the server's time somewhere between `sent` and now.
    void saw(std::int64_t server_ms, std::chrono::steady_clock::time_point sent) {
        const std::int64_t middle = (steady_ms(sent) + steady_ms(now())) / 2;
        offset_ms_ = server_ms - middle;
    }

    [[nodiscard]] std::int64_t now_ms() const {
        return std::max<std::int64_t>(0, steady_ms(now()) + offset_ms_);
    }

  private:
    static std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
    static std::int64_t steady_ms(std::chrono::steady_clock::time_point time) {
        return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch())
            .count();
    }

    std::atomic<std::int64_t> offset_ms_{0};
};

}  // namespace dedup::pg
