#include "postgres/append_queue.hpp"

namespace dedup::pg {
namespace {

constexpr std::size_t kLeadersMax = 2;
constexpr std::size_t kGroupItemsMax = 8'192;  // but one request is never divided

}  // namespace

void AppendQueue::enter(Request& request) {
    const MutexLock lock(mutex_);
    (first_ == nullptr ? first_ : last_->next) = &request;
    last_ = &request;
    if (leaders_ < kLeadersMax) {
        request.leads = true;
        ++leaders_;
    }
}

Request* AppendQueue::next_group(Request& request) {
    MutexLock lock(mutex_);
    while (true) {
        if (request.leads && !request.done && first_ != nullptr) {
            return take_group();
        }
        if (request.leads) {
            hand_over(request);  // its own work is done, or another leader has it
        }
        if (request.done) {
            return nullptr;
        }
        request.changed.wait(lock);
    }
}

Request* AppendQueue::take_group() {
    Request* const group = first_;
    Request* last = group;
    std::size_t items = last->batch.size();
    while (last->next != nullptr && items + last->next->batch.size() <= kGroupItemsMax) {
        last = last->next;
        items += last->batch.size();
    }
    first_ = last->next;
    last->next = nullptr;
    return group;
}

void AppendQueue::hand_over(Request& leader) {
    leader.leads = false;
    if (first_ != nullptr && !first_->leads) {
        first_->leads = true;
        first_->changed.notify_one();
    } else {
        --leaders_;  // nothing waits, or what waits has a leader that has not begun
    }
}

// Whoever has its answer may be gone once the mutex is free.
void AppendQueue::answer(Request* group) {
    const MutexLock lock(mutex_);
    while (group != nullptr) {
        Request* const next = group->next;
        group->done = true;
        group->changed.notify_one();
        group = next;
    }
}

}  // namespace dedup::pg
