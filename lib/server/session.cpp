#include "server/session.hpp"

#include <algorithm>
#include <charconv>

namespace dedup::server {
namespace {

constexpr std::size_t kCursorsMax = 1024;

char upper(char byte) {
    return byte >= 'a' && byte <= 'z' ? static_cast<char>(byte - 'a' + 'A') : byte;
}

template <class Number>
std::optional<Number> number_in(std::string_view text) {
    Number number = 0;
    const char* const end = text.data() + text.size();
    const auto [read, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || read != end) {
        return std::nullopt;
    }
    return number;
}

}  // namespace

std::uint64_t ScanCursors::number_of(std::string cursor) {
    if (cursor.empty()) {
        return 0;
    }
    cursors_.push_back(std::move(cursor));
    if (cursors_.size() > kCursorsMax) {
        cursors_.pop_front();
        ++first_;
    }
    return first_ + cursors_.size() - 1;
}

std::optional<std::string> ScanCursors::cursor_of(std::uint64_t number) const {
    if (number == 0) {
        return "";
    }
    if (number < first_ || number - first_ >= cursors_.size()) {
        return std::nullopt;
    }
    return cursors_[number - first_];
}

std::optional<std::int64_t> whole_number(std::string_view text) {
    return number_in<std::int64_t>(text);
}

std::optional<std::uint64_t> unsigned_number(std::string_view text) {
    return number_in<std::uint64_t>(text);
}

bool is_word(std::string_view text, std::string_view word) {
    return std::ranges::equal(text, word,
                              [](char given, char known) { return upper(given) == known; });
}

std::string lower_case(std::string_view text) {
    std::string lower_text(text);
    std::ranges::transform(lower_text, lower_text.begin(), [](char byte) {
        return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
    });
    return lower_text;
}

std::string upper_case(std::string_view text) {
    std::string upper_text(text);
    std::ranges::transform(upper_text, upper_text.begin(), upper);
    return upper_text;
}

}  // namespace dedup::server
