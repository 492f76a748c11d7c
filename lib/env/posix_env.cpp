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

#include "env/env.hpp"

namespace dedup {
namespace {

// Repeats a call that a signal interrupted.
template <class Call>
auto retry(Call call) {
    auto result = call();
    while (result < 0 && errno == EINTR) {
        result = call();
    }
    return result;
}

class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) {
            // Whatever had to be durable was synced, so close has nothing left to report.
            ::close(fd_);
        }
    }
    [[nodiscard]] int get() const { return fd_; }

  private:
    int fd_;
};

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

Result<Descriptor> open_descriptor(const Path& path, int flags) {
    const int fd = retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0644); });
    if (fd < 0) {
        return std::unexpected(os_failure("open", path, errno));
    }
    return Descriptor(fd);
}

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

class PosixEnv final : public Env {
  public:
    Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
        int flags = O_RDONLY;
        if (mode != OpenMode::read) {
            flags = mode == OpenMode::create ? O_RDWR | O_CREAT | O_TRUNC : O_RDWR;
        }
        auto fd = open_descriptor(path, flags);
        if (!fd) {
            return std::unexpected(fd.error());
        }
        return std::make_unique<PosixFile>(std::move(*fd), path);
    }

    Result<PathType> type(const Path& path) override {
        struct stat status {};
        if (::stat(path.c_str(), &status) != 0) {
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

    Result<std::vector<std::string>> list(const Path& directory) override {
        std::vector<std::string> names;
        std::error_code error;
        std::filesystem::directory_iterator entry(directory, error);
        while (!error && entry != std::filesystem::directory_iterator()) {
            names.push_back(entry->path().filename().string());
            entry.increment(error);
        }
        if (error) {
            return std::unexpected(os_failure("list", directory, error.value()));
        }
        return names;
    }

    Result<void> make_directory(const Path& path) override {
        if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
            return std::unexpected(os_failure("create directory", path, errno));
        }
        return {};
    }

    Result<void> rename(const Path& from, const Path& to) override {
        if (::rename(from.c_str(), to.c_str()) != 0) {
            return std::unexpected(os_failure("rename", from, errno));
        }
        return {};
    }

    Result<void> remove(const Path& path) override {
        if (::unlink(path.c_str()) != 0) {
            return std::unexpected(os_failure("remove", path, errno));
        }
        return {};
    }

    Result<void> sync_directory(const Path& path) override {
        auto fd = open_descriptor(path, O_RDONLY | O_DIRECTORY);
        if (!fd) {
            return std::unexpected(fd.error());
        }
        if (::fsync(fd->get()) != 0) {
            return std::unexpected(os_failure("flush", path, errno));
        }
        return {};
    }

    Result<std::unique_ptr<Lock>> lock(const Path& path) override {
        auto fd = open_descriptor(path, O_RDWR | O_CREAT);
        if (!fd) {
            return std::unexpected(fd.error());
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
};

}  // namespace

Env& posix_env() {
    static PosixEnv env;
    return env;
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
