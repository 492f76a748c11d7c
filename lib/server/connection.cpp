#include "server/connection.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

namespace dedup::server {
namespace {

// Idle connections keep no more than this.
constexpr std::size_t kKeptBytes = 4 * 1024;

ssize_t receive(Connection& connection, std::span<char> bytes) {
    if (connection.tls) {
        return connection.tls->receive(bytes);
    }
    return retry(
        [&] { return ::recv(connection.socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT); });
}

ssize_t send(Connection& connection, std::string_view bytes) {
    if (connection.tls) {
        return connection.tls->send(bytes);
    }
    return retry([&] {
        return ::send(connection.socket.get(), bytes.data(), bytes.size(),
                      MSG_DONTWAIT | MSG_NOSIGNAL);
    });
}

}  // namespace

Moved read_some(Connection& connection, std::size_t bytes_max) {
    // By way of the stack, so that an idle connection holds no buffer.
    std::array<char, kAlwaysBytes> buffer;
    const std::span<char> bytes(buffer.data(), std::min(bytes_max, buffer.size()));
    ssize_t got = receive(connection, bytes);
    if (got > 0) {
        connection.input.append(bytes.data(), static_cast<std::size_t>(got));
        // Of these the socket would not tell.
        while (connection.tls && connection.tls->has_input() &&
               (got = receive(connection, bytes)) > 0) {
            connection.input.append(bytes.data(), static_cast<std::size_t>(got));
        }
        return Moved::some;
    }
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? Moved::nothing : Moved::ended;
}

Moved write_some(Connection& connection) {
    std::string& output = connection.output;
    Moved moved = Moved::nothing;
    while (connection.has_output()) {
        const ssize_t went = send(connection, std::string_view(output).substr(connection.sent));
        if (went < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? moved : Moved::ended;
        }
        moved = Moved::some;
        connection.sent += static_cast<std::size_t>(went);
        connection.lane->take_unsent(static_cast<std::size_t>(went));
    }
    output.clear();
    connection.sent = 0;
    if (output.capacity() > kKeptBytes) {
        output.shrink_to_fit();
    }
    return moved;
}

}  // namespace dedup::server
