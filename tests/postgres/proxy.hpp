// Stands between libpq and a server: cuts or holds up a connection at a chosen message, or makes
// the server another one by changing what it is asked.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/temp_dir.hpp"

namespace dedup::test {

// Listens on a Unix socket and passes on to another. Threads: armed by the test, carried out by
// the proxy's own threads.
class Proxy {
  public:
    enum class Fault : int {
        none,
        lose_request,  // the connection ends before the request reaches the server
        lose_answer,   // the server gets the request; the connection ends before its answer
        hold_answer,   // the answer never comes, and the connection stays
    };

    explicit Proxy(std::string server) : server_(std::move(server)) {
        listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const sockaddr_un address = address_of(directory() + "/.s.PGSQL.5432");
        if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
            ::listen(listener_, 64) != 0) {
            throw std::runtime_error("the proxy cannot listen");
        }
        acceptor_ = std::thread([this] { accept_all(); });
    }
    ~Proxy() {
        ending_ = true;
        acceptor_.join();
        for (std::thread& thread : connections_) {
            thread.join();
        }
        ::close(listener_);
    }
    Proxy(const Proxy&) = delete;
    Proxy& operator=(const Proxy&) = delete;

    [[nodiscard]] std::string url() const {
        return "postgresql://dedup@/postgres?host=" + directory();
    }
    // `fault` happens once, to the request number `request` from now on, all connections counted.
    void arm(Fault fault, int request) {
        requests_ = -request;
        fault_ = fault;
    }
    [[nodiscard]] bool happened() const { return fault_ == Fault::none; }
    // Requests get `to` wherever they have `from`, which is as long. Behind it, a store is opened:
    // a statement that was prepared before stays.
    void replace(const std::string& from, const std::string& to) {
        if (from.size() != to.size()) {
            throw std::runtime_error("'" + from + "' and '" + to + "' differ in length");
        }
        const std::lock_guard lock(replaced_mutex_);
        replaced_.emplace_back(from, to);
    }
    // While it refuses, connections end as soon as they are made.
    void refuse(bool refuses) { refuses_ = refuses; }

  private:
    [[nodiscard]] std::string directory() const { return directory_.path().string(); }

    static sockaddr_un address_of(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        return address;
    }

    void accept_all() {
        while (!ending_) {
            pollfd waiting{listener_, POLLIN, 0};
            if (::poll(&waiting, 1, 10) <= 0) {
                continue;
            }
            const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            if (refuses_) {
                ::close(client);
            } else if (client >= 0) {
                connections_.emplace_back([this, client] { pass(client); });
            }
        }
    }

    // Whether the request that came now is the one.
    Fault fault_now() {
        if (fault_ != Fault::none && ++requests_ == 0) {
            return fault_.exchange(Fault::none);
        }
        return Fault::none;
    }

    void pass(int client) {
        const int server = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const sockaddr_un address = address_of(server_);
        bool goes_on =
            ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        Fault fault = Fault::none;
        while (goes_on && !ending_) {
            std::array<pollfd, 2> both = {pollfd{client, POLLIN, 0}, pollfd{server, POLLIN, 0}};
            if (::poll(both.data(), 2, 20) <= 0) {
                continue;
            }
            if (both[0].revents != 0) {
                if (const Fault now = fault_now(); now != Fault::none) {
                    fault = now;
                }
                goes_on = fault != Fault::lose_request && copy(client, server, true);
            }
            if (goes_on && both[1].revents != 0) {
                if (fault == Fault::lose_answer) {
                    goes_on = false;
                } else if (fault == Fault::hold_answer) {
                    wait_for_end();
                    goes_on = false;
                } else {
                    goes_on = copy(server, client, false);
                }
            }
        }
        ::close(client);
        ::close(server);
    }

    void wait_for_end() const {
        while (!ending_) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }

    bool copy(int from, int to, bool replaces) {
        std::array<char, 65'536> bytes{};
        const ssize_t got = ::recv(from, bytes.data(), bytes.size(), 0);
        if (replaces && got > 0) {
            const std::lock_guard lock(replaced_mutex_);
            for (const auto& [text, instead] : replaced_) {
                auto* const end = bytes.begin() + got;
                for (auto* at = bytes.begin();
                     (at = std::search(at, end, text.begin(), text.end())) != end;) {
                    at = std::copy(instead.begin(), instead.end(), at);
                }
            }
        }
        for (ssize_t sent = 0; sent < got;) {
            const ssize_t more =
                ::send(to, bytes.data() + sent, static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
            if (more <= 0) {
                return false;
            }
            sent += more;
        }
        return got > 0;
    }

    TempDir directory_;
    std::string server_;
    int listener_ = -1;
    std::atomic<bool> ending_ = false;
    std::atomic<bool> refuses_ = false;
    std::atomic<Fault> fault_ = Fault::none;
    std::atomic<int> requests_ = 0;
    std::mutex replaced_mutex_;
    std::vector<std::pair<std::string, std::string>> replaced_;
    std::vector<std::thread> connections_;
    std::thread acceptor_;
};

}  // namespace dedup::test
