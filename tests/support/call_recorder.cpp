#include "support/call_recorder.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace dedup::test {
namespace {

std::atomic<CallRecorder*> recorder = nullptr;
// This thread's calls are the recorder's own.
thread_local bool looking = false;

}  // namespace

CallRecorder::CallRecorder(Path root, DiskState state)
    : root_(std::move(root)), disk_(std::move(state)) {
    recorder = this;
}

CallRecorder::~CallRecorder() {
    recorder = nullptr;
}

void CallRecorder::alone(const std::function<void()>& work) {
    const std::lock_guard lock(mutex_);
    work();
}

Path CallRecorder::differing() {
    const std::lock_guard lock(mutex_);
    looking = true;
    Path found = differing_file();
    looking = false;
    return found;
}

Path CallRecorder::differing_file() {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root_)) {
        const Path below = entry.path().lexically_relative(root_);
        const int node = disk_.find(below);
        if (node < 0) {
            return below;
        }
        if (entry.is_regular_file()) {
            std::ifstream file(entry.path(), std::ios::binary);
            const std::string bytes(std::istreambuf_iterator<char>(file), {});
            if (bytes != disk_.contents(node)) {
                return below;
            }
        }
    }
    return {};
}

// One call: held back until no other is made, and noted if it concerns the recorder's files.
class RecordedCall {
  public:
    RecordedCall() : recorder_(looking ? nullptr : recorder.load()) {
        if (recorder_ != nullptr) {
            lock_ = std::unique_lock(recorder_->mutex_);
        }
    }

    [[nodiscard]] bool has(int fd) const {
        return recorder_ != nullptr && recorder_->open_.contains(fd);
    }
    // The path below the root, if it lies there; `path` as calls take it that end in "at".
    [[nodiscard]] std::optional<Path> below_root(int directory, const char* path) const {
        if (recorder_ == nullptr) {
            return std::nullopt;
        }
        Path whole = path;
        if (directory != AT_FDCWD && whole.is_relative()) {
            whole = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(directory)) /
                    (whole == "." ? Path() : whole);
        }
        if (!whole.has_filename()) {
            whole = whole.parent_path();
        }
        Path below = whole.lexically_normal().lexically_relative(recorder_->root_);
        return below.empty() || *below.begin() == ".." ? std::nullopt : std::optional(below);
    }

    void opened(int fd, const Path& path, int flags) {
        FaultDisk& disk = recorder_->disk_;
        int node = disk.find(path);
        if (node < 0) {
            before("create", path);
            node = disk.create(path, false);
        } else if ((flags & O_TRUNC) != 0 && !disk.contents(node).empty()) {
            before("empty", path);
            disk.resize(node, 0);
        }
        recorder_->open_[fd] = {node, (flags & O_DSYNC) != 0, path};
    }
    void closed(int fd) { recorder_->open_.erase(fd); }
    [[nodiscard]] bool can_exchange() const {
        return recorder_ == nullptr || recorder_->can_exchange;
    }

    // Gives `n`.
    template <class Real>
    ssize_t write(int fd, std::span<const iovec> parts, std::uint64_t offset, Real real) {
        const auto& file = recorder_->open_[fd];
        before("write", file.path);
        const ssize_t n = real();
        if (n <= 0) {
            return n;
        }
        std::string bytes;
        for (const iovec& part : parts) {
            bytes.append(static_cast<const char*>(part.iov_base), part.iov_len);
        }
        bytes.resize(static_cast<std::size_t>(n));
        recorder_->disk_.write(file.node, offset, bytes);
        if (file.synchronous) {
            before("write synchronously", file.path);
            recorder_->disk_.sync_last(file.node);
            ++recorder_->synchronous_writes_;
        }
        return n;
    }

    template <class Real>
    int resize(int fd, std::optional<std::uint64_t> to, std::uint64_t at_least, Real real) {
        const auto& file = recorder_->open_[fd];
        before("resize", file.path);
        const int rc = real();
        const std::uint64_t size = recorder_->disk_.contents(file.node).size();
        const std::uint64_t bytes = to.value_or(std::max(size, at_least));
        if (rc == 0 && bytes != size) {
            recorder_->disk_.resize(file.node, bytes);
        }
        return rc;
    }

    template <class Real>
    int sync(int fd, Real real) {
        const auto& file = recorder_->open_[fd];
        before("flush", file.path);
        const int rc = real();
        if (rc == 0) {
            recorder_->disk_.sync(file.node);
        }
        return rc;
    }

    // `change` gives an errno, or that it has come to nothing on the recorder's disk.
    template <class Real, class Change>
    int change_name(std::string_view action, const std::optional<Path>& path, Real real,
                    Change change) {
        if (!path) {
            return real();
        }
        before(action, *path);
        const int rc = real();
        if (rc == 0) {
            change(recorder_->disk_, *path);
        }
        return rc;
    }

  private:
    void before(std::string_view action, const Path& path) {
        recorder_->before_change();
        recorder_->last_call_ = std::string(action) + " " + path.string();
    }

    CallRecorder* recorder_;
    std::unique_lock<std::mutex> lock_;
};

