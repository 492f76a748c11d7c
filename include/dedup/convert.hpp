// The library's bytes are std::string_view, and its times milliseconds since 1970 (UTC). These are
// for programs that have std::byte and time points. For any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace dedup {

// For keys and receipts, as in cache.claim(from_bytes(key)). A view: the bytes must outlive it.
[[nodiscard]] inline std::string_view from_bytes(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

[[nodiscard]] inline std::span<const std::byte> to_bytes(std::string_view bytes) {
    return std::as_bytes(std::span(bytes));
}

// Of a member such as InFlight::lease_until_ms. None: it is 0, which says "never", or "not known".
[[nodiscard]] constexpr std::optional<std::chrono::sys_time<std::chrono::milliseconds>> to_time(
    std::int64_t ms) {
    using std::chrono::milliseconds;
    return ms == 0 ? std::nullopt
                   : std::optional(std::chrono::sys_time<milliseconds>(milliseconds(ms)));
}

// For a member such as ClaimOptions::expires_at_ms. What is finer than a millisecond is cut off
// towards the past.
template <class Duration>
[[nodiscard]] constexpr std::int64_t from_time(std::chrono::sys_time<Duration> time) {
    return std::chrono::floor<std::chrono::milliseconds>(time).time_since_epoch().count();
}

}  // namespace dedup
