// How many events of a kind that strangers can cause are told one by one.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>
#include <utility>

namespace dedup::server {

// Of one kind. Of the reactor's thread.
class EventLimit {
  public:
    using Time = std::chrono::steady_clock::time_point;

    explicit EventLimit(std::string_view event) : what(event) {}
    const std::string_view what;

    // Whether one more may be told; if not, it is counted.
    [[nodiscard]] bool allows(Time now) {
        if (now - since_ >= kSpan) {
            since_ = now;
            told_ = 0;
        }
        if (told_ < kToldMax) {
            ++told_;
            return true;
        }
        ++untold_;
        return false;
    }
    // Those that were counted since the last call, when their time is over.
    [[nodiscard]] std::uint64_t take_untold(Time now) {
        return now - since_ >= kSpan ? std::exchange(untold_, 0) : 0;
    }

  private:
    static constexpr std::chrono::seconds kSpan{1};
    static constexpr int kToldMax = 10;

    Time since_{};
    int told_ = 0;
    std::uint64_t untold_ = 0;
};

}  // namespace dedup::server
