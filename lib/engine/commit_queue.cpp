#include "engine/commit_queue.hpp"

namespace dedup {

Turn::Turn(CommitQueue& queue) : queue_(queue) {
    MutexLock lock(queue_.mutex_);
    while (queue_.taken_) {
        queue_.turn_.wait(lock);
    }
    queue_.taken_ = true;
}

Turn::~Turn() {
    {
        const MutexLock lock(queue_.mutex_);
        queue_.taken_ = false;
    }
    // close() and flush() may wait for a turn beside the next group's leader.
    queue_.turn_.notify_all();
}

CommitQueue::Joined CommitQueue::join(AppendRequest& request) {
    const MutexLock lock(mutex_);
    if (closed_) {
        return {.refused = true, .group = nullptr};
    }
    if (forming_) {
        forming_->requests.push_back(&request);  // from here on it gets an answer
        return {.refused = false, .group = forming_};
    }
    auto formed = std::make_shared<Group>();
    formed->requests.push_back(&request);
    forming_ = std::move(formed);
    return {};
}

// Whoever comes from now on forms the next one.
std::shared_ptr<CommitQueue::Group> CommitQueue::take_group() {
    const MutexLock lock(mutex_);
    return std::exchange(forming_, nullptr);
}

bool CommitQueue::enter() {
    const MutexLock lock(mutex_);
    waiting_ += closed_ ? 0 : 1;
    return !closed_;
}

void CommitQueue::stop_waiting() {
    const MutexLock lock(mutex_);
    --waiting_;
}

void CommitQueue::refuse_others() {
    const MutexLock lock(mutex_);
    closed_ = true;
}

void CommitQueue::wait_for_all() {
    MutexLock lock(mutex_);
    while (taken_ || forming_ != nullptr || waiting_ != 0) {
        turn_.wait(lock);
    }
}

bool CommitQueue::is_busy() {
    const MutexLock lock(mutex_);
    return taken_ || forming_ != nullptr;
}

}  // namespace dedup
