// What the reactor makes of the bytes that come.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "server/command_table.hpp"
#include "server/reactor.hpp"
#include "wire/error_word.hpp"

namespace dedup::server {

using std::chrono::steady_clock;

// What a stranger has sent and is not understood yet is no more than this, or TLS's record.
constexpr std::size_t kStrangerReadBytes = 4 * 1024;

void Reactor::read_from(Connection& connection) {
    const std::size_t before = connection.input.size();
    const bool arriving = connection.is_arriving();
    const Moved moved =
        read_some(connection, is_stranger(connection) ? kStrangerReadBytes : kAlwaysBytes);
    if (arriving && connection.tls->is_ready()) {
        welcome(connection);
    }
    if (moved == Moved::nothing) {
        return;
    }
    if (moved == Moved::ended) {
        if (arriving) {
            note_refused(connection.session.id, "TLS: " + connection.tls->problem());
        }
        // What it asked before is answered; there may be somebody left to read it.
        connection.end_of_input = true;
        connection.lane->ended = true;
        return;
    }
    hold(connection, connection.input.size() - before);
    connection.active_at = steady_clock::now();
    take_requests(connection);
}

// Takes all requests out of the connection's input, as far as it may have more under way.
void Reactor::take_requests(Connection& connection) {
    std::size_t taken = 0;
    bool more = !connection.input.empty();
    while (more && !connection.end_of_input) {
        connection.paused = connection.in_line() >= options_.pipeline_max ||
                            connection.lane->unsent_bytes > reply_bytes_max(connection);
        std::size_t size = 0;
        more = !connection.paused && taken < connection.input.size() &&
               take_request(connection, std::string_view(connection.input).substr(taken), size);
        taken += size;
    }
    if (connection.end_of_input) {  // nothing of the rest is wanted
        give_back(connection, connection.input.size() - taken);
        taken = connection.input.size();
    }
    connection.input.erase(0, taken);
    if (connection.input.empty() && connection.input.capacity() > kAlwaysBytes / 16) {
        connection.input.shrink_to_fit();
    }
    if (!connection.parser.under_way() || connection.end_of_input) {
        connection.partial_since.reset();
    } else if (taken != 0 || !connection.partial_since) {
        connection.partial_since = connection.active_at;
    }
}

// Whether there may be another request behind this one.
bool Reactor::take_request(Connection& connection, std::string_view bytes, std::size_t& size) {
    switch (connection.parser.parse(
        bytes, is_stranger(connection) ? kUnauthenticatedLimits : RequestLimits{})) {
        case RequestParser::Found::nothing:
            size = connection.parser.size();
            give_back(connection, size);
            return true;
        case RequestParser::Found::request:
            size = connection.parser.size();
            give_back(connection, size);  // from now on as a request under way, if it is one
            carry_out(connection, size);
            return true;
        case RequestParser::Found::garbage:
            reject(connection, "ERR Protocol error: " + connection.parser.error());
            return false;
        case RequestParser::Found::incomplete:
            if (bytes.size() > kAlwaysBytes && held_bytes_ > options_.request_bytes_max) {
                reject(connection, "BUSY the server holds too many bytes of requests; try again");
            } else if (has_bytes_share(connection, 0)) {
                reject(connection,
                       "BUSY the server holds too many bytes of this user's requests; try again");
            }
            return false;
    }
    return false;
}

// What follows cannot be told apart, or there is no room for it.
void Reactor::reject(Connection& connection, std::string_view why) {
    note_refused(connection.session.id, std::string(why));
    auto reply = error_reply(connection.session.protocol, why);
    connection.session.closing = true;
    connection.end_of_input = true;
    if (connection.in_line() == 0) {
        std::string bytes;
        reply->write_reply(bytes);
        add_output(connection, bytes);
        return;
    }
    begin_request(connection, 0);
    submitting_.emplace_back(connection.lane, std::move(reply));
}

namespace {

// What is said to the session is heard however busy the server is: what follows depends on it.
bool changes_the_session(std::string_view name) {
    return std::ranges::any_of(std::array{"MULTI", "DISCARD", "SELECT", "HELLO", "AUTH", "RESET"},
                               [&](std::string_view word) { return is_word(name, word); });
}

}  // namespace

CommandPtr Reactor::command_for(Connection& connection, std::size_t bytes) {
    const auto& arguments = connection.parser.arguments();
    const bool waits = is_word(arguments.front(), "DEDUP.WAIT");
    const bool full =
        under_way_ >= options_.requests_max || held_bytes_ + bytes > options_.request_bytes_max ||
        (connection.lane->use && connection.lane->use->under_way >= facts_.uses.requests_max) ||
        has_bytes_share(connection, bytes);
    if (full && !waits && !changes_the_session(arguments.front())) {
        // A transaction is carried out with all of its commands or not at all.
        Transaction& transaction = connection.session.transaction;
        if (is_word(arguments.front(), "EXEC")) {
            transaction = {};
        }
        transaction.bad = transaction.open;
        return busy(connection);
    }
    // A web page can make a browser send a request that is lines of words to a local port.
    if (is_word(arguments.front(), "POST") || is_word(arguments.front(), "HOST:")) {
        connection.session.closing = true;
        return error_reply(connection.session.protocol, "ERR this is no HTTP server");
    }
    CommandPtr command = understand({connection.session, facts_, arguments});
    if (command->of_any_order()) {
        const bool stays = !full && has_room_to_stay(connection);
        return stays ? std::move(command) : busy_with(*command);
    }
    return full && waits ? busy(connection) : std::move(command);
}

CommandPtr Reactor::busy(const Connection& connection) {
    ++busy_;
    return error_reply(connection.session.protocol,
                       fmt::format("BUSY {} requests are under way, with {} bytes; try again",
                                   under_way_, held_bytes_));
}

// Likewise, of a command of any order: an error would not say what it is about.
CommandPtr Reactor::busy_with(const Command& command) {
    ++busy_;
    return known_reply(command.protocol(), [&](ReplyWriter& writer) {
        const StreamKey stream = command.stream(0);
        writer.array(3);
        writer.bulk(stream.ns);
        writer.bulk(stream.key);
        writer.bulk(wire::kBusyWord);
    });
}

// What nobody waits behind can come in any number, and may stay: it leaves half of the room to
// others.
bool Reactor::has_room_to_stay(const Connection& connection) const {
    const auto& use = connection.lane->use;
    return 2 * (under_way_ + 1) <= options_.requests_max &&
           (!use || 2 * (use->under_way + 1) <= facts_.uses.requests_max);
}

// Whether its user, with so much more, would hold more than one user may.
bool Reactor::has_bytes_share(const Connection& connection, std::size_t bytes) const {
    const auto& use = connection.lane->use;
    return use && use->held_bytes + bytes > facts_.uses.bytes_max;
}

// Counts what the connection has as that of who is logged in. Who logs out keeps what he has asked.
void Reactor::follow_user(Connection& connection) {
    const auto& use = connection.session.seat.use();
    auto& counted = connection.lane->use;
    if (!use || use == counted) {
        return;
    }
    if (counted) {
        counted->under_way -= connection.under_way;
        counted->held_bytes -= connection.held_bytes;
    }
    counted = use;
    counted->under_way += connection.under_way;
    counted->held_bytes += connection.held_bytes;
}

void Reactor::hold(Connection& connection, std::size_t bytes) {
    held_bytes_ += bytes;
    connection.held_bytes += bytes;
    if (connection.lane->use) {
        connection.lane->use->held_bytes += bytes;
    }
}

void Reactor::give_back(Connection& connection, std::size_t bytes) {
    held_bytes_ -= bytes;
    connection.held_bytes -= bytes;
    if (connection.lane->use) {
        connection.lane->use->held_bytes -= bytes;
    }
}

// Counts what a transaction holds while it is being said. Gives what has become of one that is not
// said any more: bytes of its EXEC, if there is one.
std::size_t Reactor::follow_transaction(Connection& connection) {
    const Transaction& transaction = connection.session.transaction;
    if (!transaction.open) {
        connection.transacts_since.reset();
    } else if (!connection.transacts_since) {
        connection.transacts_since = connection.active_at;
    }
    const std::size_t before =
        std::exchange(connection.transaction_bytes, transaction.held_bytes());
    if (connection.transaction_bytes >= before) {
        hold(connection, connection.transaction_bytes - before);
        return 0;
    }
    give_back(connection, before - connection.transaction_bytes);
    return before - connection.transaction_bytes;
}

void Reactor::begin_request(Connection& connection, std::size_t bytes) {
    ++under_way_;
    ++connection.under_way;
    if (connection.lane->use) {
        ++connection.lane->use->under_way;
    }
    connection.request_bytes += bytes;
    hold(connection, bytes);
}

void Reactor::carry_out(Connection& connection, std::size_t bytes) {
    ++requests_;
    if (connection.under_way == 0) {
        connection.session.earlier.clear();
    }
    CommandPtr command = command_for(connection, bytes);
    look_at_login(connection);
    follow_user(connection);
    follow_stranger(connection);
    bytes += follow_transaction(connection);
    if (connection.session.closing) {
        connection.end_of_input = true;
    }
    if (command->kind() == Command::Kind::reply && connection.in_line() == 0) {
        std::string reply;
        command->write_reply(reply);
        add_output(connection, reply);
        return;
    }
    command->timing.since = connection.active_at;
    connection.of_any_order += command->of_any_order() ? 1U : 0U;  // its bytes are few
    begin_request(connection, command->of_any_order() ? 0 : bytes);
    submitting_.emplace_back(connection.lane, std::move(command));
}

void Reactor::add_output(Connection& connection, std::string_view bytes) {
    connection.lane->add_unsent(bytes.size());
    if (!connection.has_output()) {
        connection.output_since = connection.active_at;
    }
    connection.output += bytes;
}

}  // namespace dedup::server
