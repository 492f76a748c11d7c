#include "server/listen.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

namespace dedup::server {
namespace {

constexpr int kBacklog = 1024;

std::unexpected<Error> system_error(const std::string& what, int error) {
    return std::unexpected(
        Error{.code = Code::io, .message = what + ": " + std::strerror(error), .os_error = error});
}

std::unexpected<Error> wrong(std::string what) {
    return std::unexpected(Error{.code = Code::invalid_argument, .message = std::move(what)});
}

Descriptor new_socket(int family) {
    return Descriptor(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

Result<sockaddr_un> unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos) {
        return wrong(
            fmt::format("the path of the socket, {}, is {} bytes; at most {} are possible: "
                        "choose a shorter one, or one relative to the directory",
                        path, path.size(), sizeof address.sun_path - 1));
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

template <class Address>
const sockaddr* as_address(const Address& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

// One starter at a time in a directory, or one would take the other's socket, which does not
// listen yet, for one that was left. Ends when the descriptor is closed.
Result<Descriptor> take_turn(const std::string& path) {
    constexpr int kAttempts = 500;
    constexpr useconds_t kPauseUs = 10'000;
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "."
                                  : slash == 0               ? "/"
                                                             : path.substr(0, slash);
    Descriptor turn(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (turn.get() < 0) {
        return system_error("cannot open the directory of the socket, " + directory, errno);
    }
    for (int attempt = 0; ::flock(turn.get(), LOCK_EX | LOCK_NB) != 0; ++attempt) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return turn;  // a file system without locks: as well as can be
        }
        if (attempt == kAttempts) {
            return std::unexpected(Error{
                Code::busy,
                "another process has a lock on the directory " + directory + ", and holds it"});
        }
        ::usleep(kPauseUs);
    }
    return turn;
}

// Something is at the path. Makes room if that is a socket without a listener.
Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        return errno == ENOENT ? Result<void>() : system_error("cannot look at " + path, errno);
    }
    if (!S_ISSOCK(status.st_mode)) {
        return wrong(
            fmt::format("{} is there and is no socket; remove it, or choose another path", path));
    }
    const Descriptor probe = new_socket(AF_UNIX);
    if (::connect(probe.get(), as_address(address), sizeof address) == 0 || errno == EAGAIN) {
        return std::unexpected(Error{
            .code = Code::busy,
            .message = fmt::format("another process listens at {}; stop it, or choose another "
                                   "path",
                                   path)});
    }
    if (errno != ECONNREFUSED) {
        return system_error("cannot tell whether anybody listens at " + path, errno);
    }
    if (::unlink(path.c_str()) != 0) {
        return system_error("cannot remove " + path + ", where nobody listens any more", errno);
    }
    return {};
}

bool is_loopback(const sockaddr* info) {
    if (info->sa_family == AF_INET) {
        sockaddr_in address{};
        std::memcpy(&address, info, sizeof address);
        return (ntohl(address.sin_addr.s_addr) >> 24) == 127;
    }
    sockaddr_in6 address{};
    std::memcpy(&address, info, sizeof address);
    return IN6_IS_ADDR_LOOPBACK(&address.sin6_addr);
}

std::unexpected<Error> open_to_all(const std::string& address, std::string_view needs) {
    return wrong(
        fmt::format("{} can be reached from other machines, so it needs {}; or listen on 127.0.0.1",
                    address, needs));
}

// Where a socket listens that somebody else has made, and that it does not hold up whoever accepts.
Result<sockaddr_storage> address_of_listener(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    int listens = 0;
    socklen_t listens_size = sizeof listens;
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_size) != 0 || listens == 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        return wrong(fmt::format("descriptor {} is no socket that listens", fd));
    }
    if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0 ||
        ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return system_error("cannot set up a socket that was handed over", errno);
    }
    return address;
}

struct HostAndPort {
    std::string host;
    std::string port;
};

Result<HostAndPort> parse_address(const std::string& address) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == address.size() ||
        address.find_first_not_of("0123456789", colon + 1) != std::string::npos) {
        return wrong(
            fmt::format("\"{}\" is no address; it is host:port, such as 127.0.0.1:6380", address));
    }
    std::string host = address.substr(0, colon);
    if (host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    return HostAndPort{host, address.substr(colon + 1)};
}

std::uint16_t bound_port(int socket) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        return 0;
    }
    in_port_t port = 0;
    const std::size_t at = address.ss_family == AF_INET ? offsetof(sockaddr_in, sin_port)
                                                        : offsetof(sockaddr_in6, sin6_port);
    std::memcpy(&port, reinterpret_cast<const char*>(&address) + at, sizeof port);
    return ntohs(port);
}

}  // namespace

UnixListener& UnixListener::operator=(UnixListener&& other) noexcept {
    std::swap(socket_, other.socket_);
    std::swap(path_, other.path_);
    std::swap(inode_, other.inode_);
    return *this;
}

