#include "server/reactor.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <random>

#include "env/process.hpp"

namespace dedup::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// What epoll says an event is about: a connection's number, from 1, or one of these.
constexpr std::uint64_t kWakeTag = UINT64_MAX;
constexpr std::uint64_t kUnixTag = UINT64_MAX - 1;
constexpr std::uint64_t kTcpTag = UINT64_MAX - 2;

constexpr std::size_t kEventsMax = 256;
constexpr milliseconds kTickMax{1000};
constexpr milliseconds kTickMin{10};
// So many are accepted before others are looked at.
constexpr int kAcceptsMax = 64;

milliseconds tick_of(const ServerOptions& options) {
    milliseconds shortest = std::min(options.stall_timeout, options.stop_timeout);
    if (options.idle_timeout.count() > 0) {
        shortest = std::min(shortest, options.idle_timeout);
    }
    return std::clamp(shortest / 4, kTickMin, kTickMax);
}

// Nobody else's.
std::string random_name() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}", random(), random());
}

void watch_for(std::uint32_t events, int epoll, int fd, std::uint64_t tag) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = tag;
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

Reactor::Reactor(StreamStore& store, std::string store_id, ServerOptions options,
                 std::vector<User> users, Listeners listeners, Descriptor epoll, Descriptor wake)
    : options_(std::move(options)),
      facts_{.started_ms = system_now_ms(),
             .store_id = std::move(store_id),
             .grace = store.grace(),
             .appends = AppendMemory{random_name()}},
      listeners_(std::move(listeners)),
      tcp_port_(listeners_.tcp ? listeners_.tcp->port : std::uint16_t{0}),
      has_tls_(listeners_.tls != nullptr),
      epoll_(std::move(epoll)),
      wake_(std::move(wake)),
      tls_(std::move(listeners_.tls)),
      executor_(store, {.deliver =
                            [this](std::vector<Replies> replies) {
                                MutexLock lock(mutex_);
                                const bool first = replies_.empty();
                                std::ranges::move(replies, std::back_inserter(replies_));
                                if (first) {
                                    this->wake();
                                }
                            },
                        .unsent_bytes_max = options_.reply_bytes_max,
                        .all_unsent_bytes = &unsent_bytes_,
                        .all_unsent_bytes_max = 2 * options_.replies_bytes_max,
                        .watch = &store_watch_}) {
    if (!options_.users.empty()) {
        facts_.uses.connections_max = std::max<std::size_t>(1, options_.connections_max / 2);
        facts_.uses.requests_max = std::max<std::size_t>(1, options_.requests_max / 2);
        facts_.uses.bytes_max = std::max<std::size_t>(1, options_.request_bytes_max / 2);
    }
    facts_.users.replace(std::move(users));
    // Or nobody could listen there as long as a forked child lives.
    close_in_children({epoll_.get(), wake_.get()});
    for (const int fd : {listeners_.unix_socket.fd(), tcp_fd()}) {
        if (fd >= 0) {
            close_in_children({fd});
        }
    }
    watch_for(EPOLLIN, epoll_.get(), wake_.get(), kWakeTag);
    watch_listeners(true);
    try {
        thread_ = start_thread("dedup-server", [this] { run(); });
    } catch (...) {
        forget_descriptors();
        throw;
    }
}

Reactor::~Reactor() {
    stop();
    forget_descriptors();
}

void Reactor::forget_descriptors() {
    close_listeners();
    forget_in_children(epoll_.get());
    forget_in_children(wake_.get());
}

void Reactor::close_listeners() {
    for (const int fd : {listeners_.unix_socket.fd(), tcp_fd()}) {
        if (fd >= 0) {
            forget_in_children(fd);
        }
    }
    listeners_.unix_socket.close();
    listeners_.tcp.reset();
}

void Reactor::stop() {
    stop_asked_ = true;
    wake();
    MutexLock lock(stop_mutex_);
    if (thread_.joinable()) {
        thread_.join();
        executor_.finish();
    }
}

