// A clock that stands still until a test moves it, in either direction.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "dedup/store.hpp"

namespace dedup::test {

// Copies show the same time, and so does what clock() gives, for as long as anybody holds it.
class ManualClock {
  public:
    explicit ManualClock(std::int64_t now_ms = 1'000)
        : now_ms_(std::make_shared<std::atomic<std::int64_t>>(now_ms)) {}

    void set(std::int64_t now_ms) { *now_ms_ = now_ms; }
    void advance(std::int64_t by_ms) { *now_ms_ += by_ms; }
    [[nodiscard]] std::int64_t now_ms() const { return *now_ms_; }

    [[nodiscard]] Clock clock() const {
        return [time = now_ms_] { return time->load(); };
    }

  private:
    std::shared_ptr<std::atomic<std::int64_t>> now_ms_;
};

}  // namespace dedup::test
