// Attacks what the server makes of a client's bytes, and a client of a server's: however they are
// cut, they are the same requests, or replies; each gets one reply that is well formed; and no
// request does what the store's contract does not allow. All commands but those that read or change
// the whole store are carried out, one after the other, on a store in memory.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache/decide.hpp"
#include "dedup/memory_store.hpp"
#include "input.hpp"
#include "server/command_table.hpp"
#include "server/request_parser.hpp"
#include "wire/reply.hpp"

namespace dedup::fuzz {
namespace {

using server::Command;
using server::RequestParser;
using Found = RequestParser::Found;

constexpr server::RequestLimits kLimits{.argument_bytes_max = 2000,
                                        .arguments_max = 32,
                                        .request_bytes_max = 8000,
                                        .line_bytes_max = 500};

struct Parsed {
    std::vector<std::vector<std::string>> requests;
    bool garbage = false;

    bool operator==(const Parsed&) const = default;
};

Parsed parse(std::string_view bytes, std::size_t piece) {
    Parsed parsed;
    RequestParser parser;
    std::string buffer;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
        buffer = std::string(buffer) + std::string(bytes.substr(at, piece));
        for (;;) {
            const Found found = parser.parse(buffer, kLimits);
            if (found == Found::garbage) {
                require(!parser.error().empty());
                parsed.garbage = true;
                return parsed;
            }
            if (found == Found::incomplete) {
                require(buffer.size() <= kLimits.request_bytes_max + 64, "too much is awaited");
                break;
            }
            if (found == Found::request) {
                const auto& arguments = parser.arguments();
                require(!arguments.empty() && arguments.size() <= kLimits.arguments_max);
                parsed.requests.emplace_back(arguments.begin(), arguments.end());
            }
            require(parser.size() > 0 && parser.size() <= buffer.size());
            buffer.erase(0, parser.size());
        }
    }
    return parsed;
}

bool same(const wire::Reply& a, const wire::Reply& b) {
    return a.kind == b.kind && a.integer == b.integer && a.text == b.text &&
           std::ranges::equal(a.list, b.list, same);
}

// The replies that the bytes are, up to what is none.
std::vector<wire::Reply> read_replies(std::string_view bytes, std::size_t piece, bool& garbage) {
    std::vector<wire::Reply> replies;
    wire::ReplyReader reader;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
        reader.feed(bytes.substr(at, piece));
        for (;;) {
            wire::Reply reply;
            const auto found = reader.next(reply);
            garbage = found == wire::ReplyReader::Found::garbage;
            if (garbage) {
                return replies;
            }
            if (found == wire::ReplyReader::Found::incomplete) {
                break;
            }
            replies.push_back(std::move(reply));
        }
    }
    return replies;
}

void check_replies(std::string_view bytes, std::size_t piece) {
    bool whole_garbage = false;
    bool cut_garbage = false;
    const auto whole = read_replies(bytes, std::max<std::size_t>(bytes.size(), 1), whole_garbage);
    const auto cut = read_replies(bytes, piece, cut_garbage);
    require(whole_garbage == cut_garbage && std::ranges::equal(whole, cut, same),
            "another cut, other replies");
}

// What is left behind the one reply that `text` begins with.
std::string_view skip_reply(std::string_view text) {
    const std::size_t end = text.find("\r\n");
    require(end != std::string_view::npos && end > 0, "a reply without an end");
    const char mark = text.front();
    const std::string_view line = text.substr(1, end - 1);
    require(line.find_first_of("\r\n") == std::string_view::npos);
    text.remove_prefix(end + 2);
    if (mark == '+' || mark == '-' || mark == ':' || mark == '_') {
        return text;
    }
    const auto number = server::whole_number(line);
    require(number.has_value() && *number >= -1, "a size that is none");
    if (mark == '$' && *number >= 0) {
        const auto size = static_cast<std::size_t>(*number);
        require(text.size() >= size + 2 && text.substr(size, 2) == "\r\n");
        text.remove_prefix(size + 2);
        return text;
    }
    require(mark == '$' || mark == '*' || mark == '%', "an unknown kind of reply");
    for (std::int64_t left = mark == '%' ? *number * 2 : *number; left > 0; --left) {
        text = skip_reply(text);
    }
    return text;
}

void carry_out_atomic(Command& command, StreamStore& store) {
    std::vector<std::optional<Record>> heads;
    for (std::size_t part = 0; part < command.parts(); ++part) {
        heads.push_back(*store.head(command.stream(part)));
    }
    const auto batch = command.decide_all(heads, store.now_ms());
    const auto sequences = store.append(batch, Batch::atomic);
    for (const auto& landed : sequences) {
        require(landed.has_value(), landed ? "" : landed.error().message);
    }
    if (!batch.empty()) {
        command.landed_all(sequences);
    }
}

// As the executor does, with nobody else about.
void carry_out(Command& command, StreamStore& store) {
    if (command.atomic()) {
        carry_out_atomic(command, store);
        return;
    }
    for (std::size_t part = 0; part < command.parts(); ++part) {
        auto head = store.head(command.stream(part));
        if (!head) {
            command.part_failed(part, head.error());
            continue;
        }
        const std::optional<Record> before = *head;
        const auto append = command.decide(part, Seen{*head, store.now_ms(), store.grace()});
        if (!append) {
            continue;
        }
        require(command.appends(), "a command that only reads appends");
        require(append->record.ns == command.stream(part).ns &&
                append->record.key == command.stream(part).key);
        require(append->expected_sequence == (before ? before->sequence : 0));
        const auto landed = std::move(store.append({&*append, 1}, Batch::each).front());
        require(landed.has_value(), landed ? "" : landed.error().message);
        command.landed(part, *landed);
    }
}

}  // namespace
}  // namespace dedup::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace dedup;
    using namespace dedup::fuzz;
    Input input(data, size);
    const std::size_t piece = 1 + input.below(255);
    const std::string_view bytes = input.rest();

    const Parsed parsed = parse(bytes, std::max<std::size_t>(bytes.size(), 1));
    require(parse(bytes, piece) == parsed, "another cut, other requests");
    check_replies(bytes, piece);

    std::int64_t now_ms = 1'000'000;
    const auto store = make_memory_store([&now_ms] { return now_ms; });
    server::Session session{.id = 1};
    server::Facts facts;
    for (const auto& request : parsed.requests) {
        now_ms += 100;
        const std::vector<std::string_view> arguments(request.begin(), request.end());
        const auto command = server::understand({session, facts, arguments});
        require(command != nullptr);
        if (command->kind() == Command::Kind::chore || command->kind() == Command::Kind::sweep) {
            continue;
        }
        carry_out(*command, *store);
        std::string reply;
        command->write_reply(reply);
        require(skip_reply(reply).empty(), "more than one reply");
    }
    return 0;
}
