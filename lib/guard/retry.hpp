// Trying again: pauses with backoff and jitter, within a deadline.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "dedup/guard.hpp"

namespace dedup {

// The pauses of one thing that is tried again. `deadline_ms` is in the store's time.
class Backoff {
  public:
    Backoff(const Retry& retry, StreamStore& store, std::int64_t deadline_ms)
        : retry_(retry), store_(store), deadline_ms_(deadline_ms), bound_(retry.pause_min) {}

    // Pauses; false, and at once, if that would end after the deadline.
    [[nodiscard]] bool pause() {
        // What matters is that consumers differ, so one generator a thread does.
        static thread_local std::mt19937_64 random{std::random_device{}()};
        const auto longest = static_cast<std::uint64_t>(bound_.count());
        const std::chrono::milliseconds pause(1 + random() % longest);
        if (pause.count() > deadline_ms_ - store_.now_ms()) {
            return false;
        }
        if (retry_.sleep) {
            retry_.sleep(pause);
        } else {
            std::this_thread::sleep_for(pause);
        }
        bound_ = std::min(2 * bound_, retry_.pause_max);
        return true;
    }

  private:
    const Retry& retry_;
    StreamStore& store_;
    std::int64_t deadline_ms_;
    std::chrono::milliseconds bound_;
};

// In the store's time, of what begins now.
inline std::int64_t retry_deadline_ms(const Retry& retry, StreamStore& store) {
    constexpr std::chrono::milliseconds kMax = std::chrono::years{100};
    return store.now_ms() + std::min(retry.deadline, kMax).count();
}

// `call`, and again as long as the store is unavailable.
template <class Call>
auto call_until_available(Backoff backoff, const Call& call) {
    auto result = call();
    while (!result && result.error().code == Code::unavailable && backoff.pause()) {
        result = call();
    }
    return result;
}

// `call` with all requests, and again with those for which the store was unavailable.
template <class Request, class Call>
auto call_until_available(std::vector<Request> requests, Backoff backoff, const Call& call) {
    auto results = call(std::span<const Request>(requests));
    while (true) {
        std::vector<std::size_t> open;
        for (std::size_t i = 0; i < results.size(); ++i) {
            if (!results[i] && results[i].error().code == Code::unavailable) {
                open.push_back(i);
            }
        }
        if (open.empty() || !backoff.pause()) {
            return results;
        }
        std::vector<Request> again;
        again.reserve(open.size());
        for (const std::size_t i : open) {
            again.push_back(requests[i]);
        }
        auto more = call(std::span<const Request>(again));
        for (std::size_t i = 0; i < open.size(); ++i) {
            results[open[i]] = std::move(more[i]);
        }
    }
}

}  // namespace dedup