Result<UnixListener> UnixListener::listen(const std::string& path) {
    auto address = unix_address(path);
    if (!address) {
        return std::unexpected(std::move(address).error());
    }
    UnixListener listener;
    listener.socket_ = new_socket(AF_UNIX);
    if (listener.fd() < 0) {
        return system_error("cannot make a socket", errno);
    }
    auto turn = take_turn(path);
    if (!turn) {
        return std::unexpected(std::move(turn).error());
    }
    if (::bind(listener.fd(), as_address(*address), sizeof *address) != 0) {
        if (errno != EADDRINUSE) {
            return system_error("cannot listen at " + path, errno);
        }
        if (auto removed = remove_stale(path, *address); !removed) {
            return std::unexpected(std::move(removed).error());
        }
        if (::bind(listener.fd(), as_address(*address), sizeof *address) != 0) {
            return system_error("cannot listen at " + path, errno);
        }
    }
    struct stat status {};
    if (::listen(listener.fd(), kBacklog) != 0 || ::lstat(path.c_str(), &status) != 0) {
        return system_error("cannot listen at " + path, errno);
    }
    listener.path_ = path;
    listener.inode_ = status.st_ino;
    return listener;
}

void UnixListener::close() {
    struct stat status {};
    if (!path_.empty() && ::lstat(path_.c_str(), &status) == 0 && status.st_ino == inode_) {
        ::unlink(path_.c_str());
    }
    path_.clear();
    socket_.close();
}

Result<TcpListener> listen_tcp(const std::string& address, bool anywhere, std::string_view needs) {
    auto parts = parse_address(address);
    if (!parts) {
        return std::unexpected(std::move(parts).error());
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    if (const int error = ::getaddrinfo(parts->host.c_str(), parts->port.c_str(), &hints, &found);
        error != 0) {
        return wrong(fmt::format("\"{}\" is no address: {}", address, ::gai_strerror(error)));
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, ::freeaddrinfo);
    if (!anywhere && !is_loopback(list->ai_addr)) {
        return open_to_all(address, needs);
    }
    TcpListener listener{.socket = new_socket(list->ai_family), .address = address};
    const int fd = listener.socket.get();
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd, list->ai_addr, list->ai_addrlen) != 0 || ::listen(fd, kBacklog) != 0) {
        const int error = errno;
        return error == EADDRINUSE
                   ? std::unexpected(Error{.code = Code::busy,
                                           .message = "another process listens on " + address +
                                                      "; stop it, or choose another port"})
                   : system_error("cannot listen on " + address, error);
    }
    listener.port = bound_port(fd);
    return listener;
}

Result<TcpListener> adopt_tcp(Descriptor listening, bool anywhere, std::string_view needs) {
    const auto address = address_of_listener(listening.get());
    if (!address) {
        return std::unexpected(address.error());
    }
    if (address->ss_family != AF_INET && address->ss_family != AF_INET6) {
        return wrong("a socket that was handed over for TCP is not of TCP");
    }
    TcpListener listener;
    listener.port = bound_port(listening.get());
    listener.address = fmt::format("port {}", listener.port);
    if (!anywhere && !is_loopback(as_address(*address))) {
        return open_to_all(listener.address, needs);
    }
    listener.socket = std::move(listening);
    return listener;
}

Result<std::string> unix_path_of(int listening) {
    const auto address = address_of_listener(listening);
    if (!address) {
        return std::unexpected(address.error());
    }
    if (address->ss_family != AF_UNIX) {
        return wrong("a socket that was handed over for Unix is not of Unix");
    }
    sockaddr_un path{};
    std::memcpy(&path, &*address, sizeof path);
    return std::string(path.sun_path);
}

Descriptor accept_from(int listener) {
    return Descriptor(retry([listener] {
        return ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }));
}

std::string peer_of(int socket) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        return "nowhere";  // it has gone
    }
    if (address.ss_family == AF_UNIX) {
        ucred peer{};
        size = sizeof peer;
        ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size);
        return fmt::format("process {} of uid {}", peer.pid, peer.uid);
    }
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    ::getnameinfo(as_address(address), size, host.data(), host.size(), port.data(), port.size(),
                  NI_NUMERICHOST | NI_NUMERICSERV);
    return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host.data(), port.data())
                                         : fmt::format("{}:{}", host.data(), port.data());
}

void keep_alive(int socket) {
    // The last is for replies on their way, of which the system asks no more than that they arrive.
    constexpr std::array<std::pair<int, int>, 4> kTimes = {
        {{TCP_KEEPIDLE, 60}, {TCP_KEEPINTVL, 10}, {TCP_KEEPCNT, 3}, {TCP_USER_TIMEOUT, 90'000}}};
    const int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    for (const auto& [option, value] : kTimes) {
        ::setsockopt(socket, IPPROTO_TCP, option, &value, sizeof value);
    }
}

}  // namespace dedup::server
