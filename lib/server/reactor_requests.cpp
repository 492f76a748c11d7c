// What the reactor makes of the bytes that come.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "server/command_table.hpp"
#include "server/reactor.hpp"

namespace dedup::server {

using std::chrono::steady_clock;

void Reactor::read_from(Connection& connection) {
    const std::size_t before = connection.input.size();
    const bool arriving = connection.is_arriving();
    const Moved moved = read_some(connection);
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
        return;
    }
    held_bytes_ += connection.input.size() - before;
    connection.active_at = steady_clock::now();
    take_requests(connection);
}

// Takes all requests out of the connection's input, as far as it may have more under way.
void Reactor::take_requests(Connection& connection) {
    std::size_t taken = 0;
    bool more = !connection.input.empty();
    while (more && !connection.end_of_input) {
        connection.paused = connection.under_way >= options_.pipeline_max ||
                            connection.lane->unsent_bytes > options_.reply_bytes_max;
        std::size_t size = 0;
        more = !connection.paused && taken < connection.input.size() &&
               take_request(connection, std::string_view(connection.input).substr(taken), size);
        taken += size;
    }
    connection.input.erase(0, taken);
    if (connection.input.empty() && connection.input.capacity() > kAlwaysBytes / 16) {
        connection.input.shrink_to_fit();
    }
    if (!connection.parser.under_way()) {
        connection.partial_since.reset();
    } else if (taken != 0 || !connection.partial_since) {
        connection.partial_since = connection.active_at;
    }
}

// Whether there may be another request behind this one.
bool Reactor::take_request(Connection& connection, std::string_view bytes, std::size_t& size) {
    const bool known = !facts_.users.needed() || connection.session.user != nullptr;
    switch (connection.parser.parse(bytes, known ? RequestLimits{} : kUnauthenticatedLimits)) {
        case RequestParser::Found::nothing:
            size = connection.parser.size();
            held_bytes_ -= size;
            return true;
        case RequestParser::Found::request:
            size = connection.parser.size();
            held_bytes_ -= size;  // from now on as a request under way, if it is one
            carry_out(connection, size);
            return true;
        case RequestParser::Found::garbage:
            reject(connection, "ERR Protocol error: " + connection.parser.error());
            return false;
        case RequestParser::Found::incomplete:
            if (bytes.size() > kAlwaysBytes && held_bytes_ > options_.request_bytes_max) {
                reject(connection, "BUSY the server holds too many bytes of requests; try again");
            }
            return false;
    }
    return false;
}

// What follows cannot be told apart, or there is no room for it.
void Reactor::reject(Connection& connection, std::string_view why) {
    note_refused(connection.session.id, std::string(why));
    auto reply = error_reply(connection.session.protocol, why);
    connection.end_of_input = true;
    if (connection.under_way == 0) {
        std::string bytes;
        reply->write_reply(bytes);
        add_output(connection, bytes);
        return;
    }
    ++connection.under_way;
    ++under_way_;
    note_user(connection);
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
    const bool full =
        under_way_ >= options_.requests_max || held_bytes_ + bytes > options_.request_bytes_max ||
        (connection.lane->use && connection.lane->use->under_way >= facts_.uses.requests_max);
    if (full && !changes_the_session(arguments.front())) {
        // A transaction is carried out with all of its commands or not at all.
        Transaction& transaction = connection.session.transaction;
        if (is_word(arguments.front(), "EXEC")) {
            transaction = {};
        }
        transaction.bad = transaction.open;
        ++busy_;
        return error_reply(connection.session.protocol,
                           fmt::format("BUSY {} requests are under way, with {} bytes; try again",
                                       under_way_, held_bytes_));
    }
    // A web page can make a browser send a request that is lines of words to a local port.
    if (is_word(arguments.front(), "POST") || is_word(arguments.front(), "HOST:")) {
        connection.session.closing = true;
        return error_reply(connection.session.protocol, "ERR this is no HTTP server");
    }
    return understand({connection.session, facts_, arguments});
}

// Counts what is under way as that of who is logged in.
void Reactor::note_user(Connection& connection) {
    const auto& use = connection.session.seat.use();
    auto& counted = connection.lane->use;
    if (use == nullptr && counted == nullptr) {
        return;
    }
    if (use != counted) {
        if (counted) {
            counted->under_way -= connection.under_way - 1;
        }
        counted = use;
        if (counted) {
            counted->under_way += connection.under_way - 1;
        }
    }
    if (counted) {
        ++counted->under_way;
    }
}

void Reactor::carry_out(Connection& connection, std::size_t bytes) {
    ++requests_;
    CommandPtr command = command_for(connection, bytes);
    if (connection.session.closing) {
        connection.end_of_input = true;
    }
    if (command->kind() == Command::Kind::reply && connection.under_way == 0) {
        std::string reply;
        command->write_reply(reply);
        add_output(connection, reply);
        return;
    }
    command->timing.since = connection.active_at;
    ++connection.under_way;
    ++under_way_;
    note_user(connection);
    connection.request_bytes += bytes;
    held_bytes_ += bytes;
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
