#pragma once

#include <expected>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cache/helpers.hpp"
#include "dedup/guard.hpp"

namespace dedup::test {

using Handled = std::expected<std::string, Failure>;

inline std::unique_ptr<Guard> guard_on(StreamStore& store, GuardOptions options = {}) {
    return must(Guard::start(store, std::move(options)));
}

inline Work gives(std::string result) {
    return [result = std::move(result)](const Attempt&) -> Handled { return result; };
}

inline Work fails(std::string message, bool transient = false) {
    return [failure = Failure{std::move(message), transient}](const Attempt&) -> Handled {
        return std::unexpected(failure);
    };
}

// Retries whose pauses pass in the store's time only, and are noted.
inline Retry noted_retry(ManualClock& clock, std::vector<milliseconds>& pauses) {
    return {
        .pause_min = 50ms, .pause_max = 400ms, .deadline = 3s, .sleep = [&](milliseconds pause) {
            pauses.push_back(pause);
            clock.advance(pause.count());
        }};
}

}  // namespace dedup::test
