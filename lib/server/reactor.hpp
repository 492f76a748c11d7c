// The sockets: accepts, reads, takes requests out of what came, hands them to the executor, and
// sends the replies. Waits for nothing but the sockets.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dedup/server.hpp"
#include "env/descriptor.hpp"
#include "env/mutex.hpp"
#include "server/connection.hpp"
#include "server/event_limit.hpp"
#include "server/executor.hpp"
#include "server/listen.hpp"

namespace dedup::server {

struct Listeners {
    UnixListener unix_socket = {};
    std::optional<TcpListener> tcp = {};
    std::uint16_t http = 0;  // the port that somebody else listens on; for the log
    std::shared_ptr<const tls::Context> tls = {};  // of tcp; null: without
};

class Reactor {
  public:
    // `epoll` and `wake`, an eventfd, are new. Both outlive the thread.
    Reactor(StreamStore& store, std::string store_id, ServerOptions options,
            std::vector<User> users, Listeners listeners, Descriptor epoll, Descriptor wake);
    ~Reactor();  // stops
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    void stop() DEDUP_EXCLUDES(stop_mutex_);
    // Any thread.
    void replace_users(std::vector<User> users);
    // For connections from now on.
    void replace_tls(std::shared_ptr<const tls::Context> tls) DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] ServerMetrics metrics() const;
    [[nodiscard]] std::uint16_t tcp_port() const { return tcp_port_; }

  private:
    void run() DEDUP_EXCLUDES(mutex_);
    void run_once(int timeout_ms) DEDUP_EXCLUDES(mutex_);
    void on_event(std::uint64_t tag, std::uint32_t events);
    void accept_all(int listener, bool tcp);
    void cannot_accept(int error);
    void admit(Descriptor socket, bool tcp) DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] bool start_tls(Connection& connection) DEDUP_EXCLUDES(mutex_);
    void relieve_arriving();
    [[nodiscard]] bool is_known_process(int socket) const;
    void read_from(Connection& connection);
    void welcome(Connection& connection);
    void look_at_users();
    void take_requests(Connection& connection);
    bool take_request(Connection& connection, std::string_view bytes, std::size_t& size);
    void carry_out(Connection& connection, std::size_t bytes);
    static void follow_user(Connection& connection);
    void hold(Connection& connection, std::size_t bytes);
    void give_back(Connection& connection, std::size_t bytes);
    std::size_t follow_transaction(Connection& connection);
    void begin_request(Connection& connection, std::size_t bytes);
    [[nodiscard]] bool has_bytes_share(const Connection& connection, std::size_t bytes) const;
    CommandPtr command_for(Connection& connection, std::size_t bytes);
    [[nodiscard]] CommandPtr busy(const Connection& connection);
    [[nodiscard]] CommandPtr busy_with(const Command& command);
    [[nodiscard]] bool has_room_to_stay(const Connection& connection) const;
    void reject(Connection& connection, std::string_view why);
    void add_output(Connection& connection, std::string_view bytes);
    void take_replies() DEDUP_EXCLUDES(mutex_);
    void take_reply(Replies& replies);
    void settle(Connection& connection);
    void settle_touched();
    void relieve();
    [[nodiscard]] bool is_stranger(const Connection& connection) const;
    void follow_stranger(Connection& connection);
    bool evict_stranger();
    [[nodiscard]] std::size_t reply_bytes_max(const Connection& connection) const;
    void watch(Connection& connection);
    void close(Connection& connection, std::string_view why);
    void look_after(SteadyTime now);
    void watch_listeners(bool watched);
    void close_listeners();
    void forget_descriptors();
    [[nodiscard]] int tcp_fd() const { return listeners_.tcp ? listeners_.tcp->socket.get() : -1; }
    void begin_to_stop();
    void note(std::string_view what, std::uint64_t connection, std::string detail = {}) const;
    void note_refused(std::uint64_t connection, std::string why);
    void note_limited(EventLimit& limit, std::uint64_t connection, std::string detail);
    void look_at_login(Connection& connection);
    void tell_untold(SteadyTime now);
    void tell_of_store();
    void wake() const;

    const ServerOptions options_;
    Facts facts_;
    Listeners listeners_;
    const std::uint16_t tcp_port_;
    const bool has_tls_;  // on TCP
    const Descriptor epoll_;
    const Descriptor wake_;

    // Of the reactor's thread.
    std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections_;
    std::uint64_t last_number_ = 0;
    std::set<std::uint64_t> arriving_;   // connections whose TLS has yet to be settled
    std::set<std::uint64_t> strangers_;  // connections that have yet to log in, the oldest first
    std::size_t under_way_ = 0;          // requests of all connections without a reply
    std::size_t held_bytes_ = 0;         // of these, and of what has come in part
    std::vector<std::pair<LanePtr, CommandPtr>> submitting_;
    std::vector<std::uint64_t> touched_;  // connections to be settled
    EventLimit refusals_{"refused"};
    EventLimit failed_logins_{"login_failed"};
    bool listening_ = true;
    bool accepts_ = true;  // as far as has been tried
    std::optional<SteadyTime> stopping_since_;

    // For anybody.
    std::atomic<bool> stop_asked_ = false;
    std::atomic<bool> users_replaced_ = false;
    std::atomic<std::uint64_t> connected_ = 0;
    std::atomic<std::uint64_t> open_ = 0;
    std::atomic<std::uint64_t> refused_ = 0;
    std::atomic<std::uint64_t> logins_failed_ = 0;
    std::atomic<std::uint64_t> requests_ = 0;
    std::atomic<std::uint64_t> busy_ = 0;
    std::atomic<std::size_t> unsent_bytes_ = 0;  // of all lanes, which it outlives

    StoreWatch store_watch_;
    Mutex mutex_;
    std::vector<Replies> replies_ DEDUP_GUARDED_BY(mutex_);
    // Of TCP; null: without TLS.
    std::shared_ptr<const tls::Context> tls_ DEDUP_GUARDED_BY(mutex_);

    Mutex stop_mutex_;
    Executor executor_;  // delivers to what stands above
    std::thread thread_;
};

}  // namespace dedup::server
