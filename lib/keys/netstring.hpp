// Parts of any bytes as one string that can be told apart again: "<length>:<bytes>," each, the
// length in decimal without leading zeros (D. J. Bernstein, Netstrings, 1997). No encoding of parts
// is the beginning of the encoding of others, whatever bytes are in them.
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>

namespace dedup {

inline void append_netstring(std::string& out, std::string_view part) {
    out += std::to_string(part.size());
    out += ':';
    out += part;
    out += ',';
}

// Takes the first part off `text`; nullopt, and `text` as it was, if it does not begin with one
// just as append_netstring writes it.
inline std::optional<std::string_view> take_netstring(std::string_view& text) {
    std::size_t size = 0;
    const char* const end = text.data() + text.size();
    const auto [after, problem] = std::from_chars(text.data(), end, size);
    const auto digits = static_cast<std::size_t>(after - text.data());
    const bool canonical = digits == 1 || (digits > 1 && text.front() != '0');
    if (problem != std::errc{} || !canonical || after == end || *after != ':') {
        return std::nullopt;
    }
    const std::string_view rest = text.substr(digits + 1);
    if (rest.size() <= size || rest[size] != ',') {
        return std::nullopt;
    }
    text = rest.substr(size + 1);
    return rest.substr(0, size);
}

}  // namespace dedup
