// Durations and times as people write and read them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace dedupctl {

using std::chrono::milliseconds;

// Reads "500ms", "30s", "15m", "24h", "7d", or several of these, largest unit first ("1h30m").
// Throws a usage Failure that names `option` for anything else: a bare number, a negative one, one
// that does not fit, or less than `min`.
[[nodiscard]] milliseconds parse_duration(std::string_view text, std::string_view option,
                                          milliseconds min = milliseconds{1});

// As parse_duration, and "never" gives dedup::kForever.
[[nodiscard]] milliseconds parse_ttl(std::string_view text);

// Rounded to two units: "420ms", "30s", "1h30m", "3d4h". Negative durations lose their sign.
[[nodiscard]] std::string format_duration(milliseconds duration);

// From now on times are shown in UTC, or in local time again.
void show_times_in_utc(bool utc);

// "2026-03-01 12:00:00+01:00" in local time, "2026-03-01 11:00:00Z" in UTC.
[[nodiscard]] std::string format_time(std::int64_t time_ms);

// "3m ago", "in 20s" or "now".
[[nodiscard]] std::string format_age(std::int64_t time_ms, std::int64_t now_ms);

// The library says since when somebody writes in UTC: the same message, with that as below.
[[nodiscard]] std::string with_times_told(std::string message);

// "2026-03-01 12:00:00+01:00 (3m ago)".
[[nodiscard]] std::string format_time_and_age(std::int64_t time_ms, std::int64_t now_ms);

}  // namespace dedupctl
