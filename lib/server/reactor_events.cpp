// What the reactor tells its observer, for a log.
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "server/reactor.hpp"

namespace dedup::server {

using std::chrono::steady_clock;

// So many secrets may be tried on one connection.
constexpr int kFailedLoginsMax = 10;

void Reactor::note(std::string_view what, std::uint64_t connection, std::string detail) const {
    if (options_.observer) {
        options_.observer({what, connection, std::move(detail)});
    }
}

// Whoever can connect can cause these.
void Reactor::note_refused(std::uint64_t connection, std::string why) {
    note_limited(refusals_, connection, std::move(why));
}

void Reactor::note_limited(EventLimit& limit, std::uint64_t connection, std::string detail) {
    const SteadyTime now = steady_clock::now();
    tell_untold(now);
    if (limit.allows(now)) {
        note(limit.what, connection, std::move(detail));
    }
}

void Reactor::tell_untold(SteadyTime now) {
    for (EventLimit* const limit : {&refusals_, &failed_logins_}) {
        if (const std::uint64_t untold = limit->take_untold(now); untold != 0) {
            note(limit->what, 0, fmt::format("{} more, which are not told one by one", untold));
        }
    }
}

void Reactor::tell_of_store() {
    const StoreWatch::News news = store_watch_.take();
    if (news.failed) {
        note("store_failed", 0, to_string(*news.failed));
    }
    if (news.recovered) {
        note("store_recovered", 0);
    }
}

void Reactor::look_at_login(Connection& connection) {
    const auto failed = std::exchange(connection.session.failed_login, std::nullopt);
    if (!failed) {
        return;
    }
    ++logins_failed_;
    note_limited(
        failed_logins_, connection.session.id,
        fmt::format("{}, from {}", failed->empty() ? "no such user" : "wrong secret for " + *failed,
                    peer_of(connection.socket.get())));
    if (++connection.failed_logins >= kFailedLoginsMax) {
        connection.session.closing = true;
    }
}

// Said once, until it can again.
void Reactor::cannot_accept(int error) {
    ++refused_;
    if (std::exchange(accepts_, false)) {
        note_refused(0, fmt::format("cannot accept connections: {}",
                                    error == EMFILE || error == ENFILE
                                        ? "too many open files: raise LimitNOFILE (ulimit -n), or "
                                          "lower connections_max (--connections)"
                                        : std::strerror(error)));
    }
    evict_stranger();
}

}  // namespace dedup::server
