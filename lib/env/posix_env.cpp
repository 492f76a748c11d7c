#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <system_error>
#include <utility>

#include "env/descriptor.hpp"
#include "env/env.hpp"
#include "env/places.hpp"

namespace dedup {
namespace {

class Mapping {
  public:
    Mapping(void* start, std::size_t bytes) : start_(start), bytes_(bytes) {}
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() { ::munmap(start_, bytes_); }
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

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
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
        // Not retried, whatever the error: after a failed flush the kernel may drop the pages and
        // let the next call succeed.
        if (::fdatasync(fd_.get()) != 0) {
            return std::unexpected(os_failure("flush", path_, errno));
        }
        return {};
    }

    Result<void> truncate(std::uint64_t bytes) override {
        if (retry([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(bytes)); }) != 0) {
            return std::unexpected(os_failure("truncate", path_, errno));
        }
        return {};
    }

    Result<bool> reserve(std::uint64_t bytes) override {
        if (retry([&] { return ::fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes)); }) == 0) {
            return true;
        }
        if (errno == EOPNOTSUPP || errno == ENOSYS) {
            return false;
        }
        return std::unexpected(os_failure("extend", path_, errno));
    }

    Result<std::uint64_t> size() override {
        struct stat status {};
        if (::fstat(fd_.get(), &status) != 0) {
            return std::unexpected(os_failure("stat", path_, errno));
        }
        return static_cast<std::uint64_t>(status.st_size);
    }

    std::string_view map(std::uint64_t bytes) override {
        if (!map_) {
            void* start = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_.get(), 0);
            if (start == MAP_FAILED) {
                return {};
            }
            // Lookups jump about; reading ahead would only fetch what nobody has asked for.
            (void)::madvise(start, bytes, MADV_RANDOM);
            map_.emplace(start, bytes);
        }
        return bytes <= map_->view().size() ? map_->view().substr(0, bytes) : std::string_view();
    }

  private:
    Descriptor fd_;
    Path path_;
    std::optional<Mapping> map_;
};

class PosixLock final : public Lock {
  public:
    explicit PosixLock(Descriptor fd) : fd_(std::move(fd)) {}

  private:
    Descriptor fd_;
};

Error busy(const Path& path, int fd) {
    char text[32] = {};
    const ssize_t n = ::pread(fd, text, sizeof text - 1, 0);
    int pid = 0;
    std::from_chars(text, text + (n > 0 ? n : 0), pid);
    const Path store = path.parent_path();
    return {Code::busy,
            pid > 0
                ? fmt::format("store {} is open for writing in process {}; wait for it or "
                              "stop it",
                              store.string(), pid)
                : fmt::format("store {} is open for writing in another process", store.string())};
}

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
        const int fd = ::openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
            return errno == EEXIST ? Result<void>()
                                   : std::unexpected(os_failure("create directory", path, errno));
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
        if (::fsync(directory->fd) != 0) {
            return std::unexpected(os_failure("flush", path, errno));
        }
        return {};
    }

    Result<std::unique_ptr<Lock>> lock(const Path& path) override {
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
        if (retry([&] { return ::flock(fd->get(), LOCK_EX | LOCK_NB); }) != 0) {
            return std::unexpected(errno == EWOULDBLOCK ? busy(path, fd->get())
                                                        : os_failure("lock", path, errno));
        }
        // The pid is for people and worth no error: the lock itself is what counts, and a full
        // disk must not keep a store from being opened.
        const std::string pid = fmt::format("{}\n", ::getpid());
        if (::ftruncate(fd->get(), 0) != 0 || ::pwrite(fd->get(), pid.data(), pid.size(), 0) < 0) {
            errno = 0;
        }
        return std::make_unique<PosixLock>(std::move(*fd));
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
    static PosixEnv env({}, std::filesystem::perms::owner_all);
    return env;
}

std::shared_ptr<Env> posix_env_of(const Path& store, std::filesystem::perms permissions) {
    return std::make_shared<PosixEnv>(store, permissions);
}

Error os_failure(std::string_view action, const Path& path, int os_error) {
    Code code = Code::io;
    std::string_view hint;
    if (os_error == ENOSPC || os_error == EDQUOT) {
        code = Code::out_of_space;
        hint = "; free some space and try again";
    } else if (os_error == EROFS || os_error == EACCES || os_error == EPERM) {
        code = Code::read_only;
        hint = "; check the owner and the permissions, or open the store read-only";
    }
    return {code,
            fmt::format("cannot {} {}: {}{}", action, path.string(),
                        std::generic_category().message(os_error), hint),
            os_error};
}

}  // namespace dedup
