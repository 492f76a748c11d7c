#include "timestamp.hpp"

#include <charconv>
#include <chrono>

namespace dedupctl {
namespace {

// Reads from the front of a text; once something is missing, everything is.
class Scanner {
  public:
    explicit Scanner(std::string_view text) : rest_(text) {}

    // Exactly `digits` digits that are at most `max`.
    int number(std::size_t digits, int max) {
        int value = 0;
        const char* const end = rest_.data() + std::min(digits, rest_.size());
        const auto [at, error] = std::from_chars(rest_.data(), end, value);
        if (rest_.size() < digits || rest_.front() == '-' || error != std::errc{} || at != end ||
            value > max) {
            good_ = false;
            return 0;
        }
        rest_.remove_prefix(digits);
        return value;
    }

    bool take(std::string_view any_of) {
        if (rest_.empty() || any_of.find(rest_.front()) == std::string_view::npos) {
            return false;
        }
        last_ = rest_.front();
        rest_.remove_prefix(1);
        return true;
    }
    void need(std::string_view any_of) { good_ = take(any_of) && good_; }

    // The digits behind a decimal point, in milliseconds.
    std::int64_t fraction_ms() {
        std::int64_t ms = 0;
        std::int64_t unit = 100;
        std::size_t digits = 0;
        while (take("0123456789")) {
            ms += (last_ - '0') * unit;
            unit /= 10;
            ++digits;
        }
        good_ = good_ && digits != 0;
        return ms;
    }

    [[nodiscard]] char last() const { return last_; }
    [[nodiscard]] bool good() const { return good_; }
    [[nodiscard]] bool ended() const { return rest_.empty(); }

  private:
    std::string_view rest_;
    char last_ = '\0';
    bool good_ = true;
};

// How far the zone is ahead of UTC, in minutes: "Z", "+00", "-0330", "+05:30", or nothing.
std::int64_t zone_minutes(Scanner& scanner) {
    if (scanner.ended() || scanner.take("Zz")) {
        return 0;
    }
    scanner.need("+-");
    const std::int64_t sign = scanner.last() == '-' ? -1 : 1;
    std::int64_t minutes = scanner.number(2, 18) * 60;
    if (!scanner.ended()) {
        scanner.take(":");
        minutes += scanner.number(2, 59);
    }
    return sign * minutes;
}

}  // namespace

std::optional<std::int64_t> parse_timestamp(std::string_view text) {
    Scanner scanner(text);
    const std::chrono::year year(scanner.number(4, 9999));
    scanner.need("-");
    const std::chrono::month month(static_cast<unsigned>(scanner.number(2, 12)));
    scanner.need("-");
    const std::chrono::day day(static_cast<unsigned>(scanner.number(2, 31)));
    scanner.need("Tt ");
    std::int64_t seconds = scanner.number(2, 23) * 3600;
    scanner.need(":");
    seconds += scanner.number(2, 59) * 60;
    scanner.need(":");
    seconds += scanner.number(2, 60);  // a leap second is the next one here
    const std::int64_t fraction_ms = scanner.take(".,") ? scanner.fraction_ms() : 0;
    seconds -= zone_minutes(scanner) * 60;
    const std::chrono::year_month_day date{year, month, day};
    if (!scanner.good() || !scanner.ended() || !date.ok()) {
        return std::nullopt;
    }
    const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
    const std::int64_t ms = (days * 86'400 + seconds) * 1000 + fraction_ms;
    return ms < 0 ? std::nullopt : std::optional(ms);
}

}  // namespace dedupctl
