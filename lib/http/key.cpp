// The value of an Idempotency-Key header.
#include <fmt/format.h>

#include <algorithm>

#include "dedup/http.hpp"
#include "http/printable.hpp"
#include "record/invalid.hpp"

namespace dedup::http {
namespace {

// What may stand behind the string: parameters, ";name" or ";name=value", in which nothing has to
// be understood. A value may be a string again.
bool are_parameters(std::string_view text) {
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (!is_printable(text[i])) {
            return false;
        }
        if (quoted && text[i] == '\\') {
            ++i;
        } else if (text[i] == '"') {
            quoted = !quoted;
        } else if (!quoted && text[i] == ',') {
            return false;  // a list, that is several keys
        }
    }
    return !quoted && (text.empty() || (text.front() == ';' && text.size() > 1));
}

std::string_view trim(std::string_view text) {
    const auto blank = [](char c) { return c == ' ' || c == '\t'; };
    while (!text.empty() && blank(text.front())) {
        text.remove_prefix(1);
    }
    while (!text.empty() && blank(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}

Result<std::string> check_length(std::string key) {
    if (key.empty() || key.size() > kKeyBytesMax) {
        return invalid(fmt::format("Idempotency-Key has {} characters; 1 to {} are allowed",
                                   key.size(), kKeyBytesMax));
    }
    return key;
}

Result<std::string> parse_bare_key(std::string_view header) {
    constexpr std::string_view kNotBare = "\"\\,; ";
    if (!std::ranges::all_of(header, [&](char c) {
            return is_printable(c) && kNotBare.find(c) == std::string_view::npos;
        })) {
        return invalid(
            "Idempotency-Key without quotes has spaces, commas, semicolons, backslashes, "
            "quotes or characters that are not ASCII; put it in double quotes");
    }
    return check_length(std::string(header));
}

}  // namespace

Result<std::string> parse_key(std::string_view header, KeySyntax syntax) {
    std::string_view rest = trim(header);
    if (!rest.starts_with('"')) {
        return syntax == KeySyntax::quoted_or_bare
                   ? parse_bare_key(rest)
                   : invalid(
                         "Idempotency-Key is not a string in double quotes; send it as "
                         "\"...\", with the quotes");
    }
    rest.remove_prefix(1);
    std::string key;
    while (!rest.empty() && rest.front() != '"') {
        if (rest.front() == '\\') {
            rest.remove_prefix(1);
            if (rest.empty() || (rest.front() != '"' && rest.front() != '\\')) {
                return invalid("Idempotency-Key has a backslash before neither \" nor \\");
            }
        }
        if (!is_printable(rest.front())) {
            return invalid("Idempotency-Key has a character that is not ASCII");
        }
        key += rest.front();
        rest.remove_prefix(1);
    }
    if (rest.empty()) {
        return invalid("Idempotency-Key has no closing quote");
    }
    rest.remove_prefix(1);
    if (!are_parameters(rest)) {
        return invalid("Idempotency-Key has something behind its string");
    }
    return check_length(std::move(key));
}

Result<std::string> format_key(std::string_view key) {
    if (key.empty() || key.size() > kKeyBytesMax || !std::ranges::all_of(key, is_printable)) {
        return invalid(
            fmt::format("the key is not 1 to {} printable ASCII characters", kKeyBytesMax));
    }
    std::string header = "\"";
    for (const char c : key) {
        if (c == '"' || c == '\\') {
            header += '\\';
        }
        header += c;
    }
    return header + '"';
}

}  // namespace dedup::http
