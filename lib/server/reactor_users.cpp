// What becomes of connections when the users are replaced.
#include <utility>

#include "server/command_table.hpp"
#include "server/reactor.hpp"

namespace dedup::server {

void Reactor::replace_users(std::vector<User> users) {
    facts_.users.replace(std::move(users));
    users_replaced_ = true;
    wake();
}

// Before anything is done that somebody asks for who knows of the new users: no one is told what he
// may not know any more.
void Reactor::look_at_users() {
    if (!users_replaced_.exchange(false)) {
        return;
    }
    for (const auto& [number, connection] : connections_) {
        if (!look_again(connection->session, facts_)) {
            connection->lane->revoked = true;
            connection->end_of_input = true;
            touched_.push_back(number);
        }
    }
}

}  // namespace dedup::server
