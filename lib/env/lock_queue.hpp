// The order in which processes that wait for a store's lock get it.
#pragma once

#include <chrono>
#include <cstdint>

#include "env/descriptor.hpp"

namespace dedup {

// A place in the queue: one byte of the lock file, far behind its text, which is locked while its
// owner waits. The byte's offset is the time at which the owner came, so whoever finds no locked
// byte before its own is the first. The system gives the byte up if its owner dies.
//
// Only a courtesy among those who wait: what excludes others is the store's lock itself. So where
// such locks do not work, everybody is first.
class LockQueue {
  public:
    // `file`: the lock file, open for reading and writing.
    explicit LockQueue(Descriptor file);
    // Whether somebody waits for the lock of this lock file.
    [[nodiscard]] static bool has_waiters(int file);
    LockQueue(const LockQueue&) = delete;
    LockQueue& operator=(const LockQueue&) = delete;
    ~LockQueue();

    // Sleeps for a while and says whether to try the lock: the first in the queue is to, and all
    // are to if nobody has taken it for a second. The first may be stopped, by Ctrl-Z for example.
    [[nodiscard]] bool wait_for_turn(std::chrono::steady_clock::time_point until);

  private:
    [[nodiscard]] int places_ahead() const;
    [[nodiscard]] bool is_stuck() const;

    Descriptor file_;
    std::int64_t place_ = 0;                 // 0: none
    std::chrono::milliseconds pause_;        // until the next look
    std::chrono::milliseconds first_pause_;  // the same for the first
};

}  // namespace dedup
