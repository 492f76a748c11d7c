#include "server/http_parser.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/session.hpp"

namespace dedup::server {
namespace {

// With the method, the version and the spaces.
constexpr std::size_t kRequestLineBytesMax = kHttpTargetBytesMax + 32;
constexpr int kGood = 200;
constexpr int kBad = 400;

int hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    const char small = static_cast<char>(digit | 0x20);
    return small >= 'a' && small <= 'f' ? small - 'a' + 10 : -1;
}

// nullopt: a '%' without two digits.
std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_space) {
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            bytes += plus_is_space && text[i] == '+' ? ' ' : text[i];
            continue;
        }
        if (i + 2 >= text.size() || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0) {
            return std::nullopt;
        }
        bytes += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
        i += 2;
    }
    return bytes;
}

// RFC 4648. nullopt: something else.
std::optional<std::string> base64_decoded(std::string_view text) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string bytes;
    unsigned value = 0;
    int bits = 0;
    while (text.ends_with('=')) {
        text.remove_suffix(1);
    }
    for (const char c : text) {
        const std::size_t digit = kDigits.find(c);
        if (digit == std::string_view::npos) {
            return std::nullopt;
        }
        value = (value << 6 | static_cast<unsigned>(digit)) & 0xffffU;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes += static_cast<char>(value >> bits & 0xffU);
        }
    }
    return bytes;
}

std::string_view until(std::string_view& rest, char end) {
    const std::size_t at = std::min(rest.find(end), rest.size());
    const std::string_view part = rest.substr(0, at);
    rest.remove_prefix(std::min(at + 1, rest.size()));
    return part;
}

bool is_token(std::string_view text) {
    static constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
    return !text.empty() && std::ranges::all_of(text, [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               kOthers.find(c) != std::string_view::npos;
    });
}

bool is_visible(std::string_view text) {
    return std::ranges::all_of(text, [](char c) { return c == '\t' || (c >= ' ' && c != 0x7f); });
}

int read_target(std::string_view target, HttpRequest& request) {
    if (target.size() > kHttpTargetBytesMax) {
        return 414;
    }
    if (!target.starts_with('/')) {
        return kBad;
    }
    auto path = percent_decoded(until(target, '?'), false);
    if (!path) {
        return kBad;
    }
    request.path = *std::move(path);
    while (!target.empty()) {
        std::string_view pair = until(target, '&');
        auto name = percent_decoded(until(pair, '='), true);
        auto value = percent_decoded(pair, true);
        if (!name || !value) {
            return kBad;
        }
        request.query.emplace_back(*std::move(name), *std::move(value));
    }
    return kGood;
}

int read_request_line(std::string_view line, HttpHead& head) {
    const std::string_view method = until(line, ' ');
    const std::string_view target = until(line, ' ');
    if (!is_token(method) || !line.starts_with("HTTP/") ||
        std::ranges::any_of(target, [](char c) { return c <= ' ' || c >= 0x7f; })) {
        return kBad;
    }
    if (line != "HTTP/1.1" && line != "HTTP/1.0") {
        return 505;
    }
    if (method != "GET" && method != "HEAD") {
        return 405;
    }
    head.head = method == "HEAD";
    head.keeps_alive = line == "HTTP/1.1";
    return read_target(target, head.request);
}

// Bearer, as programs send it, or Basic, as browsers do, with any name.
void read_credentials(std::string_view value, std::string& credentials) {
    const std::string_view scheme = until(value, ' ');
    if (is_word(scheme, "BEARER")) {
        credentials = value;
    } else if (is_word(scheme, "BASIC")) {
        const auto pair = base64_decoded(value);
        const std::size_t colon = pair ? pair->find(':') : std::string::npos;
        credentials = colon == std::string::npos ? "" : pair->substr(colon + 1);
    }
}

int read_header(std::string_view line, HttpHead& head, bool& has_host) {
    const std::string_view name = until(line, ':');
    while (line.starts_with(' ') || line.starts_with('\t')) {
        line.remove_prefix(1);
    }
    while (line.ends_with(' ') || line.ends_with('\t')) {
        line.remove_suffix(1);
    }
    if (!is_token(name) || !is_visible(line)) {
        return kBad;
    }
    if (is_word(name, "HOST")) {
        if (has_host) {
            return kBad;
        }
        has_host = true;
        head.host = line;
    } else if (is_word(name, "CONNECTION")) {
        head.keeps_alive = !is_word(line, "CLOSE") && head.keeps_alive;
    } else if (is_word(name, "AUTHORIZATION")) {
        read_credentials(line, head.credentials);
    } else if (is_word(name, "TRANSFER-ENCODING") ||
               (is_word(name, "CONTENT-LENGTH") && line != "0")) {
        return kBad;  // what follows could be taken for another request
    }
    return kGood;
}

}  // namespace

HttpFound parse_http(std::string_view bytes, HttpHead& head) {
    constexpr std::string_view kEnd = "\r\n";
    head = {};
    std::size_t begin = bytes.starts_with(kEnd) ? kEnd.size() : 0;
    bool first = true;
    bool has_host = false;
    bool must_have_host = false;
    for (;;) {
        const std::size_t end = bytes.find('\n', begin);
        if (first && std::min(end, bytes.size()) - begin > kRequestLineBytesMax) {
            return {.status = 414};
        }
        if (end == std::string_view::npos) {
            return {.status = bytes.size() > kHttpHeadBytesMax ? 431 : 0};
        }
        if (end >= kHttpHeadBytesMax) {
            return {.status = 431};
        }
        if (end == begin || bytes[end - 1] != '\r') {
            return {.status = kBad};
        }
        const std::string_view line = bytes.substr(begin, end - 1 - begin);
        begin = end + 1;
        if (line.empty() && !first) {
            return must_have_host && !has_host ? HttpFound{.status = kBad}
                                               : HttpFound{.status = kGood, .size = begin};
        }
        const int status =
            first ? read_request_line(line, head) : read_header(line, head, has_host);
        if (status != kGood) {
            return {.status = status};
        }
        must_have_host = must_have_host || (first && head.keeps_alive);
        first = false;
    }
}

}  // namespace dedup::server
