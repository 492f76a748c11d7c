// The requests of one connection on their way to the store, and the replies on their way back.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "server/command.hpp"
#include "server/user_use.hpp"

namespace dedup::server {

// Made by the reactor, one a connection. Only the executor's thread touches what is not said to be
// shared; a connection that closes leaves its lane to it, which answers what is under way, for an
// append cannot be taken back, and throws the replies away.
struct Lane {
    // `all_untaken` counts the replies of all lanes.
    Lane(std::uint64_t id, std::atomic<std::size_t>& all_untaken)
        : connection(id), all_unsent_bytes(all_untaken) {}

    // Replies have come, or have gone.
    void add_unsent(std::size_t bytes) {
        unsent_bytes += bytes;
        all_unsent_bytes += bytes;
    }
    void take_unsent(std::size_t bytes) {
        unsent_bytes -= bytes;
        all_unsent_bytes -= bytes;
    }

    // What is of any order does not wait for what blocks the lane.
    [[nodiscard]] bool may_go_on() const {
        return !queue.empty() && (!blocked || queue.front()->of_any_order());
    }

    const std::uint64_t connection;  // the reactor finds it by this; no number is used twice
    std::deque<CommandPtr> queue;    // in the order in which they came
    bool ready = false;              // is in the executor's list of lanes to serve
    bool blocked = false;            // waits for a chore, or for a claim to be answered
    std::string replies;             // not handed over yet
    std::size_t answered = 0;        // how many these are
    std::size_t of_any_order = 0;    // and of these, how many nothing waited behind

    // Of the reactor's thread, once the connection is closed: requests without a reply, and their
    // bytes.
    std::size_t left_under_way = 0;
    std::size_t left_bytes = 0;
    // Likewise, also before: of the user, who has this lane's requests under way; null: of none.
    std::shared_ptr<UserUse> use = {};

    // Shared. Of replies that the client has not taken yet; the executor adds, the reactor takes.
    std::atomic<std::size_t> unsent_bytes = 0;
    std::atomic<std::size_t>& all_unsent_bytes;
    // Nothing more is carried out until the client has taken replies. The executor sets it and then
    // looks at unsent_bytes again; the reactor lowers those and then looks at it: one of the two
    // sees that the lane may go on.
    std::atomic<bool> held = false;
    std::atomic<bool> ended = false;  // the client sends no more: nobody may be there any more
    // Its user is gone, or may do less: what it has asked and is not carried out yet is refused.
    std::atomic<bool> revoked = false;
    std::atomic<bool> gone = false;  // the connection is closed: nobody takes replies
};

using LanePtr = std::shared_ptr<Lane>;

}  // namespace dedup::server