namespace {

int open_file(int directory, const char* path, int flags, mode_t mode) {
    RecordedCall call;
    const auto fd = static_cast<int>(syscall(SYS_openat, directory, path, flags, mode));
    const auto below = call.below_root(directory, path);
    if (fd >= 0 && below) {
        call.opened(fd, *below, flags);
    } else if (call.has(fd)) {
        call.closed(fd);  // by a call that nobody sees, as closedir() makes
    }
    return fd;
}

ssize_t write_file(int fd, const void* bytes, std::size_t count, off_t offset) {
    RecordedCall call;
    const auto real = [&] { return syscall(SYS_pwrite64, fd, bytes, count, offset); };
    const iovec part{const_cast<void*>(bytes), count};
    return call.has(fd) ? call.write(fd, {&part, 1}, static_cast<std::uint64_t>(offset), real)
                        : real();
}

// At the descriptor's own position.
template <class Real>
ssize_t write_on(int fd, std::span<const iovec> parts, Real real) {
    RecordedCall call;
    if (!call.has(fd)) {
        return real();
    }
    const auto offset = static_cast<std::uint64_t>(syscall(SYS_lseek, fd, 0, SEEK_CUR));
    return call.write(fd, parts, offset, real);
}

int resize_file(int fd, off_t bytes) {
    RecordedCall call;
    const auto real = [&] { return static_cast<int>(syscall(SYS_ftruncate, fd, bytes)); };
    return call.has(fd) ? call.resize(fd, static_cast<std::uint64_t>(bytes), 0, real) : real();
}

int reserve_file(int fd, int mode, off_t offset, off_t bytes) {
    RecordedCall call;
    const auto real = [&] {
        return static_cast<int>(syscall(SYS_fallocate, fd, mode, offset, bytes));
    };
    return call.has(fd) && mode == 0
               ? call.resize(fd, std::nullopt, static_cast<std::uint64_t>(offset + bytes), real)
               : real();
}

int sync_file(int fd, long number) {
    RecordedCall call;
    const auto real = [&] { return static_cast<int>(syscall(number, fd)); };
    return call.has(fd) ? call.sync(fd, real) : real();
}

}  // namespace