ServerMetrics Reactor::metrics() const {
    return {.connections = open_,
            .connected = connected_,
            .refused = refused_,
            .logins_failed = logins_failed_,
            .requests = requests_,
            .busy = busy_,
            .untaken_bytes = unsent_bytes_,
            .commands = facts_.times.snapshot()};
}

void Reactor::wake() const {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof one));
}

void Reactor::watch_listeners(bool watched) {
    const auto one = [&](int fd, std::uint64_t tag) {
        if (fd >= 0) {
            watched ? watch_for(EPOLLIN, epoll_.get(), fd, tag)
                    : static_cast<void>(::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr));
        }
    };
    one(listeners_.unix_socket.fd(), kUnixTag);
    one(tcp_fd(), kTcpTag);
    listening_ = watched;
}

void Reactor::run() {
    if (listeners_.unix_socket.fd() >= 0) {
        note("listening", 0, options_.unix_path);
    }
    if (listeners_.tcp) {
        note("listening", 0,
             fmt::format("{}{} (port {})", has_tls_ ? "tls://" : "", options_.tcp, tcp_port_));
    }
    if (listeners_.http != 0) {
        note("listening", 0, fmt::format("http://{} (port {})", options_.http, listeners_.http));
    }
    const milliseconds tick = tick_of(options_);
    SteadyTime looked_at = steady_clock::now();
    for (;;) {
        run_once(static_cast<int>(tick.count()));
        const SteadyTime now = steady_clock::now();
        if (now - looked_at >= tick) {
            looked_at = now;
            look_after(now);
        }
        if (stop_asked_ && !stopping_since_) {
            stopping_since_ = now;
            begin_to_stop();
        }
        if (stopping_since_) {
            const bool late = now - *stopping_since_ >= options_.stop_timeout;
            while (late && !connections_.empty()) {
                Connection& connection = *connections_.begin()->second;
                close(connection, connection.under_way == 0 ? "did not take its replies"
                                                            : "the store did not answer in time");
            }
            // Replies are taken to the end, if only to be thrown away: the executor waits for that.
            if (connections_.empty() && under_way_ == 0) {
                break;
            }
        }
    }
    tell_untold(SteadyTime::max());
    tell_of_store();
    note("stopped", 0);
}

void Reactor::run_once(int timeout_ms) {
    std::array<epoll_event, kEventsMax> events;
    const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsMax, timeout_ms);
    look_at_users();
    for (int i = 0; i < count; ++i) {
        on_event(events[static_cast<std::size_t>(i)].data.u64,
                 events[static_cast<std::size_t>(i)].events);
    }
    take_replies();
    settle_touched();
    relieve();
    if (!submitting_.empty()) {
        executor_.submit(std::exchange(submitting_, {}));
    }
}

void Reactor::on_event(std::uint64_t tag, std::uint32_t events) {
    if (tag == kWakeTag) {
        std::uint64_t count = 0;
        static_cast<void>(::read(wake_.get(), &count, sizeof count));
        return;
    }
    if (tag == kUnixTag || tag == kTcpTag) {
        accept_all(tag == kUnixTag ? listeners_.unix_socket.fd() : listeners_.tcp->socket.get(),
                   tag == kTcpTag);
        return;
    }
    const auto found = connections_.find(tag);
    if (found == connections_.end()) {
        return;  // closed by an event before this one
    }
    Connection& connection = *found->second;
    touched_.push_back(tag);
    if ((events & EPOLLRDHUP) != 0) {  // also while nothing is read from it
        connection.lane->ended = true;
    }
    const bool reads = (events & EPOLLIN) != 0 && (connection.events & EPOLLIN) != 0;
    if (reads || ((events & EPOLLOUT) != 0 && connection.sends_to_read())) {
        read_from(connection);
    } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        close(connection, "lost");
    }
}

void Reactor::accept_all(int listener, bool tcp) {
    for (int i = 0; i < kAcceptsMax; ++i) {
        Descriptor socket = accept_from(listener);
        if (socket.get() < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ECONNABORTED) {
                // No descriptors or no memory: until the next tick, or epoll says so at once again.
                cannot_accept(errno);
                watch_listeners(false);
            }
            return;
        }
        accepts_ = true;
        admit(std::move(socket), tcp);
    }
}

