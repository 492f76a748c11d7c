// What a library has to know of the process that it lives in, which is somebody else's: whether it
// has been forked, and how to start and run threads there.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "dedup/error.hpp"

namespace dedup {

// Tells the process that made it from the processes that are forked from that one later. Costs
// two loads, and no system call: the kernel empties the page that the cell is on in each child
// (MADV_WIPEONFORK), however it was forked.
class ProcessMark {
  public:
    ProcessMark();

    [[nodiscard]] bool inherited() const {
        return cell_->load(std::memory_order_relaxed) != generation_;
    }
    [[nodiscard]] pid_t pid() const { return pid_; }

    // The error for a call on `what`, which is inherited.
    [[nodiscard]] Error inherited_error(std::string_view what) const;

  private:
    const std::atomic<std::uint64_t>* cell_;
    std::uint64_t generation_;
    pid_t pid_;
};

// A lock on an open file belongs to everybody who has it open, forked children too. So a child
// closes the descriptors that are named here as soon as it is forked, and the lock ends with the
// process that took it. Unless it was forked past the C library: then when it first opens
// something itself.
void close_in_children(std::initializer_list<int> fds);
// Before the owner closes `fd`.
void forget_in_children(int fd);

// Takes what a forked child must not destroy: it has locks that threads of the parent held, and
// is waited for by threads that do not exist here. Never freed, but not lost to leak checkers.
void leave_to_parent(void* object);

// What a class's destroying operator delete does if a forked child must not destroy its objects.
// `mark` is the object's own.
template <class T>
void delete_unless_inherited(T* object, const ProcessMark& mark) {
    if (mark.inherited()) {
        leave_to_parent(object);
        return;
    }
    object->~T();
    if constexpr (alignof(T) > __STDCPP_DEFAULT_NEW_ALIGNMENT__) {
        ::operator delete (object, sizeof(T), std::align_val_t{alignof(T)});
    } else {
        ::operator delete(object, sizeof(T));
    }
}

// Threads cannot be cancelled here: a caller that ended between two steps would leave the callers
// that wait for it waiting. The request stays, and is met behind it.
class NoCancel {
  public:
    NoCancel() { ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
    ~NoCancel() { ::pthread_setcancelstate(before_, nullptr); }
    NoCancel(const NoCancel&) = delete;
    NoCancel& operator=(const NoCancel&) = delete;

  private:
    int before_ = 0;
};

// While it lives, the threads that this one starts take no signals of the program's: those are
// for the program's own threads. What the thread itself causes (SIGSEGV, SIGBUS and such) comes
// to it nevertheless.
class SignalsBlocked {
  public:
    SignalsBlocked();
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    sigset_t before_;
};

// Starts a thread of the library's: with a name of at most 15 bytes, as `ps -L` and debuggers
// show it, and without signals. Throws std::system_error as std::thread does.
template <class Run>
[[nodiscard]] std::thread start_thread(const char* name, Run run) {
    const SignalsBlocked blocked;
    return std::thread([name, run = std::move(run)] {
        ::pthread_setname_np(::pthread_self(), name);
        run();
    });
}

// Sees to it that descriptors 0 to 2 are open. Programs write to them, open or not, and what they
// write must not go into a file of a store that has got the number.
void fill_standard_descriptors();

// As openat, but never gives one of those, closes on exec, goes on after signals, and is no
// cancellation point.
[[nodiscard]] int open_high(int directory, const char* name, int flags, mode_t mode);

}  // namespace dedup
