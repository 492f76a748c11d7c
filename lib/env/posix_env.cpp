#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "env/descriptor.hpp"
#include "env/env.hpp"
#include "env/lock_holder.hpp"
#include "env/lock_queue.hpp"
#include "env/places.hpp"
#include "env/process.hpp"

namespace dedup {
namespace {

// Reads of so many bytes that the disk should fetch them in one piece, mapped or not.
constexpr std::size_t kFetchBytes = 16 * 1024;

// The file that a name stands for. It is another's as soon as nobody has this one open.
struct FileId {
    dev_t device = 0;
    ino_t inode = 0;
    bool operator==(const FileId&) const = default;
};

FileId id_of(const struct stat& status) {
    return {status.st_dev, status.st_ino};
}

FileId id_of(int fd) {
    struct stat status {};
    return ::fstat(fd, &status) == 0 ? id_of(status) : FileId();
}

// Whether `path` names this file. A path that cannot be looked at any more, as after a change of
// user, is taken to.
bool names(const Path& path, FileId file) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        return errno != ENOENT && errno != ENOTDIR;
    }
    return id_of(status) == file;
}

class Mapping {
  public:
    Mapping(void* start, std::size_t bytes) : start_(start), bytes_(bytes) {}
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (start_ != nullptr) {
            ::munmap(start_, bytes_);
        }
    }
    void leave() { start_ = nullptr; }
    [[nodiscard]] std::string_view view() const {
        return {static_cast<const char*>(start_), bytes_};
    }

  private:
    void* start_;
    std::size_t bytes_;
};

class PosixFile final : public File {
  public:
    PosixFile(Descriptor fd, Path path) : fd_(std::move(fd)), path_(std::move(path)) {}
    ~PosixFile() override {
        if (mark_.inherited() && map_) {
            map_->leave();  // it is not mapped here, and something else may be
        }
    }

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        if (fd_.get() < 0) {
            return read_mapped(offset, into);
        }
        const NoCancel no_cancel;
        std::size_t done = 0;
        while (done < into.size()) {
            const ssize_t n = retry([&] {
                return ::pread(fd_.get(), into.data() + done, into.size() - done,
                               static_cast<off_t>(offset + done));
            });
            if (n < 0) {
                return std::unexpected(os_failure("read", path_, errno));
            }
            if (n == 0) {
                break;
            }
            done += static_cast<std::size_t>(n);
        }
        return done;
    }

    Result<void> write(std::uint64_t offset, std::string_view bytes) override {
        if (auto own = check_own(); !own) {
            return own;
        }
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t n = retry([&] {
                return ::pwrite(fd_.get(), bytes.data() + done, bytes.size() - done,
                                static_cast<off_t>(offset + done));
            });
            if (n < 0) {
                return std::unexpected(os_failure("write", path_, errno));
            }
            done += static_cast<std::size_t>(n);
        }
        return {};
    }

    Result<void> sync() override {
        if (auto own = check_own(); !own) {
            return own;
        }
        // Not retried, whatever the error: after a failed flush the kernel may drop the pages and
        // let the next call succeed.
        if (::fdatasync(fd_.get()) != 0) {
            return std::unexpected(os_failure("flush", path_, errno));
        }
        return {};
    }

    Result<void> truncate(std::uint64_t bytes) override {
        if (auto own = check_own(); !own) {
            return own;
        }
        if (retry([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(bytes)); }) != 0) {
            return std::unexpected(os_failure("truncate", path_, errno));
        }
        return {};
    }

    Result<bool> reserve(std::uint64_t bytes) override {
        if (auto own = check_own(); !own) {
            return std::unexpected(own.error());
        }
        if (retry([&] { return ::fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes)); }) == 0) {
            return true;
        }
        if (errno == EOPNOTSUPP || errno == ENOSYS) {
            return false;
        }
        return std::unexpected(os_failure("extend", path_, errno));
    }

    Result<std::uint64_t> size() override {
        if (fd_.get() < 0) {
            return size_;
        }
        struct stat status {};
        if (::fstat(fd_.get(), &status) != 0) {
            return std::unexpected(os_failure("stat", path_, errno));
        }
        return static_cast<std::uint64_t>(status.st_size);
    }

    std::uint64_t skip_hole(std::uint64_t offset) override {
        if (fd_.get() < 0) {
            return offset;
        }
        const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
        if (data >= 0) {
            return static_cast<std::uint64_t>(data);
        }
        const auto bytes = errno == ENXIO ? size() : Result<std::uint64_t>(offset);
        return bytes ? std::max(*bytes, offset) : offset;
    }

    std::string_view map(std::uint64_t bytes) override {
        if (!map_) {
            void* start = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_.get(), 0);
            if (start == MAP_FAILED) {
                return {};
            }
            // Lookups jump about; reading ahead would only fetch what nobody has asked for.
            (void)::madvise(start, bytes, MADV_RANDOM);
            // A forked child reads none of it, and should not keep the file on the disk when a
            // sweep has removed it.
            (void)::madvise(start, bytes, MADV_DONTFORK);
            map_.emplace(start, bytes);
        }
        return bytes <= map_->view().size() ? map_->view().substr(0, bytes) : std::string_view();
    }

    void keep_map_only() override {
        if (!map_ || fd_.get() < 0) {
            return;
        }
        if (const auto bytes = size()) {
            size_ = std::min<std::uint64_t>(*bytes, map_->view().size());
            fd_.close();
        }
    }

    bool is_at(const Path& path) override {
        if (id_ == FileId()) {
            id_ = id_of(fd_.get());
        }
        return names(path, id_);
    }

  private:
    // What a forked child inherits is not its own, wherever in the library it was forked.
    [[nodiscard]] Result<void> check_own() const {
        return mark_.inherited() ? std::unexpected(mark_.inherited_error(path_.string()))
                                 : Result<void>();
    }

    Result<std::size_t> read_mapped(std::uint64_t offset, std::span<char> into) const {
        if (offset >= size_) {
            return 0;
        }
        const std::string_view from =
            map_->view().substr(offset, std::min<std::uint64_t>(into.size(), size_ - offset));
        if (from.size() >= kFetchBytes) {
            static const auto kPage = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
            const std::uintptr_t before =
                reinterpret_cast<std::uintptr_t>(from.data()) & (kPage - 1);
            (void)::madvise(const_cast<char*>(from.data()) - before, from.size() + before,
                            MADV_WILLNEED);
        }
        std::memcpy(into.data(), from.data(), from.size());
        return from.size();
    }

    const ProcessMark mark_;
    Descriptor fd_;  // closed once only the map is kept
    Path path_;
    FileId id_;  // once somebody has asked
    std::optional<Mapping> map_;
    std::uint64_t size_ = 0;  // if only the map is kept
};

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

