#include "env/posix_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "env/descriptor.hpp"
#include "env/file_id.hpp"
#include "env/lock_holder.hpp"
#include "env/lock_queue.hpp"
#include "env/process.hpp"

namespace dedup {
namespace {

std::string text_of(int fd) {
    std::array<char, 2048> text{};
    const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
    return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
}

// In place: to give a file's only block back and take another takes longer than all else that
// locking does. What a crash in between leaves after the text makes the line of names another one.
bool replace_text(int fd, std::size_t bytes_before, std::string_view text) {
    return ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
           (bytes_before == text.size() || ::ftruncate(fd, static_cast<off_t>(text.size())) == 0);
}

constexpr std::string_view kNames = "names flushed";

// Where the line of the names begins in a lock file's text: its end if there is none.
std::size_t names_at(std::string_view text) {
    const std::size_t at = text.find("\n" + std::string(kNames));
    return at == std::string_view::npos ? text.size() : at + 1;
}

// The names that lead to the log, and the files that they stand for: inode and time of birth, since
// a number may be given again. `directory`: the store's. Empty if that cannot be told.
std::string names_line(int directory, const Path& lock_path) {
    const std::string name = lock_path.parent_path().filename();
    if (name.find('\n') != std::string::npos) {
        return "";
    }
    std::string line(kNames);
    for (const char* entry : {"..", ".", "log"}) {
        struct statx status {};
        if (::statx(directory, entry, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &status) != 0 ||
            (status.stx_mask & STATX_BTIME) == 0) {
            return "";
        }
        line += fmt::format(" {}:{}:{}:{}.{}", status.stx_dev_major, status.stx_dev_minor,
                            status.stx_ino, status.stx_btime.tv_sec, status.stx_btime.tv_nsec);
    }
    return line + " " + name + "\n";
}

// Two locks: on the file, which is what all versions look at, and on the directory that it is in,
// which nobody removes by mistake to "get rid of a stale lock". They belong to this process alone:
// see close_in_children.
class PosixLock final : public Lock {
  public:
    PosixLock(Path path, Descriptor file, Descriptor directory, bool directory_locked,
              bool names_noted)
        : path_(std::move(path)),
          file_(std::move(file)),
          directory_(std::move(directory)),
          directory_locked_(directory_locked),
          names_noted_(names_noted) {
        close_in_children({file_.get(), directory_.get()});
    }
    ~PosixLock() override {
        if (mark_.inherited()) {
            for (Descriptor* fd : {&directory_, &file_}) {
                fd->leave();  // it has been closed, and may have been opened again
            }
            return;
        }
        (void)::futimens(file_.get(), nullptr);  // see LockQueue::is_stuck
        for (Descriptor* fd : {&directory_, &file_}) {
            // Whoever else has it open: a child that was forked past the C library, or that is just
            // about to run another program.
            (void)::flock(fd->get(), LOCK_UN);
            forget_in_children(fd->get());
        }
    }

    bool names_noted() override { return names_noted_; }

    void note_names() override {
        const std::string line = names_line(directory_.get(), path_);
        if (names_noted_ || line.empty()) {
            return;
        }
        const std::string text = text_of(file_.get());
        const std::string noted = text.substr(0, names_at(text)) + line;
        names_noted_ = replace_text(file_.get(), text.size(), noted);
    }

    Result<void> check() override {
        if (directory_locked_) {
            return {};
        }
        return names(path_, id_of(file_.get()))
                   ? Result<void>()
                   : std::unexpected(Error{
                         Code::failed, fmt::format("{} was removed or replaced while the store "
                                                   "was open, so another process may write, too",
                                                   path_.string())});
    }

  private:
    const ProcessMark mark_;
    Path path_;
    Descriptor file_;
    Descriptor directory_;
    bool directory_locked_;  // some network file systems have no locks on directories
    bool names_noted_;
};

// Keeps writers out, as long as a repair takes.
class SharedLock final : public Lock {
  public:
    explicit SharedLock(Descriptor fd) : fd_(std::move(fd)) {}
    ~SharedLock() override {
        if (!mark_.inherited()) {
            (void)::flock(fd_.get(), LOCK_UN);  // a forked child may still have it open
        }
    }

