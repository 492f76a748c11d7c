#include "server/connection.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace dedup::server {
namespace {

constexpr std::size_t kReadBytes = 64 * 1024;

// Idle connections keep no more than this.
constexpr std::size_t kKeptBytes = 4 * 1024;

}  // namespace

Moved read_some(Connection& connection, std::size_t most) {
    // By way of the stack, so that an idle connection holds no buffer.
    std::array<char, kReadBytes> bytes;
    const std::size_t wanted = std::min(most, bytes.size());
    const ssize_t got =
        retry([&] { return ::recv(connection.socket.get(), bytes.data(), wanted, MSG_DONTWAIT); });
    if (got > 0) {
        connection.input.append(bytes.data(), static_cast<std::size_t>(got));
        return Moved::some;
    }
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? Moved::nothing : Moved::ended;
}

Moved write_some(Connection& connection) {
    std::string& output = connection.output;
    Moved moved = Moved::nothing;
    while (connection.has_output()) {
        const ssize_t went = retry([&] {
            return ::send(connection.socket.get(), output.data() + connection.sent,
                          output.size() - connection.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        });
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
