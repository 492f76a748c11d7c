#include "env/lock_queue.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <thread>

#include "env/process.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kPlacesBegin = std::int64_t{1} << 32;
constexpr std::int64_t kPlacesEnd = INT64_MAX;
constexpr int kPlaceTries = 100;  // two may come in the same nanosecond
// The first in the queue looks often at first, so that the lock does not lie idle between two; one
// who waits for a long holder need not. The others look the more often the nearer their turn is: of
// hundreds who wait, only a few are ever busy with it.
constexpr milliseconds kFirstPause{1};
constexpr milliseconds kFirstPauseMax{20};
constexpr milliseconds kPausePlace{3};
constexpr int kPlacesCounted = 8;
constexpr milliseconds kFarPause{60};
constexpr std::time_t kStuckSeconds = 2;

struct flock range(short type, std::int64_t begin, std::int64_t end) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = begin;
    lock.l_len = end - begin;
    return lock;
}

}  // namespace

LockQueue::LockQueue(Descriptor file)
    : file_(std::move(file)), pause_(kFirstPause), first_pause_(kFirstPause) {
    close_in_children({file_.get()});
    struct timespec now {};
    ::clock_gettime(CLOCK_MONOTONIC, &now);  // one clock for all processes of the machine
    std::int64_t place = kPlacesBegin + now.tv_sec * 1'000'000'000 + now.tv_nsec;
    for (int i = 0; i < kPlaceTries; ++i, ++place) {
        struct flock lock = range(F_WRLCK, place, place + 1);
        if (::fcntl(file_.get(), F_OFD_SETLK, &lock) == 0) {
            place_ = place;
            return;
        }
        if (errno != EAGAIN && errno != EACCES) {
            return;
        }
    }
}

bool LockQueue::has_waiters(int file) {
    struct flock lock = range(F_WRLCK, kPlacesBegin, kPlacesEnd);
    return ::fcntl(file, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

LockQueue::~LockQueue() {
    if (place_ != 0) {  // a child that was forked past the C library may have the file open
        struct flock lock = range(F_UNLCK, place_, place_ + 1);
        (void)::fcntl(file_.get(), F_OFD_SETLK, &lock);
    }
    forget_in_children(file_.get());
}

bool LockQueue::wait_for_turn(std::chrono::steady_clock::time_point until) {
    const auto left = std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now());
    std::this_thread::sleep_for(std::clamp(left, milliseconds{0}, pause_));
    const int ahead = places_ahead();
    if (ahead == 0) {
        first_pause_ = std::min(first_pause_ * 2, kFirstPauseMax);
        pause_ = first_pause_;
        return true;
    }
    pause_ = ahead == kPlacesCounted ? kFarPause : ahead * kPausePlace;
    return is_stuck();
}

// How many wait before this one; no more than kPlacesCounted are told apart. The system names the
// lock that was taken first of those that lie in a range, so behind it is the next one.
int LockQueue::places_ahead() const {
    std::int64_t from = kPlacesBegin;
    for (int ahead = 0; ahead < kPlacesCounted; ++ahead) {
        if (from >= place_) {
            return ahead;
        }
        struct flock lock = range(F_WRLCK, from, place_);
        if (::fcntl(file_.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) {
            return ahead;
        }
        from = lock.l_start + lock.l_len;
    }
    return kPlacesCounted;
}

// Whoever takes the lock writes into its file, and whoever gives it back touches it.
bool LockQueue::is_stuck() const {
    struct stat status {};
    const std::time_t now = std::time(nullptr);
    return ::fstat(file_.get(), &status) != 0 || status.st_mtime > now ||
           now - status.st_mtime >= kStuckSeconds;
}

}  // namespace dedup