bool Reactor::is_known_process(int socket) const {
    ucred peer{};
    socklen_t size = sizeof peer;
    return options_.unix_uids.empty() ||
           (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
            std::ranges::find(options_.unix_uids, peer.uid) != options_.unix_uids.end());
}

void Reactor::admit(Descriptor socket, bool tcp) {
    if (connections_.size() >= options_.connections_max && !evict_stranger()) {
        ++refused_;
        constexpr std::string_view kFull = "-ERR max number of clients reached\r\n";
        if (!(tcp && has_tls_)) {
            static_cast<void>(
                ::send(socket.get(), kFull.data(), kFull.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
        }
        note_refused(0, fmt::format("{} connections are open", connections_.size()));
        return;
    }
    if (tcp) {
        keep_alive(socket.get());
    } else if (!is_known_process(socket.get())) {
        ++refused_;
        note_refused(0, "the system's user of the process may not connect");
        return;
    }
    const std::uint64_t number = ++last_number_;
    auto connection = std::make_unique<Connection>(number, std::move(socket), unsent_bytes_);
    connection->active_at = steady_clock::now();
    connection->known_at = connection->active_at;
    connection->events = EPOLLIN | EPOLLRDHUP;
    if (tcp && has_tls_ && !start_tls(*connection)) {
        ++refused_;
        note_refused(number, "out of memory for TLS");
        return;
    }
    watch_for(connection->events, epoll_.get(), connection->socket.get(), number);
    follow_stranger(*connections_.emplace(number, std::move(connection)).first->second);
    ++connected_;
    ++open_;
    note("connected", number, tcp ? (has_tls_ ? "tls" : "tcp") : "unix");
    if (tcp && has_tls_) {
        arriving_.insert(number);
        relieve_arriving();
    }
}

void Reactor::take_replies() {
    std::vector<Replies> replies;
    {
        MutexLock lock(mutex_);
        replies.swap(replies_);
    }
    for (Replies& next : replies) {
        take_reply(next);
    }
}

void Reactor::take_reply(Replies& replies) {
    under_way_ -= replies.count;
    if (replies.lane->use) {
        replies.lane->use->under_way -= replies.count;
    }
    const auto found = connections_.find(replies.lane->connection);
    if (found == connections_.end()) {  // the client has gone
        replies.lane->take_unsent(replies.bytes.size());
        replies.lane->left_under_way -= replies.count;
        if (replies.lane->left_under_way == 0) {
            const std::size_t left = std::exchange(replies.lane->left_bytes, 0);
            held_bytes_ -= left;
            if (replies.lane->use) {
                replies.lane->use->held_bytes -= left;
            }
        }
        return;
    }
    Connection& connection = *found->second;
    connection.under_way -= replies.count;
    connection.of_any_order -= replies.of_any_order;
    if (connection.in_line() == 0) {
        give_back(connection, std::exchange(connection.request_bytes, 0));
    }
    connection.active_at = steady_clock::now();
    if (connection.has_output()) {
        if (connection.sent > kAlwaysBytes) {
            connection.output.erase(0, std::exchange(connection.sent, 0));
        }
        connection.output += replies.bytes;
    } else {
        connection.output_since = connection.active_at;
        connection.output = std::move(replies.bytes);
        connection.sent = 0;
    }
    touched_.push_back(connection.session.id);
}

void Reactor::settle_touched() {
    std::vector<std::uint64_t> touched;
    touched.swap(touched_);
    std::ranges::sort(touched);
    const auto rest = std::ranges::unique(touched);
    touched.erase(rest.begin(), rest.end());
    for (const std::uint64_t number : touched) {
        if (const auto found = connections_.find(number); found != connections_.end()) {
            settle(*found->second);
        }
    }
}

// Sends what there is, goes on with what waited for that, and sees what to watch the socket for.
void Reactor::settle(Connection& connection) {
    for (bool again = true; again;) {
        again = false;
        if (connection.has_output()) {
            const Moved moved = write_some(connection);
            if (moved == Moved::ended) {
                close(connection, "lost");
                return;
            }
            if (moved == Moved::some) {
                connection.output_since = steady_clock::now();
            }
        }
        const bool room = connection.lane->unsent_bytes <= reply_bytes_max(connection);
        if (connection.lane->held && room) {
            executor_.resume(connection.lane);
        }
        if (connection.paused && room && connection.in_line() <= options_.pipeline_max / 2) {
            connection.paused = false;
            take_requests(connection);
            again = connection.has_output();
        }
    }
    if (connection.end_of_input && connection.ends_answered()) {
        close(connection, connection.lane->revoked     ? "its user is gone, or may do less"
                          : connection.session.closing ? "quit"
                                                       : "ended");
        return;
    }
    watch(connection);
}

void Reactor::watch(Connection& connection) {
    std::uint32_t events = 0;
    if (!connection.paused && !connection.end_of_input) {
        events |= EPOLLIN;
    }
    if (connection.has_output() || connection.sends_to_read()) {
        events |= EPOLLOUT;
    }
    if (!connection.lane->ended) {
        events |= EPOLLRDHUP;
    }
    if (events != connection.events) {
        epoll_event event{};
        event.events = events;
        event.data.u64 = connection.session.id;
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.socket.get(), &event);
        connection.events = events;
    }
}

void Reactor::close(Connection& connection, std::string_view why) {
    const std::uint64_t number = connection.session.id;
    arriving_.erase(number);
    connection.lane->ended = true;
    strangers_.erase(number);
    connection.lane->gone = true;
    executor_.resume(connection.lane);  // what was asked is done, whoever takes the reply
    give_back(connection, connection.held_bytes - connection.request_bytes);
    connection.lane->take_unsent(connection.output.size() - connection.sent);
    connection.lane->left_under_way = connection.under_way;
    connection.lane->left_bytes = connection.request_bytes;
    --open_;
    if (connection.tls) {
        connection.tls->end();
    }
    // A forked child may have the socket, too: the client is to see that this is the end.
    ::shutdown(connection.socket.get(), SHUT_RDWR);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.socket.get(), nullptr);
    connections_.erase(number);
    note("disconnected", number, std::string(why));
}

