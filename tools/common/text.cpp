#include "common/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "common/failure.hpp"

namespace dedupctl {
namespace {

// The length of the well-formed UTF-8 character that `bytes` starts with, or 0.
std::size_t character_length(std::string_view bytes) {
    const auto at = [&](std::size_t i) {
        return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U;
    };
    const auto continues = [&](std::size_t i) { return (at(i) & 0xc0U) == 0x80U; };
    const unsigned first = at(0);
    const unsigned second = at(1);
    if (bytes.empty()) {
        return 0;
    }
    if (first < 0x80) {
        return 1;
    }
    if (first >= 0xc2 && first <= 0xdf) {
        return continues(1) ? 2 : 0;
    }
    if (first >= 0xe0 && first <= 0xef) {
        const bool overlong = first == 0xe0 && second < 0xa0;
        const bool surrogate = first == 0xed && second >= 0xa0;
        return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        const bool overlong = first == 0xf0 && second < 0x90;
        const bool beyond = first == 0xf4 && second >= 0x90;
        return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
    }
    return 0;
}

// The code point of a well-formed character.
std::uint32_t code_point(std::string_view character) {
    const auto first = static_cast<unsigned char>(character.front());
    std::uint32_t point = character.size() == 1 ? first : first & (0x7fU >> character.size());
    for (const char byte : character.substr(1)) {
        point = point << 6U | (static_cast<unsigned char>(byte) & 0x3fU);
    }
    return point;
}

// Characters that steer a terminal, turn the order of the text around them, end a line, or cannot
// be seen: with them a key could pass for another, or write into the line of one (the Unicode
// Standard, chapters 23.1 and 23.2).
bool is_unsafe(std::uint32_t point) {
    constexpr std::array<std::pair<std::uint32_t, std::uint32_t>, 11> kUnsafe = {{
        {0x00, 0x1f},        // C0 controls
        {0x7f, 0x9f},        // DEL, C1 controls
        {0xad, 0xad},        // soft hyphen
        {0x61c, 0x61c},      // Arabic letter mark
        {0x180e, 0x180e},    // Mongolian vowel separator
        {0x200b, 0x200f},    // zero width, directional marks
        {0x2028, 0x202e},    // line and paragraph separator, directional embeddings
        {0x2060, 0x206f},    // word joiner, directional isolates, deprecated formatting
        {0xfeff, 0xfeff},    // byte order mark
        {0xfff9, 0xfffb},    // interlinear annotation
        {0xe0000, 0xe0fff},  // tags, variation selectors
    }};
    return std::ranges::any_of(kUnsafe, [point](const auto& range) {
        return point >= range.first && point <= range.second;
    });
}

void append_bytes_escaped(std::string_view bytes, std::string& out) {
    for (const char byte : bytes) {
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    }
}

// The first character, or one byte that belongs to none; not of an empty text.
std::string_view first_character(std::string_view bytes) {
    return bytes.substr(0, std::max<std::size_t>(1, character_length(bytes)));
}

bool is_shown(std::string_view character) {
    return character_length(character) != 0 && !is_unsafe(code_point(character));
}

void append_escaped(std::string_view character, std::string& out) {
    if (character == "\\") {
        out += "\\\\";
    } else if (is_shown(character)) {
        out += character;
    } else {
        append_bytes_escaped(character, out);
    }
}

// Appends each character of `bytes` by `append`.
template <class Append>
std::string transform(std::string_view bytes, Append append) {
    std::string out;
    out.reserve(bytes.size());
    while (!bytes.empty()) {
        const std::string_view character = first_character(bytes);
        append(character, out);
        bytes.remove_prefix(character.size());
    }
    return out;
}

}  // namespace

bool is_utf8(std::string_view bytes) {
    while (!bytes.empty()) {
        const std::size_t length = character_length(bytes);
        if (length == 0) {
            return false;
        }
        bytes.remove_prefix(length);
    }
    return true;
}

std::string escape(std::string_view bytes) {
    return transform(bytes, append_escaped);
}

std::string message_text(std::string_view message) {
    return transform(message, [](std::string_view character, std::string& out) {
        if (character == "\n" || is_shown(character)) {
            out += character;
        } else {
            append_bytes_escaped(character, out);
        }
    });
}

std::string json_text(std::string_view json) {
    return transform(json, [](std::string_view character, std::string& out) {
        const std::uint32_t point = code_point(character);
        if (is_shown(character)) {
            out += character;
        } else if (point < 0x10000) {
            out += fmt::format("\\u{:04x}", point);
        } else {
            out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((point - 0x10000) >> 10U),
                               0xdc00 + (point & 0x3ffU));
        }
    });
}

