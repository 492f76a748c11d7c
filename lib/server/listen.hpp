// The sockets that a server listens on.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "dedup/error.hpp"
#include "env/descriptor.hpp"

namespace dedup::server {

// A socket file, removed in the end if it is still the one that was made.
class UnixListener {
  public:
    UnixListener() = default;
    // A file that is no socket, or one that somebody listens on, is left alone: invalid_argument
    // and busy. One that nobody listens on any more is replaced.
    [[nodiscard]] static Result<UnixListener> listen(const std::string& path);
    // One that listens already; its file is somebody else's.
    explicit UnixListener(Descriptor listening) : socket_(std::move(listening)) {}
    UnixListener(UnixListener&&) = default;
    UnixListener& operator=(UnixListener&& other) noexcept;
    ~UnixListener() { close(); }

    [[nodiscard]] int fd() const { return socket_.get(); }
    void close();

  private:
    Descriptor socket_;
    std::string path_;
    ino_t inode_ = 0;
};

struct TcpListener {
    Descriptor socket;
    std::uint16_t port = 0;
    std::string address;  // as text, for people
};

// `address` is "host:port". Without `anywhere`, a host that is not loopback is invalid_argument:
// for that, `needs` is needed.
[[nodiscard]] Result<TcpListener> listen_tcp(const std::string& address, bool anywhere,
                                             std::string_view needs = "a password");

// The same of a socket that listens already, where it does.
[[nodiscard]] Result<TcpListener> adopt_tcp(Descriptor listening, bool anywhere,
                                            std::string_view needs = "a password");
// The path that a Unix socket listens at, for people. invalid_argument: it is no such socket.
[[nodiscard]] Result<std::string> unix_path_of(int listening);

// The next connection, or a descriptor of -1 with errno.
[[nodiscard]] Descriptor accept_from(int listener);

// Who is at the other end of a connection, for people: an address, or a process and its user.
[[nodiscard]] std::string peer_of(int socket);

// Has the system find out, within a minute or two, that the other machine is gone.
void keep_alive(int socket);

}  // namespace dedup::server
