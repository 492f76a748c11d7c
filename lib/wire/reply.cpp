#include "wire/reply.hpp"

#include <charconv>
#include <utility>

namespace dedup::wire {
namespace {

constexpr std::size_t kDepthMax = 8;
constexpr std::size_t kLineBytesMax = 64 * 1024;
constexpr std::int64_t kTextBytesMax = std::int64_t{1} << 30;
constexpr std::int64_t kListMax = std::int64_t{1} << 24;
// What has been understood is thrown away when it is so much.
constexpr std::size_t kKeptBytes = 64 * 1024;

bool read_number(std::string_view text, std::int64_t& number) {
    const char* const end = text.data() + text.size();
    const auto [read, error] = std::from_chars(text.data(), end, number);
    return error == std::errc{} && read == end;
}

}  // namespace

RequestWriter::RequestWriter(std::size_t arguments) {
    bytes_ = '*' + std::to_string(arguments) + "\r\n";
}

RequestWriter& RequestWriter::add(std::string_view argument) {
    char head[24] = {'$'};
    char* const end = std::to_chars(head + 1, head + sizeof head, argument.size()).ptr;
    bytes_.append(head, end).append("\r\n").append(argument).append("\r\n");
    return *this;
}

RequestWriter& RequestWriter::add_number(std::uint64_t number) {
    char text[24];
    return add({text, std::to_chars(text, text + sizeof text, number).ptr});
}

const Reply* Reply::value_of(std::string_view name) const {
    for (std::size_t i = 0; i + 1 < list.size(); i += 2) {
        if (list[i].is_text() && list[i].text == name) {
            return &list[i + 1];
        }
    }
    return nullptr;
}

// False: nobody sends so deep a list, or one so long.
bool ReplyReader::open_list(std::uint64_t count) {
    if (open_.size() == kDepthMax) {
        return false;
    }
    Open& opened = open_.emplace_back();
    opened.list.kind = Reply::Kind::list;
    opened.missing = count;
    return true;
}

// One that is no list with anything in it; such a list is opened, and the next one tried.
ReplyReader::Found ReplyReader::take_one(Reply& reply) {
    for (;;) {
        const std::string_view rest = std::string_view(input_).substr(at_);
        const std::size_t end = rest.substr(0, kLineBytesMax).find("\r\n");
        if (end == std::string_view::npos) {
            return rest.size() < kLineBytesMax ? Found::incomplete : Found::garbage;
        }
        if (end == 0) {
            return Found::garbage;
        }
        const char mark = rest.front();
        const std::string_view line = rest.substr(1, end - 1);
        std::size_t used = end + 2;
        reply = {};
        std::int64_t number = 0;
        const bool is_line = mark == '+' || mark == '-';
        if (!is_line && mark != '_' && !read_number(line, number)) {
            return Found::garbage;
        }
        if (is_line) {
            reply.kind = mark == '+' ? Reply::Kind::text : Reply::Kind::error;
            reply.text = line;
        } else if (mark == ':') {
            reply.kind = Reply::Kind::integer;
            reply.integer = number;
        } else if (mark == '$' && number >= 0) {
            if (number > kTextBytesMax) {
                return Found::garbage;
            }
            const auto size = static_cast<std::size_t>(number);
            if (rest.size() - used < size + 2) {
                return Found::incomplete;
            }
            reply.kind = Reply::Kind::text;
            reply.text = rest.substr(used, size);
            used += size + 2;
        } else if ((mark == '*' || mark == '%') && number >= 0) {
            if (number > kListMax) {
                return Found::garbage;
            }
            reply.kind = Reply::Kind::list;
            if (number > 0) {
                const auto count = static_cast<std::uint64_t>(number);
                if (!open_list(mark == '%' ? 2 * count : count)) {
                    return Found::garbage;
                }
                at_ += used;
                continue;
            }
        } else if (mark != '_' && !((mark == '$' || mark == '*') && number == -1)) {
            return Found::garbage;
        }
        at_ += used;
        return Found::reply;
    }
}

ReplyReader::Found ReplyReader::next(Reply& reply) {
    for (;;) {
        if (const Found found = take_one(reply); found != Found::reply) {
            if (at_ >= kKeptBytes) {
                input_.erase(0, std::exchange(at_, 0));
            }
            return found;
        }
        while (!open_.empty()) {
            Open& innermost = open_.back();
            innermost.list.list.push_back(std::move(reply));
            if (--innermost.missing != 0) {
                break;
            }
            reply = std::move(innermost.list);
            open_.pop_back();
        }
        if (open_.empty()) {
            if (at_ == input_.size()) {
                input_.clear();
                at_ = 0;
            }
            return Found::reply;
        }
    }
}

}  // namespace dedup::wire
