#include "remote/address.hpp"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "dedup/remote_store.hpp"

namespace dedup {

namespace {

constexpr std::string_view kUnixScheme = "unix:";
constexpr std::string_view kTcpScheme = "tcp://";

}  // namespace

bool is_remote_url(std::string_view path) {
    return path.starts_with(kUnixScheme) || path.starts_with(kTcpScheme);
}

namespace remote {
namespace {

std::unexpected<Error> bad_url(std::string_view what) {
    return std::unexpected(
        Error{Code::invalid_argument, fmt::format("the store's URL {}; it is unix:PATH or "
                                                  "tcp://[USER:PASSWORD@]HOST:PORT",
                                                  what)});
}

std::optional<std::string> without_percents(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            plain += text[i];
            continue;
        }
        unsigned byte = 0;
        if (text.size() - i < 3) {
            return std::nullopt;
        }
        const char* const end = text.data() + i + 3;
        const auto [read, error] = std::from_chars(text.data() + i + 1, end, byte, 16);
        if (error != std::errc{} || read != end) {
            return std::nullopt;
        }
        plain += static_cast<char>(byte);
        i += 2;
    }
    return plain;
}

std::unexpected<Error> away(const Address& address, int error) {
    return std::unexpected(
        Error{.code = Code::unavailable,
              .message = fmt::format("no server answers at {}: {}; `dedupctl serve` starts one",
                                     address.shown(), std::strerror(error)),
              .os_error = error});
}

// Whoever waits for a connection looks so often whether it is still wanted.
constexpr int kLookEveryMs = 50;

Result<Descriptor> connect_socket(const Address& address, const sockaddr* to, socklen_t size,
                                  TimePoint deadline, const std::atomic<bool>& stop) {
    Descriptor socket(::socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (socket.get() < 0) {
        return std::unexpected(
            Error{.code = Code::io,
                  .message = std::string("cannot make a socket: ") + std::strerror(errno),
                  .os_error = errno});
    }
    if (::connect(socket.get(), to, size) == 0) {
        return socket;
    }
    if (errno != EINPROGRESS && errno != EINTR) {
        return away(address, errno);
    }
    pollfd ready{.fd = socket.get(), .events = POLLOUT, .revents = 0};
    int found = 0;
    int left_ms = milliseconds_until(deadline);
    for (; found == 0 && left_ms > 0 && !stop; left_ms = milliseconds_until(deadline)) {
        const int wait_ms = std::min(left_ms, kLookEveryMs);
        found = retry([&] { return ::poll(&ready, 1, wait_ms); });
    }
    if (found <= 0) {
        return away(address, ETIMEDOUT);
    }
    int error = 0;
    socklen_t error_size = sizeof error;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &error_size) != 0 || error != 0) {
        return away(address, error);
    }
    return socket;
}

Result<Descriptor> connect_unix(const Address& address, TimePoint deadline,
                                const std::atomic<bool>& stop) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    if (address.unix_path.size() >= sizeof to.sun_path) {
        return std::unexpected(
            Error{Code::invalid_argument,
                  fmt::format("the path of the socket is {} bytes; at most {} are possible",
                              address.unix_path.size(), sizeof to.sun_path - 1)});
    }
    std::memcpy(to.sun_path, address.unix_path.data(), address.unix_path.size());
    return connect_socket(address, reinterpret_cast<const sockaddr*>(&to), sizeof to, deadline,
                          stop);
}

Result<Descriptor> connect_tcp(const Address& address, TimePoint deadline,
                               const std::atomic<bool>& stop) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int error = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
        error != 0) {
        const bool passes = error == EAI_AGAIN;
        return std::unexpected(Error{
            passes ? Code::unavailable : Code::invalid_argument,
            fmt::format("there is no way to {}: {}", address.shown(), ::gai_strerror(error))});
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, ::freeaddrinfo);
    Result<Descriptor> socket = away(address, EADDRNOTAVAIL);
    for (const addrinfo* info = found; info != nullptr && !socket; info = info->ai_next) {
        socket = connect_socket(address, info->ai_addr, info->ai_addrlen, deadline, stop);
    }
    const int on = 1;
    if (socket) {
        ::setsockopt(socket->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        ::setsockopt(socket->get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    return socket;
}

Result<Address> parse_tcp(std::string_view rest) {
    Address address;
    if (const std::size_t at = rest.rfind('@'); at != std::string_view::npos) {
        const std::string_view who = rest.substr(0, at);
        const std::size_t colon = who.find(':');
        const auto user = without_percents(who.substr(0, colon));
        const auto password = colon == std::string_view::npos
                                  ? std::optional(std::string())
                                  : without_percents(who.substr(colon + 1));
        if (!user || !password) {
            return bad_url("has a % without two hex digits in its user or password");
        }
        address.user = *user;
        address.password = *password;
        rest.remove_prefix(at + 1);
    }
    if (rest.ends_with('/')) {
        rest.remove_suffix(1);
    }
    const std::size_t colon = rest.rfind(':');
    if (colon == std::string_view::npos || colon == 0 || colon + 1 == rest.size() ||
        rest.find_first_not_of("0123456789", colon + 1) != std::string_view::npos) {
        return bad_url("has no host and port");
    }
    address.host = rest.substr(0, colon);
    address.port = rest.substr(colon + 1);
    if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
        address.host = address.host.substr(1, address.host.size() - 2);
    }
    return address;
}

}  // namespace

std::string Address::shown() const {
    if (!unix_path.empty()) {
        return std::string(kUnixScheme) + unix_path;
    }
    const bool brackets = host.find(':') != std::string::npos;
    return fmt::format("{}{}{}{}{}{}:{}", kTcpScheme, user, user.empty() ? "" : "@",
                       brackets ? "[" : "", host, brackets ? "]" : "", port);
}

Result<Address> parse_address(const std::string& url) {
    const std::string_view text = url;
    if (text.find('\0') != std::string_view::npos) {
        return bad_url("has a zero byte in it");
    }
    if (text.starts_with(kTcpScheme)) {
        return parse_tcp(text.substr(kTcpScheme.size()));
    }
    Address address;
    if (text.starts_with(kUnixScheme)) {
        std::string_view path = text.substr(kUnixScheme.size());
        if (path.starts_with("//")) {  // unix:///path, as others write it
            path.remove_prefix(2);
        }
        address.unix_path = path;
    }
    if (address.unix_path.empty()) {
        return bad_url("names no socket");
    }
    return address;
}

Result<Descriptor> connect_to(const Address& address, TimePoint deadline,
                              const std::atomic<bool>& stop) {
    return address.unix_path.empty() ? connect_tcp(address, deadline, stop)
                                     : connect_unix(address, deadline, stop);
}

int milliseconds_until(TimePoint deadline) {
    using std::chrono::milliseconds;
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
}

}  // namespace remote
}  // namespace dedup