class PosixEnv final : public Env {
  public:
    PosixEnv(const Path& root, std::filesystem::perms permissions)
        : places_(root), mode_(static_cast<mode_t>(permissions)) {}

    Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        auto fd = mode == OpenMode::create
                      ? create(*at, path)
                      : open_regular(*at, path, mode == OpenMode::read ? O_RDONLY : O_RDWR);
        if (!fd) {
            return std::unexpected(fd.error());
        }
        return std::make_unique<PosixFile>(std::move(*fd), path);
    }

    Result<PathType> type(const Path& path) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        // The path of a store may lead over links; what lies in it may not.
        const int flags = at->directory == AT_FDCWD ? 0 : AT_SYMLINK_NOFOLLOW;
        struct stat status {};
        if (::fstatat(at->directory, at->name.c_str(), &status, flags) != 0) {
            if (errno == ENOENT) {
                return PathType::absent;
            }
            return std::unexpected(os_failure("open", path, errno));
        }
        if (S_ISREG(status.st_mode)) {
            return PathType::file;
        }
        return S_ISDIR(status.st_mode) ? PathType::directory : PathType::other;
    }

    Result<std::vector<std::string>> list(const Path& path) override {
        const auto directory = places_.directory(path);
        if (!directory) {
            return std::unexpected(directory.error());
        }
        // Of its own, since two that list would share the position in one that stays open.
        const int fd = open_high(directory->fd, ".", O_RDONLY | O_DIRECTORY, 0);
        const std::unique_ptr<DIR, int (*)(DIR*)> entries(fd < 0 ? nullptr : ::fdopendir(fd),
                                                          ::closedir);
        if (!entries) {
            return std::unexpected(os_failure("list", path, errno));
        }
        std::vector<std::string> names;
        errno = 0;
        while (const dirent* entry = ::readdir(entries.get())) {
            const std::string_view name(entry->d_name);
            if (name != "." && name != "..") {
                names.emplace_back(name);
            }
        }
        if (errno != 0) {
            return std::unexpected(os_failure("list", path, errno));
        }
        return names;
    }

    Result<void> make_directory(const Path& path) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        if (::mkdirat(at->directory, at->name.c_str(), mode_) != 0) {
            if (errno == EEXIST) {
                return {};
            }
            Error error = os_failure("create directory", path, errno);
            if (error.os_error == ENOENT) {
                error.message += "; create the one that it is to lie in first";
            }
            return std::unexpected(std::move(error));
        }
        if (at->directory != AT_FDCWD) {
            const auto made = places_.directory(path);
            if (!made) {
                return std::unexpected(made.error());
            }
            inherit_access(made->fd, at->directory);
        }
        return {};
    }

    Result<void> make_directory_like(const Path& path, const Path& like) override {
        if (auto done = make_directory(path); !done) {
            return done;
        }
        const auto made = places_.directory(path);
        const auto model = places_.directory(like);
        if (!made || !model) {
            return std::unexpected(made ? model.error() : made.error());
        }
        inherit_access(made->fd, model->fd);
        return {};
    }

    Result<void> rename(const Path& from, const Path& to) override {
        const auto old_at = places_.place(from);
        const auto new_at = places_.place(to);
        if (!old_at || !new_at) {
            return std::unexpected(old_at ? new_at.error() : old_at.error());
        }
        if (::renameat(old_at->directory, old_at->name.c_str(), new_at->directory,
                       new_at->name.c_str()) != 0) {
            return std::unexpected(os_failure("rename", from, errno));
        }
        return {};
    }

    Result<void> remove(const Path& path) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        if (::unlinkat(at->directory, at->name.c_str(), 0) != 0) {
            return std::unexpected(os_failure("remove", path, errno));
        }
        return {};
    }

    Result<void> sync_directory(const Path& path) override {
        const auto directory = places_.directory(path);
        if (!directory) {
            return std::unexpected(directory.error());
        }
        const NoCancel no_cancel;
        if (::fsync(directory->fd) != 0) {
            return std::unexpected(os_failure("flush", path, errno));
        }
        return {};
    }

    Result<std::unique_ptr<Lock>> lock(const Path& path, const LockWait& wait) override {
        // A wait beyond a century is one for good; the sum must not overflow.
        const auto until =
            std::chrono::steady_clock::now() +
            std::min<std::chrono::milliseconds>(wait.time, std::chrono::hours{24 * 36'500});
        // Nobody who would wait gets in before those who do: one that closes and opens again at
        // once would always be faster than they look.
        const bool waits = wait.time.count() != 0;
        auto lock = try_lock(path, waits ? Tries::gives_way : Tries::once);
        if (lock || lock.error().code != Code::busy || !waits) {
            return lock;
        }
        const auto at = places_.place(path);
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
            lock = try_lock(path, last ? Tries::once : Tries::again);
            if (lock || lock.error().code != Code::busy || last) {
                return lock;
            }
        }
    }

    Result<std::unique_ptr<Lock>> lock_out(const Path& path) override {
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

    Result<void> random(std::span<char> into) override {
        std::size_t done = 0;
        while (done < into.size()) {
            const ssize_t n =
                retry([&] { return ::getrandom(into.data() + done, into.size() - done, 0); });
            if (n < 0) {
                return std::unexpected(Error{Code::io, "the system gives no random bytes", errno});
            }
            done += static_cast<std::size_t>(n);
        }
        return {};
    }

  private:
    enum class Tries : std::uint8_t {
        once,       // a busy error names the holder, for which much is read
        again,      // no busy error is the last one
        gives_way,  // likewise; busy also if somebody waits
    };
    Result<std::unique_ptr<Lock>> try_lock(const Path& path, Tries tries) {
        const Path store = path.parent_path();
        const auto busy = [&](int locked, int file) {
            return std::unexpected(tries == Tries::once ? busy_error(store, locked, text_of(file))
                                                        : Error{Code::busy, ""});
        };
        while (true) {
            const auto at = places_.place(path);
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
            const bool both =
                retry([&] { return ::flock(directory->get(), LOCK_EX | LOCK_NB); }) == 0;
            if (!both && errno == EWOULDBLOCK) {
                return busy(directory->get(), fd->get());
            }
            // It may have been removed between the first two calls.
            if (!names(path, id_of(fd->get()))) {
                continue;
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
            return std::make_unique<PosixLock>(path, std::move(*fd), std::move(*directory), both,
                                               same);
        }
    }

    // A file that nobody has open or linked elsewhere: what has the name already is removed.
    static Result<Descriptor> create(const Place& at, const Path& path) {
        if (::unlinkat(at.directory, at.name.c_str(), 0) != 0 && errno != ENOENT) {
            return std::unexpected(wrong_type(at, path, errno));
        }
        auto fd = open_regular(at, path, O_RDWR | O_CREAT | O_EXCL);
        if (fd && at.directory != AT_FDCWD) {
            inherit_access(fd->get(), at.directory);
        }
        return fd;
    }

    Places places_;
    const mode_t mode_;
};

}  // namespace

Env& posix_env() {
    static PosixEnv& env =  // never destroyed: a store may outlive static objects
        *new PosixEnv({}, std::filesystem::perms::owner_all);
    return env;
}

std::shared_ptr<Env> posix_env_of(const Path& store, std::filesystem::perms permissions) {
    return std::make_shared<PosixEnv>(store, permissions);
}

Result<void> remove_if_there(Env& env, const Path& path) {
    auto removed = env.remove(path);
    return !removed && removed.error().os_error == ENOENT ? Result<void>() : removed;
}

Error os_failure(std::string_view action, const Path& path, int os_error) {
    Code code = Code::io;
    std::string_view hint;
    if (os_error == ENOSPC || os_error == EDQUOT) {
        code = Code::out_of_space;
        hint = "; free some space and try again";
    } else if (os_error == EROFS || os_error == EACCES || os_error == EPERM) {
        code = Code::read_only;
        hint = os_error == EROFS ? "; here the store can only be opened read-only"
                                 : "; check the owner and the permissions";
    }
    return {code,
            fmt::format("cannot {} {}: {}{}", action, path.string(),
                        std::generic_category().message(os_error), hint),
            os_error};
}

}  // namespace dedup
