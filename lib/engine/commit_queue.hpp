// Group commit, without the commit: who waits for whom. Knows no storage.
//
// Callers that append at the same time form a group, whose first member leads: it waits until the
// group before is done, takes whoever has joined meanwhile, and commits for all of them. Whoever
// changes the log in another way waits for a turn of its own.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "dedup/error.hpp"
#include "env/mutex.hpp"

namespace dedup {

struct AppendRequest;  // one append call; see append.hpp

class CommitQueue;

// The right to write. One caller has it at a time; a call that changes the log takes it as a
// parameter.
class Turn {
  public:
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

  private:
    friend class CommitQueue;
    explicit Turn(CommitQueue& queue);
    CommitQueue& queue_;
};

// Any thread may call any of these, but nobody while it has a turn.
class CommitQueue {
  public:
    using Requests = std::vector<AppendRequest*>;

    // `closed` becomes true when the queue closes; from then on callers get closed_error().
    CommitQueue(std::atomic<bool>& closed, std::function<Error()> closed_error)
        : closed_(closed), closed_error_(std::move(closed_error)) {}

    // Adds `request` to the group that is forming, and returns when that is done. One member calls
    // lead(turn, requests), which answers all of them and throws nothing. In error, nothing was
    // added.
    template <class Lead>
    [[nodiscard]] Result<void> commit(AppendRequest& request, Lead lead);

    // Runs work(turn) with no group; gives what it gives.
    template <class Work>
    auto alone(Work work) -> decltype(work(std::declval<const Turn&>()));

    // Lets nobody in from now on, runs wake(), as whoever has a turn may be waiting for others,
    // waits until all who are in have had their turns, and gives the last one.
    template <class Wake>
    [[nodiscard]] Turn close(Wake wake) {
        refuse_others();
        wake();
        wait_for_all();
        return Turn(*this);
    }

    // Whether somebody has a turn, or waits for one with a group.
    [[nodiscard]] bool is_busy();

  private:
    friend class Turn;
    struct Group {
        Requests requests;
        std::atomic<bool> done{false};
    };

    // Null: `request` is the first of a new one, and leads it.
    struct Joined {
        bool refused = false;
        std::shared_ptr<Group> group;
    };
    Joined join(AppendRequest& request);
    std::shared_ptr<Group> take_group();
    bool enter();  // false: closed
    void stop_waiting();
    void refuse_others();
    void wait_for_all();

    std::atomic<bool>& closed_;  // set under mutex_
    const std::function<Error()> closed_error_;
    Mutex mutex_;
    Condition turn_;
    std::shared_ptr<Group> forming_ DEDUP_GUARDED_BY(mutex_);
    bool taken_ DEDUP_GUARDED_BY(mutex_) = false;  // somebody has the turn
    int waiting_ DEDUP_GUARDED_BY(mutex_) = 0;     // in alone()
};

template <class Lead>
Result<void> CommitQueue::commit(AppendRequest& request, Lead lead) {
    const Joined joined = join(request);
    if (joined.refused) {
        return std::unexpected(closed_error_());
    }
    if (joined.group) {
        joined.group->done.wait(false);
        return {};
    }
    std::shared_ptr<Group> group;
    {
        const Turn turn(*this);
        group = take_group();
        lead(turn, group->requests);
    }
    group->done = true;
    group->done.notify_all();
    return {};
}

template <class Work>
auto CommitQueue::alone(Work work) -> decltype(work(std::declval<const Turn&>())) {
    if (!enter()) {
        return std::unexpected(closed_error_());
    }
    const Turn turn(*this);
    stop_waiting();
    return work(turn);
}

}  // namespace dedup
