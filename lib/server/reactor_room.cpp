// Who has to go where there is not enough room for all: strangers first.
#include <algorithm>
#include <map>
#include <tuple>

#include "server/reactor.hpp"

namespace dedup::server {
namespace {

// Replies that a stranger has not taken; they are errors.
constexpr std::size_t kStrangerReplyBytesMax = 4 * 1024;

}  // namespace

// It has not logged in, and has to.
bool Reactor::is_stranger(const Connection& connection) const {
    return facts_.users.needed() && !connection.session.user;
}

// Its client may have come, or gone, by what it has said.
void Reactor::follow_stranger(Connection& connection) {
    const bool stranger = is_stranger(connection);
    if (stranger == connection.stranger) {
        return;
    }
    connection.stranger = stranger;
    if (stranger) {
        strangers_.insert(connection.session.id);
    } else {
        strangers_.erase(connection.session.id);
    }
}

std::size_t Reactor::reply_bytes_max(const Connection& connection) const {
    return is_stranger(connection) ? std::min(kStrangerReplyBytesMax, options_.reply_bytes_max)
                                   : options_.reply_bytes_max;
}

// Whoever means it logs in within moments, so the oldest stranger goes. False: there is none.
bool Reactor::evict_stranger() {
    const auto oldest = std::ranges::find_if(strangers_, [this](std::uint64_t number) {
        return connections_.at(number)->under_way == 0;
    });
    if (oldest == strangers_.end()) {
        return false;
    }
    ++refused_;
    note_refused(*oldest, "did not log in, and others wait");
    close(*connections_.at(*oldest), "did not log in, and others wait");
    return true;
}

// Until the replies of all are within their bound: ends strangers, and then the connections of the
// user who holds most, one after the other, each time the one that holds most. Replies that are on
// their way here count as those of whom they are for.
void Reactor::relieve() {
    while (unsent_bytes_ > options_.replies_bytes_max) {
        std::map<const UserUse*, std::size_t> of_users;
        for (const auto& [number, connection] : connections_) {
            of_users[connection->lane->use.get()] += connection->lane->unsent_bytes;
        }
        const auto most = std::ranges::max_element(connections_, {}, [&](const auto& entry) {
            const Connection& connection = *entry.second;
            const std::size_t bytes = connection.output.size() - connection.sent;
            const UserUse* const user = connection.lane->use.get();
            return std::tuple(
                bytes != 0 && is_stranger(connection),
                user == nullptr ? connection.lane->unsent_bytes.load() : of_users[user], bytes);
        });
        if (most == connections_.end() || !most->second->has_output()) {
            return;  // on their way
        }
        close(*most->second, "did not take its replies, and others need the room");
    }
}

}  // namespace dedup::server
