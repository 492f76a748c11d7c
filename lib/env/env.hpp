// What the store asks of the operating system: files, directories, a lock, randomness.
//
// Everything the engine does to its log goes through an Env, so that a test can put one in place
// that tears writes, fails flushes and forgets what was not synced.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/error.hpp"

namespace dedup {

using Path = std::filesystem::path;

// An open file. Reads may run beside anything; the other functions need one caller at a time.
class File {
  public:
    virtual ~File() = default;
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    // Fills `into` from `offset`; gives fewer bytes only at the end of the file.
    [[nodiscard]] virtual Result<std::size_t> read(std::uint64_t offset, std::span<char> into) = 0;
    [[nodiscard]] virtual Result<void> write(std::uint64_t offset, std::string_view bytes) = 0;
    // Makes the contents, and the size if it grew, durable.
    [[nodiscard]] virtual Result<void> sync() = 0;
    [[nodiscard]] virtual Result<void> truncate(std::uint64_t bytes) = 0;
    // Extends the file to `bytes` with zeros that have room on the disk. False: the file system
    // cannot promise that, and nothing was done.
    [[nodiscard]] virtual Result<bool> reserve(std::uint64_t bytes) = 0;
    [[nodiscard]] virtual Result<std::uint64_t> size() = 0;
    // The first offset, from this one on, that has data: all bytes before it are zeros that take no
    // room on the disk. `offset` itself where that cannot be told; the file's end if none has.
    [[nodiscard]] virtual std::uint64_t skip_hole(std::uint64_t offset) { return offset; }
    // The first `bytes` bytes, for reading without a copy; they live as long as the file. What the
    // file does not have yet must not be touched: that ends the process. Empty if the file cannot
    // be mapped, or has been with fewer bytes: then read() gives them.
    [[nodiscard]] virtual std::string_view map(std::uint64_t /*bytes*/) { return {}; }
    // For a file that will only be read: closes the descriptor, of which a process has few, if the
    // file has been mapped. From then on it ends where it ends now. Before other threads read.
    virtual void keep_map_only() {}
    // Whether `path` still names this file: it may have been removed, moved or replaced.
    [[nodiscard]] virtual bool is_at(const Path& /*path*/) { return true; }

  protected:
    File() = default;
};

// Held until destroyed, and given up by the system when the process dies. It belongs to the process
// that took it, and to none that is forked from that one.
class Lock {
  public:
    virtual ~Lock() = default;
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

    // Errors: failed, if it may not keep others out any more.
    [[nodiscard]] virtual Result<void> check() { return {}; }

    // Whether a holder of this lock has noted that it had flushed the names that lead to the log,
    // which are the same files now: then they need no flush. For the holder alone.
    [[nodiscard]] virtual bool names_noted() { return false; }
    // They have been flushed. What cannot be noted costs the next holder those flushes.
    virtual void note_names() {}

  protected:
    Lock() = default;
};

enum class PathType : std::uint8_t { absent, file, directory, other };
enum class OpenMode : std::uint8_t { read, write, create };  // create: replaces an existing file

// How long to wait for a lock that somebody else has.
struct LockWait {
    std::chrono::milliseconds time{0};
    std::function<bool()> goes_on = {};  // asked now and then; false ends the wait. Empty: true
};

class Env {
  public:
    virtual ~Env() = default;
    Env() = default;
    Env(const Env&) = delete;
    Env& operator=(const Env&) = delete;

    [[nodiscard]] virtual Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) = 0;
    [[nodiscard]] virtual Result<PathType> type(const Path& path) = 0;
    [[nodiscard]] virtual Result<std::vector<std::string>> list(const Path& directory) = 0;
    [[nodiscard]] virtual Result<void> make_directory(const Path& path) = 0;
    // Gives it the access that the directory `like` has, too.
    [[nodiscard]] virtual Result<void> make_directory_like(const Path& path, const Path& /*like*/) {
        return make_directory(path);
    }
    [[nodiscard]] virtual Result<void> rename(const Path& from, const Path& to) = 0;
    [[nodiscard]] virtual Result<void> remove(const Path& path) = 0;
    // Makes the entries of a directory durable: files created, renamed and removed in it.
    [[nodiscard]] virtual Result<void> sync_directory(const Path& path) = 0;
    // Locks the file `path`, which is made if need be, and the directory that it is in. If somebody
    // else has it, waits for so long; those who wait get it in the order in which they came.
    // Errors: busy, which says who holds it.
    [[nodiscard]] virtual Result<std::unique_ptr<Lock>> lock(const Path& path,
                                                             const LockWait& wait) = 0;
    // Keeps those out who would take the lock of this file or directory, but changes nothing there,
    // and needs the right to read only. Null if there is nothing that this process may lock.
    // Errors: busy, which says who holds it.
    [[nodiscard]] virtual Result<std::unique_ptr<Lock>> lock_out(const Path& /*path*/) {
        return nullptr;
    }
    [[nodiscard]] virtual Result<void> random(std::span<char> into) = 0;
};

// It is no error if there is none.
[[nodiscard]] Result<void> remove_if_there(Env& env, const Path& path);

[[nodiscard]] Env& posix_env();

// An Env for one store: it keeps the store's directories open, follows no link within them, and
// gives what it creates there the access that the store's directory has. `permissions`: of that
// directory, should it be created, less the umask.
[[nodiscard]] std::shared_ptr<Env> posix_env_of(const Path& store,
                                                std::filesystem::perms permissions);

// The error for a system call that failed with `os_error` while doing `action` ("write",
// "create") to `path`.
[[nodiscard]] Error os_failure(std::string_view action, const Path& path, int os_error);

}  // namespace dedup
