// Stands between a client and a server's socket, and loses one request or its answer.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace dedup::test {

class FaultyWay {
  public:
    enum class Fault : int {
        none,
        lose_request,  // the connection ends before the request reaches the server
        lose_answer,   // the connection ends when the server has answered
        hold_answer,   // the answer never comes, and the connection stays
        log_out,       // the server has forgotten who the client is; also of a read
    };

    FaultyWay(std::string path, std::string server)
        : path_(std::move(path)), server_(std::move(server)) {
        listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const sockaddr_un address = address_of(path_);
        if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
            ::listen(listener_, 64) != 0) {
            throw std::runtime_error("cannot listen at " + path_);
        }
        acceptor_ = std::thread([this] { accept_all(); });
    }
    ~FaultyWay() {
        ending_ = true;
        acceptor_.join();
        for (std::thread& thread : connections_) {
            thread.join();
        }
        ::close(listener_);
    }
    FaultyWay(const FaultyWay&) = delete;
    FaultyWay& operator=(const FaultyWay&) = delete;

    // Of the next append that is sent, or the next `command`, whichever connection it comes by.
    // `then` runs between the fault and the next connection.
    void arm(Fault fault, std::function<void()> then = {}, const char* command = "DEDUP.APPEND") {
        const std::lock_guard lock(mutex_);
        then_ = std::move(then);
        command_ = command;
        fault_ = fault;
    }
    // What `then` has done is visible from now on.
    void settle() { const std::lock_guard lock(mutex_); }
    [[nodiscard]] bool armed() const { return fault_ != Fault::none; }

  private:
    static sockaddr_un address_of(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        return address;
    }
    static bool readable(int fd) {
        pollfd waited{.fd = fd, .events = POLLIN, .revents = 0};
        return ::poll(&waited, 1, 5) > 0;
    }
    void accept_all() {
        while (!ending_) {
            if (readable(listener_)) {
                const int client = ::accept(listener_, nullptr, nullptr);
                connections_.emplace_back([this, client] { pass_on(client); });
            }
        }
    }
    // False: the one side has ended.
    static bool move(int from, int to, std::string& seen) {
        std::array<char, 65536> bytes;
        const ssize_t got = ::recv(from, bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (got <= 0) {
            return got < 0 && errno == EAGAIN;
        }
        seen.assign(bytes.data(), static_cast<std::size_t>(got));
        return to < 0 || ::send(to, bytes.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) > 0;
    }
    void pass_on(int client) {
        const int server = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const sockaddr_un address = address_of(server_);
        bool alive =
            ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        bool holding = false;
        while (alive && !ending_) {
            std::string seen;
            if (readable(client)) {
                std::array<char, 4096> bytes;
                const ssize_t got = ::recv(client, bytes.data(), bytes.size(), MSG_PEEK);
                const std::string_view text(bytes.data(),
                                            got > 0 ? static_cast<std::size_t>(got) : 0U);
                const bool counts = text.contains(command_.load()) ||
                                    (fault_ == Fault::log_out && text.contains("DEDUP.HEADS"));
                const Fault fault = counts ? fault_.exchange(Fault::none) : Fault::none;
                if (fault == Fault::log_out) {
                    log_out(server);
                }
                if (fault == Fault::lose_request) {
                    run_then();
                    break;
                }
                alive = move(client, server, seen);
                if (fault == Fault::lose_answer) {
                    while (!readable(server) && !ending_) {
                    }
                    run_then();
                    break;
                }
                holding = holding || fault == Fault::hold_answer;
            }
            if (!holding && readable(server)) {
                alive = alive && move(server, client, seen);
            }
        }
        ::close(client);
        ::close(server);
    }
    static void log_out(int server) {
        constexpr std::string_view kReset = "RESET\r\n";
        std::array<char, 8> answer;  // "+RESET" and the line's end
        if (::send(server, kReset.data(), kReset.size(), MSG_NOSIGNAL) < 0 ||
            ::recv(server, answer.data(), answer.size(), MSG_WAITALL) != 8) {
            throw std::runtime_error("the server did not take RESET");
        }
    }
    void run_then() {
        const std::lock_guard lock(mutex_);
        if (then_) {
            then_();
        }
    }

    const std::string path_;
    const std::string server_;
    int listener_ = -1;
    std::atomic<bool> ending_ = false;
    std::atomic<Fault> fault_ = Fault::none;
    std::atomic<const char*> command_ = "DEDUP.APPEND";  // that it is for
    std::mutex mutex_;                                   // guards then_, and what it does
    std::function<void()> then_;
    std::thread acceptor_;
    std::vector<std::thread> connections_;
};

}  // namespace dedup::test
