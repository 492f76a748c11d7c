// Group commit over several connections, without the commit: who waits for whom.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dedup/store.hpp"
#include "env/mutex.hpp"

namespace dedup::pg {

// A caller of append, from when it queues until it has its results. One for each item.
struct Request {
    std::span<const Append> batch;
    Batch mode = Batch::each;
    std::vector<Result<std::uint64_t>> results = {};

    // The queue's, and guarded by its mutex. Of a group whose leader has it, `next` is the
    // leader's.
    Request* next = nullptr;
    bool leads = false;
    bool done = false;
    Condition changed = {};
};

// Callers queue; up to kLeadersMax of them lead at a time, each taking all that wait as a group and
// answering it: while one group waits for its commit, the next one is prepared and sent. For any
// thread; allocates nothing.
class AppendQueue {
  public:
    // Returns when `request` has its results. carry_out(first) gives theirs to all from `first` on,
    // by `next`; it throws nothing.
    template <class CarryOut>
    void run(Request& request, CarryOut carry_out) {
        enter(request);
        while (Request* const group = next_group(request)) {
            carry_out(*group);
            answer(group);
        }
    }

  private:
    void enter(Request& request);
    // What `request` is to carry out now; null when it has its results.
    [[nodiscard]] Request* next_group(Request& request);
    [[nodiscard]] Request* take_group() DEDUP_REQUIRES(mutex_);
    void hand_over(Request& leader) DEDUP_REQUIRES(mutex_);
    void answer(Request* group);

    Mutex mutex_;
    Request* first_ DEDUP_GUARDED_BY(mutex_) = nullptr;
    Request* last_ DEDUP_GUARDED_BY(mutex_) = nullptr;
    std::size_t leaders_ DEDUP_GUARDED_BY(mutex_) = 0;  // requests with `leads`
};

}  // namespace dedup::pg
