// A client of the server under test: a blocking socket, and replies as text.
#pragma once

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dedup::test {

// As client libraries send it.
inline std::string request(std::initializer_list<std::string_view> arguments) {
    std::string bytes = "*" + std::to_string(arguments.size()) + "\r\n";
    for (const std::string_view argument : arguments) {
        bytes += "$" + std::to_string(argument.size()) + "\r\n";
        bytes += argument;
        bytes += "\r\n";
    }
    return bytes;
}

class Client {
  public:
    explicit Client(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        REQUIRE(path.size() < sizeof address.sun_path);
        std::memcpy(address.sun_path, path.data(), path.size());
        REQUIRE(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    // Over TCP, on this machine.
    explicit Client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    Client(Client&& other) noexcept
        : fd_(std::exchange(other.fd_, -1)), input_(std::move(other.input_)) {}
    Client(const Client&) = delete;
    ~Client() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }

    void send(std::string_view bytes) const {
        while (!bytes.empty()) {
            const ssize_t went = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            REQUIRE(went > 0);
            bytes.remove_prefix(static_cast<std::size_t>(went));
        }
    }
    // As often as the socket takes it at once, but no more than so many bytes.
    void send_without_waiting(std::string_view bytes, std::size_t bytes_max) const {
        ssize_t went = 1;
        for (std::size_t sent = 0; went > 0 && sent < bytes_max; sent += bytes.size()) {
            went = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    }
    // Gives back the memory of what has been read.
    void forget_input() { input_ = std::string(); }
    void end_sending() const { ::shutdown(fd_, SHUT_WR); }

    // The next reply: "OK", "17", "-ERR ...", "'bytes'", "nil", "[a b]", "{a: b}"; "EOF" if the
    // server has closed the connection.
    std::string reply() {
        std::string line;
        if (!read_line(line)) {
            return "EOF";
        }
        const std::string rest = line.substr(1);
        switch (line.front()) {
            case '+':
            case ':':
                return rest;
            case '-':
                return line;
            case '_':
                return "nil";
            case '$':
                return rest == "-1" ? "nil" : "'" + read_bytes(std::stoul(rest)) + "'";
            case '*':
                return rest == "-1" ? "nil" : list(std::stoul(rest));
            case '%':
                return map(std::stoul(rest));
            default:
                FAIL("no reply begins like this: " << line);
                return "";
        }
    }

    std::string ask(std::initializer_list<std::string_view> arguments) {
        send(request(arguments));
        return reply();
    }

    std::string ask_all(const std::vector<std::string>& arguments) {
        std::string bytes = "*" + std::to_string(arguments.size()) + "\r\n";
        for (const std::string& argument : arguments) {
            bytes += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
        }
        send(bytes);
        return reply();
    }

  private:
    std::string list(std::size_t count) {
        std::string text = "[";
        for (std::size_t i = 0; i < count; ++i) {
            text += (i == 0 ? "" : " ") + reply();
        }
        return text + "]";
    }
    std::string map(std::size_t pairs) {
        std::string text = "{";
        for (std::size_t i = 0; i < pairs; ++i) {
            text += (i == 0 ? "" : ", ") + reply();
            text += ": " + reply();
        }
        return text + "}";
    }
    bool more() {
        char bytes[16384];
        const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
        if (got > 0) {
            input_.append(bytes, static_cast<std::size_t>(got));
        }
        return got > 0;
    }
    bool read_line(std::string& line) {
        std::size_t end = 0;
        while ((end = input_.find("\r\n")) == std::string::npos) {
            if (!more()) {
                return false;
            }
        }
        line = input_.substr(0, end);
        input_.erase(0, end + 2);
        return true;
    }
    std::string read_bytes(std::size_t count) {
        while (input_.size() < count + 2) {
            REQUIRE(more());
        }
        const std::string bytes = input_.substr(0, count);
        input_.erase(0, count + 2);
        return bytes;
    }

    int fd_;
    std::string input_;
};

}  // namespace dedup::test