std::string preview(std::string_view bytes, std::size_t columns_max) {
    constexpr std::string_view kMore = "...";
    // Every byte gives at most a column more than it needs, so this much is always enough to see
    // whether all of it fits.
    std::string text = escape(bytes.substr(0, columns_max * 4 + 4));
    if (columns(text) <= columns_max) {
        return text;
    }
    std::string out;
    std::size_t used = 0;
    std::string_view rest = bytes;
    while (!rest.empty()) {
        const std::string_view character = first_character(rest);
        std::string next;
        append_escaped(character, next);
        if (used + columns(next) + kMore.size() > columns_max) {
            break;
        }
        used += columns(next);
        out += next;
        rest.remove_prefix(character.size());
    }
    return out.append(kMore);
}

std::size_t columns(std::string_view utf8) {
    std::size_t count = 0;
    for (const char byte : utf8) {
        count += (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U;
    }
    return count;
}

std::string shell_word(std::string_view bytes) {
    constexpr std::string_view kPlain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-";
    if (!bytes.empty() && bytes.find_first_not_of(kPlain) == std::string_view::npos) {
        return std::string(bytes);
    }
    std::string quoted;
    for (const char c : escape(bytes)) {
        quoted.append(c == '\'' ? "\\" : "").push_back(c);
    }
    const bool simple = quoted == bytes;
    return (simple ? "'" : "$'") + quoted + "'";
}

std::string base64(std::string_view bytes) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::size_t present = std::min<std::size_t>(3, bytes.size() - i);
        unsigned group = 0;
        for (std::size_t j = 0; j < 3; ++j) {
            group = group << 8U | (j < present ? static_cast<unsigned char>(bytes[i + j]) : 0U);
        }
        for (std::size_t j = 0; j < 4; ++j) {
            out += j <= present ? kDigits[group >> (18 - 6 * j) & 63U] : '=';
        }
    }
    return out;
}

std::optional<std::string> from_base64(std::string_view text) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::array<std::int8_t, 256> values{};
    values.fill(-1);
    for (std::size_t i = 0; i < kDigits.size(); ++i) {
        values[static_cast<unsigned char>(kDigits[i])] = static_cast<std::int8_t>(i);
    }
    const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
    std::string bytes;
    bytes.reserve(text.size() / 4 * 3);
    std::uint32_t group = 0;
    for (std::size_t i = 0; i + padding < text.size(); ++i) {
        const std::int8_t value = values[static_cast<unsigned char>(text[i])];
        if (value < 0) {
            return std::nullopt;
        }
        group = group << 6U | static_cast<std::uint32_t>(value);
        if (i % 4 == 3) {
            bytes += {static_cast<char>(group >> 16U), static_cast<char>(group >> 8U),
                      static_cast<char>(group)};
        }
    }
    if (padding != 0) {
        group <<= 6U * padding;
        bytes += static_cast<char>(group >> 16U);
        if (padding == 1) {
            bytes += static_cast<char>(group >> 8U);
        }
    }
    const bool whole = text.size() % 4 == 0;
    // Bits that say nothing must be zero, or two texts would stand for the same bytes.
    const std::uint32_t unused = padding == 0 ? 0 : group & (padding == 1 ? 0xffU : 0xffffU);
    return whole && unused == 0 ? std::optional(std::move(bytes)) : std::nullopt;
}

std::string group_digits(std::uint64_t number) {
    const std::string digits = std::to_string(number);
    std::string grouped;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i != 0 && (digits.size() - i) % 3 == 0) {
            grouped += ',';
        }
        grouped += digits[i];
    }
    return grouped;
}

std::string count_of(std::uint64_t number, std::string_view singular) {
    return fmt::format("{} {}{}", group_digits(number), singular, number == 1 ? "" : "s");
}

std::string human_bytes(std::uint64_t bytes) {
    constexpr std::array kNames{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        return fmt::format("{} B", bytes);
    }
    double scaled = static_cast<double>(bytes) / 1024;
    std::size_t unit = 0;
    while (scaled >= 1023.95 && unit + 1 < kNames.size()) {
        scaled /= 1024;
        ++unit;
    }
    return fmt::format("{:.1f} {}", scaled, kNames[unit]);
}

std::uint64_t parse_number(std::string_view text, std::string_view option, std::uint64_t min,
                           std::uint64_t max) {
    std::uint64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || rest != end || number < min || number > max) {
        throw usage_failure(fmt::format("{}: '{}' is not a whole number from {} to {}", option,
                                        escape(text), min, max));
    }
    return number;
}

std::uint64_t parse_size(std::string_view text, std::string_view option, std::uint64_t max) {
    std::uint64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    const std::string_view unit(rest, static_cast<std::size_t>(end - rest));
    const std::uint64_t scale = unit.empty()    ? 1
                                : unit == "KiB" ? 1024
                                : unit == "MiB" ? 1024 * 1024
                                                : 0;
    if (error != std::errc{} || scale == 0 || number == 0 || number > max / scale) {
        throw usage_failure(
            fmt::format("{}: '{}' is not a size from 1 to {}; write one such as "
                        "65536, 512KiB or 4MiB",
                        option, escape(text), human_bytes(max)));
    }
    return number * scale;
}

}  // namespace dedupctl
