// Bytes that somebody else chose, made fit for a terminal or for JSON; numbers made readable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dedupctl {

// Well-formed UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool is_utf8(std::string_view bytes);

// Visible UTF-8 as it is; all else as \xNN, and backslash as \\. What is not visible: bytes that
// are not UTF-8, control characters, and those that end a line, change the direction of writing or
// take no room.
[[nodiscard]] std::string escape(std::string_view bytes);

// The same for a whole message, parts of which may be escaped: leaves its lines and backslashes.
[[nodiscard]] std::string message_text(std::string_view message);

// JSON on one line, in UTF-8, in which such characters are escaped the way of JSON.
[[nodiscard]] std::string json_text(std::string_view json);

// The first characters of escape(bytes), at most `columns_max`, with "..." if that is not all.
[[nodiscard]] std::string preview(std::string_view bytes, std::size_t columns_max);

// How many columns `utf8` takes on a terminal, if each character takes one.
[[nodiscard]] std::size_t columns(std::string_view utf8);

// A word as bash, zsh and others read it: as it is if that is safe, else in quotes, and $'...' for
// what is not visible.
[[nodiscard]] std::string shell_word(std::string_view bytes);

// RFC 4648, with padding.
[[nodiscard]] std::string base64(std::string_view bytes);

// The inverse; strict: nullopt for anything that base64() does not give.
[[nodiscard]] std::optional<std::string> from_base64(std::string_view text);

// "5,000,000".
[[nodiscard]] std::string group_digits(std::uint64_t number);

// "1 line", "5,000 lines".
[[nodiscard]] std::string count_of(std::uint64_t number, std::string_view singular);

// "512 B", "1.5 MiB".
[[nodiscard]] std::string human_bytes(std::uint64_t bytes);

// A whole number in decimal, from `min` to `max`; throws a usage Failure that names `option`.
[[nodiscard]] std::uint64_t parse_number(std::string_view text, std::string_view option,
                                         std::uint64_t min, std::uint64_t max);

// A size such as 65536, 512KiB or 4MiB, from 1 to `max`; throws a usage Failure.
[[nodiscard]] std::uint64_t parse_size(std::string_view text, std::string_view option,
                                       std::uint64_t max);

}  // namespace dedupctl