  private:
    const ProcessMark mark_;
    Descriptor fd_;
};

// Whoever may open LOCK can hold it, and so stop all writers: that is for those who may write.
void keep_from_strangers(int fd, int directory) {
    inherit_access(fd, directory);
    struct stat status {};
    if (::fstat(fd, &status) == 0 && (status.st_mode & S_IRWXO) != 0) {
        static_cast<void>(::fchmod(fd, status.st_mode & ~mode_t{S_IRWXO} & 07777));
    }
}

enum class Tries : std::uint8_t {
    once,       // a busy error names the holder, for which much is read
    again,      // no busy error is the last one
    gives_way,  // likewise; busy also if somebody waits
};

Result<std::unique_ptr<Lock>> try_lock(Places& places, const Path& path, Tries tries) {
    const Path store = path.parent_path();
    const auto busy = [&](int locked, int file) {
        return std::unexpected(tries == Tries::once ? busy_error(store, locked, text_of(file))
                                                    : Error{Code::busy, ""});
    };
    while (true) {
        const auto at = places.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        auto fd = open_regular(*at, path, O_RDWR | O_CREAT);
        if (!fd) {
            return std::unexpected(fd.error());
        }
        if (at->directory != AT_FDCWD) {
            keep_from_strangers(fd->get(), at->directory);
        }
        // Of its own: what locks has to be closed in children, and the one that stays open not.
        auto directory = std::optional<Descriptor>(
            open_high(AT_FDCWD, store.c_str(), O_RDONLY | O_DIRECTORY, 0));
        if (directory->get() < 0) {
            return std::unexpected(os_failure("open", store, errno));
        }
        if (retry([&] { return ::flock(fd->get(), LOCK_EX | LOCK_NB); }) != 0) {
            if (errno == EWOULDBLOCK) {
                return busy(fd->get(), fd->get());
            }
            return std::unexpected(os_failure("lock", path, errno));
        }
        const bool both = retry([&] { return ::flock(directory->get(), LOCK_EX | LOCK_NB); }) == 0;
        if (!both && errno == EWOULDBLOCK) {
            return busy(directory->get(), fd->get());
        }
        // It may have been removed between the first two calls.
        if (!names(at->directory, at->name.c_str(), id_of(fd->get()))) {
            continue;
        }
        if (!names(path, id_of(fd->get()))) {
            return std::unexpected(
                Error{Code::failed, fmt::format("store {} was moved or replaced while it was being "
                                                "opened; open it again",
                                                store.string())});
        }
        if (tries == Tries::gives_way && LockQueue::has_waiters(fd->get())) {
            return busy(fd->get(), fd->get());
        }
        const std::string before = text_of(fd->get());
        const std::string noted = before.substr(names_at(before));
        const bool same = !noted.empty() && noted == names_line(directory->get(), path);
        // What is in it is worth no error: the lock itself is what counts, and a full disk must
        // not keep a store from being opened.
        const std::string text = lock_text() + noted;
        (void)replace_text(fd->get(), before.size(), text);
        errno = 0;
        return std::make_unique<PosixLock>(path, std::move(*fd), std::move(*directory), both, same);
    }
}

// Who only asks whether the store is free, by lock_out(), has it for a moment: that is not busy.
Result<std::unique_ptr<Lock>> lock_now(Places& places, const Path& path) {
    auto lock = try_lock(places, path, Tries::again);
    for (int ms = 1; ms <= 4 && !lock && lock.error().code == Code::busy; ms *= 2) {
        std::this_thread::sleep_for(std::chrono::milliseconds(ms));
        lock = try_lock(places, path, ms < 4 ? Tries::again : Tries::once);
    }
    return lock;
}

}  // namespace

Result<std::unique_ptr<Lock>> lock_file(Places& places, const Path& path, const LockWait& wait) {
    // A wait beyond a century is one for good; the sum must not overflow.
    const auto until =
        std::chrono::steady_clock::now() +
        std::min<std::chrono::milliseconds>(wait.time, std::chrono::hours{24 * 36'500});
    // Nobody who would wait gets in before those who do: one that closes and opens again at
    // once would always be faster than they look.
    if (wait.time.count() == 0) {
        return lock_now(places, path);
    }
    auto lock = try_lock(places, path, Tries::gives_way);
    if (lock || lock.error().code != Code::busy) {
        return lock;
    }
    const auto at = places.place(path);
    auto fd = at ? open_regular(*at, path, O_RDWR) : std::unexpected(at.error());
    if (!fd) {
        return std::unexpected(fd.error());
    }
    LockQueue queue(std::move(*fd));
    while (true) {
        const bool tries = queue.wait_for_turn(until);
        const bool last =
            std::chrono::steady_clock::now() >= until || (wait.goes_on && !wait.goes_on());
        if (!tries && !last) {
            continue;
        }
        lock = try_lock(places, path, last ? Tries::once : Tries::again);
        if (lock || lock.error().code != Code::busy || last) {
            return lock;
        }
    }
}

Result<std::unique_ptr<Lock>> lock_out_writers(const Path& path) {
    // No pipe is waited for, and no link followed: nobody locks a store by such a thing.
    constexpr int kFlags = O_RDONLY | O_NONBLOCK | O_NOFOLLOW;
    Descriptor fd(open_high(AT_FDCWD, path.c_str(), kFlags, 0));
    if (fd.get() < 0) {
        return errno == ENOENT || errno == EACCES || errno == ELOOP || errno == ENXIO
                   ? Result<std::unique_ptr<Lock>>(nullptr)
                   : std::unexpected(os_failure("open", path, errno));
    }
    if (retry([&] { return ::flock(fd.get(), LOCK_SH | LOCK_NB); }) != 0) {
        if (errno != EWOULDBLOCK) {
            return std::unexpected(os_failure("lock", path, errno));
        }
        struct stat status {};
        const bool is_store = ::fstat(fd.get(), &status) == 0 && S_ISDIR(status.st_mode);
        const Path store = is_store ? path : path.parent_path();
        const Descriptor file(open_high(AT_FDCWD, (store / "LOCK").c_str(), kFlags, 0));
        return std::unexpected(busy_error(store, fd.get(), text_of(file.get())));
    }
    return std::make_unique<SharedLock>(std::move(fd));
}

}  // namespace dedup