void Reactor::look_after(SteadyTime now) {
    tell_untold(now);
    tell_of_store();
    if (!listening_ && !stopping_since_) {
        watch_listeners(true);
    }
    std::vector<std::pair<std::uint64_t, std::string_view>> ends;
    for (const auto& [number, connection] : connections_) {
        if (connection->session.user) {
            connection->known_at = now;
        }
        const bool partial = !connection->paused && connection->partial_since &&
                             now - *connection->partial_since > options_.stall_timeout;
        const bool unread =
            connection->has_output() && now - connection->output_since > options_.stall_timeout;
        const bool idle = options_.idle_timeout.count() > 0 && connection->answered() &&
                          now - connection->active_at > options_.idle_timeout;
        const bool transacts = !connection->paused && connection->in_line() == 0 &&
                               connection->transacts_since &&
                               now - *connection->transacts_since > options_.stall_timeout;
        const bool arriving = connection->is_arriving();
        const bool unknown = arriving || is_stranger(*connection);
        const bool stranger = unknown && connection->under_way == 0 &&
                              now - connection->known_at > options_.stall_timeout;
        if (partial || unread || idle || stranger || transacts) {
            ends.emplace_back(number, arriving    ? "did not finish TLS's handshake"
                                      : stranger  ? "did not log in"
                                      : partial   ? "left a request unfinished"
                                      : unread    ? "did not take its replies"
                                      : transacts ? "left a transaction open"
                                                  : "idle");
        }
    }
    for (const auto& [number, why] : ends) {
        close(*connections_.at(number), why);
    }
}

void Reactor::begin_to_stop() {
    note("stopping", 0,
         fmt::format("{} connections, {} requests under way", connections_.size(), under_way_));
    watch_listeners(false);
    close_listeners();
    std::vector<LanePtr> lanes;
    for (const auto& [number, connection] : connections_) {
        connection->end_of_input = true;
        lanes.push_back(connection->lane);
        touched_.push_back(number);
    }
    executor_.ask_to_finish(std::move(lanes));
    settle_touched();
}

}  // namespace dedup::server
