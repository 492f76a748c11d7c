#include "server/request_parser.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace dedup::server {
namespace {

// "*16384\r\n": no count or size that is allowed needs more, and no line without an end is awaited
// for longer.
constexpr std::size_t kNumberLineBytesMax = 24;

bool is_blank(char byte) {
    return byte == ' ' || byte == '\t';
}

}  // namespace

RequestParser::Part RequestParser::bad(std::string what) {
    error_ = std::move(what);
    return Part::bad;
}

void RequestParser::begin() {
    at_ = looked_at_ = 0;
    missing_ = argument_ = -1;
    pieces_.clear();
    under_way_ = false;
}

// "<mark><number>\r\n" at at_, which then is behind it.
RequestParser::Part RequestParser::number_after(char mark, std::string_view bytes,
                                                std::int64_t& number) {
    const std::string_view rest = bytes.substr(at_, kNumberLineBytesMax);
    if (!rest.empty() && rest.front() != mark) {
        return bad(fmt::format("expected '{}', got byte 0x{:02x}", mark,
                               static_cast<unsigned char>(rest.front())));
    }
    const std::size_t end = rest.find("\r\n");
    if (end == std::string_view::npos) {
        return rest.size() < kNumberLineBytesMax
                   ? Part::missing
                   : bad(fmt::format("the number after '{}' is too long", mark));
    }
    const char* const last = rest.data() + end;
    const auto [read, error] = std::from_chars(rest.data() + 1, last, number);
    if (error != std::errc{} || read != last) {
        return bad(fmt::format("no number after '{}'", mark));
    }
    at_ += end + 2;
    return Part::done;
}

RequestParser::Part RequestParser::take_argument(std::string_view bytes,
                                                 const RequestLimits& limits) {
    if (argument_ < 0) {
        std::int64_t size = 0;
        if (const Part part = number_after('$', bytes, size); part != Part::done) {
            return part;
        }
        if (size < 0) {
            return bad("an argument of a request cannot be null");
        }
        if (std::cmp_greater(size, limits.argument_bytes_max) ||
            at_ + static_cast<std::size_t>(size) > limits.request_bytes_max) {
            return bad(
                fmt::format("an argument of {} bytes; at most {} are allowed, and {} in a "
                            "request",
                            size, limits.argument_bytes_max, limits.request_bytes_max));
        }
        argument_ = size;
    }
    const auto size = static_cast<std::size_t>(argument_);
    if (bytes.size() - at_ < size + 2) {
        return Part::missing;
    }
    if (bytes.substr(at_ + size, 2) != "\r\n") {
        return bad("an argument is longer than its size says");
    }
    pieces_.push_back({at_, size});
    at_ += size + 2;
    argument_ = -1;
    --missing_;
    return Part::done;
}

RequestParser::Part RequestParser::take_array(std::string_view bytes, const RequestLimits& limits) {
    if (missing_ < 0) {
        std::int64_t count = 0;
        if (const Part part = number_after('*', bytes, count); part != Part::done) {
            return part;
        }
        if (std::cmp_greater(count, limits.arguments_max)) {
            return bad(fmt::format("a request of {} arguments; at most {} are allowed", count,
                                   limits.arguments_max));
        }
        missing_ = std::max<std::int64_t>(count, 0);
    }
    while (missing_ > 0) {
        if (const Part part = take_argument(bytes, limits); part != Part::done) {
            return part;
        }
    }
    return Part::done;
}

RequestParser::Part RequestParser::take_words(std::string_view bytes, const RequestLimits& limits) {
    const std::size_t end = bytes.find('\n', looked_at_);
    if (std::min(end, bytes.size()) > limits.line_bytes_max) {
        return bad(fmt::format("a line of more than {} bytes", limits.line_bytes_max));
    }
    if (end == std::string_view::npos) {
        looked_at_ = bytes.size();
        return Part::missing;
    }
    const std::size_t stop = end > 0 && bytes[end - 1] == '\r' ? end - 1 : end;
    for (std::size_t at = 0; at < stop;) {
        if (is_blank(bytes[at])) {
            ++at;
            continue;
        }
        if (bytes[at] == '"' || bytes[at] == '\'') {
            return bad("quotes in a request that is a line; send it as an array");
        }
        const std::size_t begin = at;
        while (at < stop && !is_blank(bytes[at])) {
            ++at;
        }
        if (pieces_.size() == limits.arguments_max) {
            return bad(fmt::format("a line of more than {} words", limits.arguments_max));
        }
        pieces_.push_back({begin, at - begin});
    }
    at_ = end + 1;
    return Part::done;
}

RequestParser::Found RequestParser::parse(std::string_view bytes, const RequestLimits& limits) {
    if (!under_way_) {
        begin();
    }
    if (bytes.empty()) {
        return Found::incomplete;
    }
    under_way_ = true;
    const Part part = bytes.front() == '*' ? take_array(bytes, limits) : take_words(bytes, limits);
    if (part == Part::missing) {
        if (bytes.size() > limits.request_bytes_max + kNumberLineBytesMax) {
            static_cast<void>(
                bad(fmt::format("a request of more than {} bytes", limits.request_bytes_max)));
            return Found::garbage;
        }
        return Found::incomplete;
    }
    if (part == Part::bad) {
        return Found::garbage;
    }
    under_way_ = false;
    arguments_.clear();
    for (const auto& [offset, size] : pieces_) {
        arguments_.push_back(bytes.substr(offset, size));
    }
    return arguments_.empty() ? Found::nothing : Found::request;
}

}  // namespace dedup::server
