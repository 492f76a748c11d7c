// One client's socket: what has come and is no request yet, and what has not gone out yet.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "env/descriptor.hpp"
#include "server/lane.hpp"
#include "server/request_parser.hpp"
#include "server/session.hpp"
#include "tls/tls.hpp"

namespace dedup::server {

// A connection may hold this much of an unfinished request, whatever the others hold.
inline constexpr std::size_t kAlwaysBytes = 64 * 1024;

using SteadyTime = std::chrono::steady_clock::time_point;

// Of the reactor's thread alone.
struct Connection {
    Connection(std::uint64_t number, Descriptor opened, std::atomic<std::size_t>& all_unsent)
        : socket(std::move(opened)), lane(std::make_shared<Lane>(number, all_unsent)) {
        session.id = number;
    }

    Descriptor socket;
    std::unique_ptr<tls::Stream> tls;  // null: what goes over the socket is as it is
    LanePtr lane;
    Session session;
    RequestParser parser;
    std::string input;   // not understood yet
    std::string output;  // not sent yet, from `sent` on
    std::size_t sent = 0;
    std::size_t under_way = 0;          // requests without a reply
    std::size_t of_any_order = 0;       // of these, those that the others do not wait for
    std::size_t request_bytes = 0;      // of the others, about
    std::size_t transaction_bytes = 0;  // of what has been said since MULTI, about
    std::size_t held_bytes = 0;         // of all these, and of the input
    std::uint32_t events = 0;           // that epoll watches for
    bool paused = false;                // nothing is read until replies have gone
    bool end_of_input = false;          // the client sends no more, or nothing of it is wanted
    SteadyTime active_at;               // when something last came or went
    SteadyTime known_at;                // when it was accepted, or last seen to be logged in
    SteadyTime output_since;            // when its output last moved, or began to wait
    int failed_logins = 0;
    bool welcomed = false;                        // of TLS
    bool stranger = false;                        // is in the reactor's list of those
    std::optional<SteadyTime> partial_since{};    // part of a request is there since
    std::optional<SteadyTime> transacts_since{};  // MULTI was said, and no EXEC

    [[nodiscard]] bool has_output() const { return sent < output.size(); }
    // TLS has yet to find out who the client is.
    [[nodiscard]] bool is_arriving() const { return tls && !welcomed; }
    // It is read from, and TLS has to send something before that can go on.
    [[nodiscard]] bool sends_to_read() const {
        return tls && !paused && !end_of_input && tls->waits_to_send();
    }
    // How many a further request waits for.
    [[nodiscard]] std::size_t in_line() const { return under_way - of_any_order; }
    [[nodiscard]] bool answered() const { return under_way == 0 && !has_output(); }
    // Who has said that it quits, or what cannot be understood, gets what is in line.
    [[nodiscard]] bool ends_answered() const {
        return session.closing ? in_line() == 0 && !has_output() : answered();
    }
};

// What became of reading or writing.
enum class Moved : std::uint8_t {
    some,
    nothing,  // would block
    ended,    // the other side has closed, or is gone
};

// Appends what is there, at most about `bytes_max` at a time, to the connection's input.
[[nodiscard]] Moved read_some(Connection& connection, std::size_t bytes_max);
// Sends as much as the socket takes.
[[nodiscard]] Moved write_some(Connection& connection);

}  // namespace dedup::server
