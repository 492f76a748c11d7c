// Bytes written down for people: two hex digits a byte, white space anywhere between them, and
// comments from '#' to the end of the line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dedup::test {

inline std::optional<unsigned> hex_digit(char character) {
    if (character >= '0' && character <= '9') {
        return static_cast<unsigned>(character - '0');
    }
    if (character >= 'a' && character <= 'f') {
        return static_cast<unsigned>(character - 'a' + 10);
    }
    return std::nullopt;
}

// The bytes that `text` writes down; nullopt if it is not such text.
inline std::optional<std::string> from_hex(std::string_view text) {
    std::string bytes;
    unsigned high = 0;
    bool half = false;  // a byte has been begun: with `high`
    bool comment = false;
    for (const char character : text) {
        if (character == '\n') {
            comment = false;
        } else if (character == '#') {
            comment = true;
        }
        if (comment || character == '\n' || character == ' ') {
            if (half) {
                return std::nullopt;
            }
            continue;
        }
        const auto digit = hex_digit(character);
        if (!digit) {
            return std::nullopt;
        }
        if (half) {
            bytes += static_cast<char>(high * 16 + *digit);
        } else {
            high = *digit;
        }
        half = !half;
    }
    return half ? std::nullopt : std::optional(bytes);
}

inline std::string to_hex(std::string_view bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const char character : bytes) {
        const auto byte = static_cast<unsigned char>(character);
        text += text.empty() ? "" : " ";
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

}  // namespace dedup::test
