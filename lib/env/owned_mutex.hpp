// A mutex whose owner can be asked for: who is called back while it is held must not wait for it.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace dedup {

// For std::lock_guard and std::scoped_lock.
class OwnedMutex {
  public:
    void lock() {
        mutex_.lock();
        owner_ = std::this_thread::get_id();
    }
    [[nodiscard]] bool try_lock() {
        const bool locked = mutex_.try_lock();
        if (locked) {
            owner_ = std::this_thread::get_id();
        }
        return locked;
    }
    void unlock() {
        owner_ = std::thread::id();
        mutex_.unlock();
    }

    // Whether the calling thread has it.
    [[nodiscard]] bool is_mine() const { return owner_ == std::this_thread::get_id(); }

  private:
    std::mutex mutex_;
    std::atomic<std::thread::id> owner_;
};

}  // namespace dedup
