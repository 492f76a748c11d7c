#include "stop_signal.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <limits>

namespace dedupctl {

bool StopSignal::requested() {
    if (const auto signal = pipe_.take(); signal && !signal_) {
        signal_ = signal->number;
        source_.request_stop();
    }
    return signal_.has_value();
}

bool StopSignal::requested_within(std::chrono::milliseconds pause) {
    using std::chrono::milliseconds;
    using std::chrono::steady_clock;
    constexpr std::int64_t kPollMsMax = std::numeric_limits<int>::max();
    const steady_clock::time_point end = steady_clock::now() + pause;
    while (!requested()) {
        const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now());
        if (left <= milliseconds{0}) {
            return false;
        }
        const auto wait_ms = std::min<std::int64_t>(left.count(), kPollMsMax);
        pollfd event{.fd = pipe_.fd(), .events = POLLIN, .revents = 0};
        ::poll(&event, 1, static_cast<int>(wait_ms));
    }
    return true;
}

bool StopSignal::requested_before(int fd) {
    std::array<pollfd, 2> events{pollfd{.fd = fd, .events = POLLIN, .revents = 0},
                                 pollfd{.fd = pipe_.fd(), .events = POLLIN, .revents = 0}};
    while (::poll(events.data(), events.size(), -1) < 0 && errno == EINTR) {
    }
    return requested();
}

}  // namespace dedupctl
