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
constexpr std::string_view kTlsScheme = "tls://";

}  // namespace

bool is_remote_url(std::string_view path) {
    return path.starts_with(kUnixScheme) || path.starts_with(kTcpScheme) ||
           path.starts_with(kTlsScheme);
}

namespace remote {
namespace {

std::unexpected<Error> bad_url(std::string_view what) {
    return std::unexpected(
        Error{Code::invalid_argument,
              fmt::format("the store's URL {}; it is unix:PATH[?user=USER] or "
                          "tcp://[USER:PASSWORD@]HOST:PORT, or tls:// with the same",
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

// False: it is not to be waited for any longer.
bool wait_for(int socket, short events, TimePoint deadline, const std::atomic<bool>& stop) {
    pollfd ready{.fd = socket, .events = events, .revents = 0};
    int found = 0;
    int left_ms = milliseconds_until(deadline);
    for (; found == 0 && left_ms > 0 && !stop; left_ms = milliseconds_until(deadline)) {
        const int wait_ms = std::min(left_ms, kLookEveryMs);
        found = retry([&] { return ::poll(&ready, 1, wait_ms); });
    }
    return found > 0;
}

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
    if (!wait_for(socket.get(), POLLOUT, deadline, stop)) {
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

std::string* value_for(Address& address, std::string_view name) {
    if (!address.unix_path.empty()) {
        return name == "user" ? &address.user : nullptr;
    }
    return address.tls && name == "ca"     ? &address.files.authorities
           : address.tls && name == "cert" ? &address.files.certificate
           : address.tls && name == "key"  ? &address.files.key
                                           : nullptr;
}

// "ca=/etc/ca.pem&cert=..."
Result<void> parse_query(std::string_view query, Address& address) {
    while (!query.empty()) {
        const std::string_view pair = query.substr(0, query.find('&'));
        query.remove_prefix(std::min(pair.size() + 1, query.size()));
        const std::size_t equals = std::min(pair.find('='), pair.size());
        std::string* const value = value_for(address, pair.substr(0, equals));
        const auto plain = without_percents(pair.substr(std::min(equals + 1, pair.size())));
        if (value == nullptr || !plain || plain->empty() || !value->empty()) {
            return bad_url(
                "has something unknown behind its '?': tls:// may have a file as ca, "
                "cert and key, and unix: a user, each once");
        }
        *value = *plain;
    }
    if (address.files.certificate.empty() != address.files.key.empty()) {
        return bad_url("needs both cert= and key=, or neither");
    }
    return {};
}

Result<Address> parse_tcp(std::string_view rest, bool tls) {
    Address address;
    address.tls = tls;
    const std::size_t who_end = rest.rfind('@');
    if (const std::size_t mark = rest.find('?', who_end == std::string_view::npos ? 0 : who_end);
        mark != std::string_view::npos) {
        if (auto parsed = parse_query(rest.substr(mark + 1), address); !parsed) {
            return std::unexpected(std::move(parsed).error());
        }
        rest = rest.substr(0, mark);
    }
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
    return fmt::format("{}{}{}{}{}{}:{}", tls ? kTlsScheme : kTcpScheme, user,
                       user.empty() ? "" : "@", brackets ? "[" : "", host, brackets ? "]" : "",
                       port);
}

Result<Address> parse_address(const std::string& url) {
    const std::string_view text = url;
    if (text.find('\0') != std::string_view::npos) {
        return bad_url("has a zero byte in it");
    }
    if (text.starts_with(kTcpScheme)) {
        return parse_tcp(text.substr(kTcpScheme.size()), false);
    }
    if (text.starts_with(kTlsScheme)) {
        return parse_tcp(text.substr(kTlsScheme.size()), true);
    }
    Address address;
    if (text.starts_with(kUnixScheme)) {
        std::string_view path = text.substr(kUnixScheme.size());
        if (path.starts_with("//")) {  // unix:///path, as others write it
            path.remove_prefix(2);
        }
        constexpr std::string_view kUser = "?user=";
        const std::size_t mark = std::min(path.find(kUser), path.size());
        address.unix_path = path.substr(0, mark);
        if (!address.unix_path.empty() && mark < path.size()) {
            if (auto parsed = parse_query(path.substr(mark + 1), address); !parsed) {
                return std::unexpected(std::move(parsed).error());
            }
        }
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

Result<std::unique_ptr<tls::Stream>> secure(const Address& address, const tls::Context& context,
                                            int socket, TimePoint deadline,
                                            const std::atomic<bool>& stop) {
    auto stream = context.connect(socket, address.host);
    if (!stream) {
        return std::unexpected(Error{Code::out_of_space, "out of memory"});
    }
    while (stream->shake_hands() != 1) {
        if (errno != EAGAIN) {
            return std::unexpected(
                Error{errno == EPROTO ? Code::invalid_argument : Code::unavailable,
                      fmt::format("TLS with {} failed: {}", address.shown(), stream->problem())});
        }
        const short events = stream->waits_to_send() ? POLLOUT : POLLIN;
        if (!wait_for(socket, events, deadline, stop)) {
            return away(address, ETIMEDOUT);
        }
    }
    return stream;
}

int milliseconds_until(TimePoint deadline) {
    using std::chrono::milliseconds;
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
}

}  // namespace remote
}  // namespace dedup
