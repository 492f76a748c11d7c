// A mutex whose owner can be asked for: who is called back while it is held must not wait for it.
#pragma once

#include <atomic>
#include <thread>

#include "env/mutex.hpp"

namespace dedup {

class DEDUP_ANNOTATION(capability("mutex")) OwnedMutex {
  public:
    void lock() DEDUP_ANNOTATION(acquire_capability()) {
        mutex_.lock();
        owner_ = std::this_thread::get_id();
    }
    void unlock() DEDUP_ANNOTATION(release_capability()) {
        owner_ = std::thread::id();
        mutex_.unlock();
    }

    // Whether the calling thread has it.
    [[nodiscard]] bool is_mine() const { return owner_ == std::this_thread::get_id(); }

  private:
    std::mutex mutex_;
    std::atomic<std::thread::id> owner_;
};

class DEDUP_ANNOTATION(scoped_lockable) OwnedLock {
  public:
    explicit OwnedLock(OwnedMutex& mutex) DEDUP_ANNOTATION(acquire_capability(mutex))
        : mutex_(mutex) {
        mutex_.lock();
    }
    ~OwnedLock() DEDUP_ANNOTATION(release_capability()) { mutex_.unlock(); }
    OwnedLock(const OwnedLock&) = delete;
    OwnedLock& operator=(const OwnedLock&) = delete;

  private:
    OwnedMutex& mutex_;
};

}  // namespace dedup
