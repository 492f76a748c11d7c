// Mutexes whose use clang checks when it compiles: which one guards what, and who must hold it.
// (Known as thread safety annotations: Hutchins, Ballman, Sutherland, "C/C++ Thread Safety
// Analysis", 2014.)
#pragma once

#include <condition_variable>
#include <mutex>

#ifdef __clang__
#define DEDUP_ANNOTATION(x) __attribute__((x))
#else
#define DEDUP_ANNOTATION(x)
#endif

// Of a member: only who holds the mutex may touch it.
#define DEDUP_GUARDED_BY(mutex) DEDUP_ANNOTATION(guarded_by(mutex))
// Of a function: its caller holds the mutex; or must not.
#define DEDUP_REQUIRES(...) DEDUP_ANNOTATION(requires_capability(__VA_ARGS__))
#define DEDUP_EXCLUDES(...) DEDUP_ANNOTATION(locks_excluded(__VA_ARGS__))

namespace dedup {

class DEDUP_ANNOTATION(capability("mutex")) Mutex {
  public:
    Mutex() = default;

  private:
    friend class MutexLock;
    std::mutex mutex_;
};

// Holds a mutex for a scope. It can be given up in between.
class DEDUP_ANNOTATION(scoped_lockable) MutexLock {
  public:
    explicit MutexLock(Mutex& mutex) DEDUP_ANNOTATION(acquire_capability(mutex))
        : lock_(mutex.mutex_) {}
    ~MutexLock() DEDUP_ANNOTATION(release_capability()) = default;
    MutexLock(const MutexLock&) = delete;
    MutexLock& operator=(const MutexLock&) = delete;

    void lock() DEDUP_ANNOTATION(acquire_capability()) { lock_.lock(); }
    void unlock() DEDUP_ANNOTATION(release_capability()) { lock_.unlock(); }

  private:
    friend class Condition;
    std::unique_lock<std::mutex> lock_;
};

// Who waits looks at what it waits for in a loop: a wait may end for nothing, and a lambda is not
// known to hold the lock.
class Condition {
  public:
    void wait(MutexLock& lock) { condition_.wait(lock.lock_); }
    template <class Duration>
    void wait_for(MutexLock& lock, Duration most) {
        condition_.wait_for(lock.lock_, most);
    }
    void notify_one() { condition_.notify_one(); }
    void notify_all() { condition_.notify_all(); }

  private:
    std::condition_variable condition_;
};

}  // namespace dedup
