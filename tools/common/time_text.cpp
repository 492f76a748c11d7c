#include "common/time_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <ctime>
#include <limits>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "dedup/cache.hpp"

namespace dedupctl {
namespace {

struct Unit {
    std::string_view name;
    std::int64_t ms;
};

// Largest first.
constexpr std::array kUnits{Unit{"d", 86'400'000}, Unit{"h", 3'600'000}, Unit{"m", 60'000},
                            Unit{"s", 1'000}, Unit{"ms", 1}};

bool times_in_utc = false;

Failure bad_duration(std::string_view text, std::string_view option, std::string_view why) {
    return usage_failure(
        fmt::format("{}: '{}' {}; write a duration such as 500ms, 30s, 15m, 24h, "
                    "7d or 1h30m",
                    option, escape(text), why));
}

}  // namespace

milliseconds parse_duration(std::string_view text, std::string_view option, milliseconds min) {
    if (text.empty() || text.front() == '-') {
        throw bad_duration(text, option, text.empty() ? "is empty" : "is negative");
    }
    std::int64_t total = 0;
    std::int64_t last_unit = std::numeric_limits<std::int64_t>::max();
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at != end) {
        std::int64_t number = 0;
        const auto [rest, error] = std::from_chars(at, end, number);
        if (error == std::errc::result_out_of_range) {
            throw bad_duration(text, option, "is too long");
        }
        if (error != std::errc{} || *at == '-') {
            throw bad_duration(text, option, "is not a duration");
        }
        const char* unit_end = rest;
        while (unit_end != end && (*unit_end < '0' || *unit_end > '9')) {
            ++unit_end;
        }
        const std::string_view name(rest, static_cast<std::size_t>(unit_end - rest));
        if (name.empty()) {
            throw bad_duration(text, option, "has no unit");
        }
        std::int64_t unit = 0;
        for (const Unit& candidate : kUnits) {
            if (candidate.name == name) {
                unit = candidate.ms;
            }
        }
        if (unit == 0 || unit >= last_unit) {
            throw bad_duration(text, option, "is not a duration");
        }
        if (__builtin_mul_overflow(number, unit, &number) ||
            __builtin_add_overflow(total, number, &total)) {
            throw bad_duration(text, option, "is too long");
        }
        last_unit = unit;
        at = unit_end;
    }
    // The far end of the int64 range stands for "never" in the library; no real duration needs it.
    if (total > std::numeric_limits<std::int64_t>::max() / 4) {
        throw bad_duration(text, option, "is too long");
    }
    if (milliseconds{total} < min) {
        throw bad_duration(text, option, fmt::format("is less than {}", format_duration(min)));
    }
    return milliseconds{total};
}

milliseconds parse_ttl(std::string_view text) {
    return text == "never" ? dedup::kForever : parse_duration(text, "--ttl");
}

std::string format_duration(milliseconds duration) {
    constexpr std::int64_t kMsMax = std::numeric_limits<std::int64_t>::max() / 2;
    std::int64_t left = std::abs(std::clamp(duration.count(), -kMsMax, kMsMax));
    // Rounded to the smaller of the two units that are shown, or a lease of 30s that was granted a
    // moment ago would end "in 29s".
    const std::int64_t step = left >= 86'400'000  ? 3'600'000
                              : left >= 3'600'000 ? 60'000
                              : left >= 1'000     ? 1'000
                                                  : 1;
    left = (left + step / 2) / step * step;
    std::string text;
    for (const Unit& unit : kUnits) {
        if (left >= unit.ms) {
            text += fmt::format("{}{}", left / unit.ms, unit.name);
            left %= unit.ms;
        }
    }
    return text.empty() ? "0s" : text;
}

void show_times_in_utc(bool utc) {
    times_in_utc = utc;
}

std::string format_time(std::int64_t time_ms) {
    const std::time_t seconds = time_ms / 1000;
    std::tm parts{};
    std::array<char, 64> text{};
    if ((times_in_utc ? gmtime_r(&seconds, &parts) : localtime_r(&seconds, &parts)) == nullptr) {
        return fmt::format("{} ms", time_ms);  // a year that does not fit
    }
    const std::string time(text.data(),
                           std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts));
    const long minutes = parts.tm_gmtoff / 60;
    return minutes == 0 ? time + "Z"
                        : fmt::format("{}{}{:02}:{:02}", time, minutes < 0 ? '-' : '+',
                                      std::abs(minutes) / 60, std::abs(minutes) % 60);
}

std::string format_age(std::int64_t time_ms, std::int64_t now_ms) {
    std::int64_t passed = 0;
    if (__builtin_sub_overflow(now_ms, time_ms, &passed)) {  // a time that only damage can give
        passed = now_ms < 0 ? std::numeric_limits<std::int64_t>::min()
                            : std::numeric_limits<std::int64_t>::max();
    }
    if (passed > -1000 && passed < 1000) {
        return "now";
    }
    const std::string distance = format_duration(milliseconds{passed});
    return passed > 0 ? distance + " ago" : "in " + distance;
}

std::string with_times_told(std::string message) {
    constexpr std::string_view kBefore = " since ";
    const std::size_t at = message.rfind(kBefore);
    if (at == std::string::npos) {
        return message;
    }
    const std::size_t begin = at + kBefore.size();
    std::tm parts{};
    const char* const behind = ::strptime(message.c_str() + begin, "%Y-%m-%d %H:%M:%SZ (", &parts);
    const std::size_t end = message.find(')', begin);
    if (behind == nullptr || end == std::string::npos) {
        return message;
    }
    const auto now = std::chrono::time_point_cast<milliseconds>(std::chrono::system_clock::now());
    return message.replace(
        begin, end + 1 - begin,
        format_time_and_age(std::int64_t{::timegm(&parts)} * 1000, now.time_since_epoch().count()));
}

std::string format_time_and_age(std::int64_t time_ms, std::int64_t now_ms) {
    return fmt::format("{} ({})", format_time(time_ms), format_age(time_ms, now_ms));
}

}  // namespace dedupctl