// The names under which programs and libraries find them, some with and some without 64. (Declared
// under other names, as the C library's own declarations depend on macros.)
extern "C" {

int recorded_open(const char* path, int flags, ...) asm("open");
int recorded_open64(const char* path, int flags, ...) asm("open64");
int recorded_close(int fd) asm("close");
ssize_t recorded_write(int fd, const void* bytes, std::size_t count) asm("write");
ssize_t recorded_writev(int fd, const iovec* parts, int count) asm("writev");
ssize_t recorded_pwrite(int fd, const void* bytes, std::size_t n, off_t at) asm("pwrite");
ssize_t recorded_pwrite64(int fd, const void* bytes, std::size_t n, off_t at) asm("pwrite64");
int recorded_ftruncate(int fd, off_t bytes) asm("ftruncate");
int recorded_ftruncate64(int fd, off_t bytes) asm("ftruncate64");
int recorded_fallocate(int fd, int mode, off_t at, off_t bytes) asm("fallocate");
int recorded_fallocate64(int fd, int mode, off_t at, off_t bytes) asm("fallocate64");
int recorded_fsync(int fd) asm("fsync");
int recorded_fdatasync(int fd) asm("fdatasync");
int recorded_openat(int directory, const char* path, int flags, ...) asm("openat");
int recorded_openat64(int directory, const char* path, int flags, ...) asm("openat64");
int recorded_mkdir(const char* path, mode_t mode) asm("mkdir");
int recorded_mkdirat(int directory, const char* path, mode_t mode) asm("mkdirat");
int recorded_unlink(const char* path) asm("unlink");
int recorded_unlinkat(int directory, const char* path, int flags) asm("unlinkat");
int recorded_rename(const char* from, const char* to) asm("rename");
int recorded_rmdir(const char* path) asm("rmdir");
int recorded_remove(const char* path) asm("remove");
int recorded_renameat(int from_directory, const char* from, int to_directory,
                      const char* to) asm("renameat");
int recorded_renameat2(int from_directory, const char* from, int to_directory, const char* to,
                       unsigned flags) asm("renameat2");
int recorded_link(const char* from, const char* to) asm("link");

int recorded_open(const char* path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file(AT_FDCWD, path, flags, mode);
}
int recorded_open64(const char* path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file(AT_FDCWD, path, flags, mode);
}
int recorded_close(int fd) {
    RecordedCall call;
    if (call.has(fd)) {
        call.closed(fd);
    }
    return static_cast<int>(syscall(SYS_close, fd));
}
ssize_t recorded_write(int fd, const void* bytes, std::size_t count) {
    const iovec part{const_cast<void*>(bytes), count};
    return write_on(fd, {&part, 1}, [&] { return syscall(SYS_write, fd, bytes, count); });
}
ssize_t recorded_writev(int fd, const iovec* parts, int count) {
    return write_on(fd, {parts, static_cast<std::size_t>(count)},
                    [&] { return syscall(SYS_writev, fd, parts, count); });
}
ssize_t recorded_pwrite(int fd, const void* bytes, std::size_t n, off_t at) {
    return write_file(fd, bytes, n, at);
}
ssize_t recorded_pwrite64(int fd, const void* bytes, std::size_t n, off_t at) {
    return write_file(fd, bytes, n, at);
}
int recorded_ftruncate(int fd, off_t bytes) {
    return resize_file(fd, bytes);
}
int recorded_ftruncate64(int fd, off_t bytes) {
    return resize_file(fd, bytes);
}
int recorded_fallocate(int fd, int mode, off_t at, off_t bytes) {
    return reserve_file(fd, mode, at, bytes);
}
int recorded_fallocate64(int fd, int mode, off_t at, off_t bytes) {
    return reserve_file(fd, mode, at, bytes);
}
int recorded_fsync(int fd) {
    return sync_file(fd, SYS_fsync);
}
int recorded_fdatasync(int fd) {
    return sync_file(fd, SYS_fdatasync);
}
int recorded_openat(int directory, const char* path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file(directory, path, flags, mode);
}
int recorded_openat64(int directory, const char* path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file(directory, path, flags, mode);
}
int recorded_mkdirat(int directory, const char* path, mode_t mode) {
    RecordedCall call;
    return call.change_name(
        "create directory", call.below_root(directory, path),
        [&] { return static_cast<int>(syscall(SYS_mkdirat, directory, path, mode)); },
        [](FaultDisk& disk, const Path& below) { disk.create(below, true); });
}
int recorded_mkdir(const char* path, mode_t mode) {
    return recorded_mkdirat(AT_FDCWD, path, mode);
}
int recorded_unlinkat(int directory, const char* path, int flags) {
    RecordedCall call;
    return call.change_name(
        "remove", call.below_root(directory, path),
        [&] { return static_cast<int>(syscall(SYS_unlinkat, directory, path, flags)); },
        [](FaultDisk& disk, const Path& below) { (void)disk.remove(below); });
}
int recorded_unlink(const char* path) {
    return recorded_unlinkat(AT_FDCWD, path, 0);
}
int recorded_renameat(int from_directory, const char* from, int to_directory, const char* to) {
    RecordedCall call;
    const auto to_below = call.below_root(to_directory, to);
    return call.change_name(
        "rename", call.below_root(from_directory, from),
        [&] {
            return static_cast<int>(syscall(SYS_renameat, from_directory, from, to_directory, to));
        },
        [&](FaultDisk& disk, const Path& below) { (void)disk.rename(below, *to_below); });
}
int recorded_rename(const char* from, const char* to) {
    return recorded_renameat(AT_FDCWD, from, AT_FDCWD, to);
}
int recorded_rmdir(const char* path) {
    return recorded_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
int recorded_remove(const char* path) {
    const int rc = recorded_unlinkat(AT_FDCWD, path, 0);
    return rc != 0 && errno == EISDIR ? recorded_rmdir(path) : rc;
}
int recorded_renameat2(int from_directory, const char* from, int to_directory, const char* to,
                       unsigned flags) {
    if (flags != RENAME_EXCHANGE) {
        errno = EINVAL;
        return -1;
    }
    RecordedCall call;
    if (!call.can_exchange()) {
        errno = ENOSYS;
        return -1;
    }
    const auto from_below = call.below_root(from_directory, from);
    return call.change_name(
        "exchange", call.below_root(to_directory, to),
        [&] {
            return static_cast<int>(
                syscall(SYS_renameat2, from_directory, from, to_directory, to, flags));
        },
        [&](FaultDisk& disk, const Path& below) { disk.exchange(*from_below, below); });
}
int recorded_link(const char* from, const char* to) {
    RecordedCall call;
    const auto from_below = call.below_root(AT_FDCWD, from);
    return call.change_name(
        "link", call.below_root(AT_FDCWD, to),
        [&] { return static_cast<int>(syscall(SYS_link, from, to)); },
        [&](FaultDisk& disk, const Path& below) { disk.link(*from_below, below); });
}

}  // extern "C"

}  // namespace dedup::test
