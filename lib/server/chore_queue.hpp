// Chores that wait for their thread. Users take turns, so that one with many connections holds up
// each of the others by one chore; of one user, and where there are no users, in order.
#pragma once

#include <algorithm>
#include <deque>
#include <utility>

#include "server/lane.hpp"

namespace dedup::server {

class ChoreQueue {
  public:
    using Chore = std::pair<LanePtr, CommandPtr>;

    [[nodiscard]] bool empty() const { return turns_.empty(); }
    void push(Chore chore) {
        const UserUse* const user = chore.second->asked_by;
        auto turn = std::ranges::find(turns_, user, &Turn::user);
        if (turn == turns_.end()) {
            turn = turns_.insert(turns_.end(), Turn{.user = user, .chores = {}});
        }
        turn->chores.push_back(std::move(chore));
    }
    // Precondition: not empty.
    [[nodiscard]] Chore pop() {
        Turn turn = std::move(turns_.front());
        turns_.pop_front();
        Chore chore = std::move(turn.chores.front());
        turn.chores.pop_front();
        if (!turn.chores.empty()) {
            turns_.push_back(std::move(turn));
        }
        return chore;
    }

  private:
    struct Turn {
        const UserUse* user;  // null: nobody has to log in
        std::deque<Chore> chores;
    };
    std::deque<Turn> turns_;  // one a user that has chores; whose turn is next comes first
};

}  // namespace dedup::server
