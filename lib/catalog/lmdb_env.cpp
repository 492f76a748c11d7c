#include "catalog/lmdb_env.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "catalog/lmdb_check.hpp"
#include "env/places.hpp"

namespace dedup {
namespace {

constexpr std::initializer_list<const char*> kFileNames = {"data.mdb", "lock.mdb"};
constexpr unsigned kReadersMax = 1024;
constexpr std::uint64_t kMapBytesMin = 64 * 1024 * 1024;
constexpr std::chrono::milliseconds kDrainTimeout{100};

struct OpenEnvs {
    const ProcessMark mark;
    std::mutex mutex;
    std::condition_variable closed;
    std::map<FileId, std::weak_ptr<LmdbEnv>> by_file;
};

// Those of this process. A forked child begins with none: LMDB forbids it to use its parent's, and
// the mutex may be held by a thread that it does not have. Never destroyed, since a store in a
// global variable closes after static objects have gone.
OpenEnvs& open_envs() {
    static std::atomic<OpenEnvs*> current{nullptr};
    OpenEnvs* envs = current.load();
    while (envs == nullptr || envs->mark.inherited()) {
        auto made = std::make_unique<OpenEnvs>();
        if (current.compare_exchange_strong(envs, made.get())) {
            if (envs != nullptr) {
                leave_to_parent(envs);
            }
            envs = made.release();
        }
    }
    return *envs;
}

// LMDB opens the data file such that started programs inherit it.
void close_on_exec(MDB_env* env) {
    mdb_filehandle_t fd = -1;
    if (mdb_env_get_fd(env, &fd) == 0 && fd >= 0) {
        (void)::fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
}

// Whether the address space, which may be limited, has room for so many more bytes. LMDB must not
// find out: of a handle that could not be opened the size is on disk all the same, and one whose
// map could not grow is left without any.
bool has_address_space(std::uint64_t bytes) {
    void* room =
        ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return false;
    }
    ::munmap(room, bytes);
    return true;
}

// Where there is little room, half of it is left to the rest of the program.
std::uint64_t map_bytes_at_most(std::uint64_t map_bytes) {
    while (map_bytes > kMapBytesMin && !has_address_space(2 * map_bytes)) {
        map_bytes /= 2;
    }
    return map_bytes;
}

}  // namespace

Error lmdb_failure(std::string_view action, const Path& path, int rc) {
    if (rc == EAGAIN) {
        // LMDB tells its readers apart by a lock at the offset of their pid.
        return {Code::busy,
                fmt::format("cannot {} {}: another process with the pid {} has it open, in another "
                            "pid namespace, as containers have; let both share one, or start "
                            "one of them such that it gets another pid",
                            action, path.string(), ::getpid()),
                rc};
    }
    if (rc > 0) {
        return os_failure(action, path, rc);
    }
    Code code = Code::io;
    std::string_view hint;
    if (rc == MDB_VERSION_MISMATCH) {
        code = Code::unsupported_version;
    } else if (rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND ||
               rc == MDB_PANIC || rc == MDB_BAD_TXN || rc == MDB_INCOMPATIBLE) {
        code = Code::corruption;
    } else if (rc == MDB_READERS_FULL) {
        code = Code::busy;
        hint = "; too many processes read this store";
    }
    return {code, fmt::format("cannot {} {}: {}{}", action, path.string(), mdb_strerror(rc), hint)};
}

Result<std::shared_ptr<LmdbEnv>> LmdbEnv::open(const Path& path, bool writable,
                                               std::uint64_t map_bytes) {
    if (auto checked = check_regular(path, kFileNames); !checked) {
        return std::unexpected(checked.error());
    }
    OpenEnvs& envs = open_envs();
    std::shared_ptr<LmdbEnv> env;  // before the lock, which its destructor takes
    std::unique_lock lock(envs.mutex);

    const Path file = path / "data.mdb";
    struct stat status {};
    const bool exists = ::stat(file.c_str(), &status) == 0;
    if (!exists && !writable) {
        return std::unexpected(os_failure("open", file, ENOENT));
    }
    if (exists) {
        const FileId id{status.st_dev, status.st_ino};
        // An entry that has expired is just being closed.
        envs.closed.wait(lock, [&] {
            const auto found = envs.by_file.find(id);
            return found == envs.by_file.end() || (env = found->second.lock());
        });
        if (env) {
            if (writable && !env->writable_) {
                return std::unexpected(Error{
                    Code::busy,
                    fmt::format("{} is open read-only in this process; close that store first",
                                path.string())});
            }
            return env;
        }
        if (auto checked = check_lmdb_file(file); !checked) {
            return std::unexpected(checked.error());
        }
    }

    // A reader that has the right to write opens for writing too, so that a writer in the same
    // process can share the environment.
    const bool opens_writable = writable || ::access(file.c_str(), W_OK) == 0;
    const unsigned flags = MDB_NOTLS | (opens_writable ? 0U : unsigned{MDB_RDONLY});
    MDB_env* raw = nullptr;
    if (const int rc = mdb_env_create(&raw); rc != 0) {
        return std::unexpected(lmdb_failure("open", path, rc));
    }
    env.reset(new LmdbEnv(raw, path, opens_writable));
    mdb_env_set_maxreaders(raw, kReadersMax);
    mdb_env_set_mapsize(raw, map_bytes_at_most(map_bytes));
    fill_standard_descriptors();
    if (const int rc = mdb_env_open(raw, path.c_str(), flags, 0600); rc != 0) {
        return std::unexpected(lmdb_failure("open", path, rc));
    }
    close_on_exec(raw);
    inherit_access(path, kFileNames);
    int dead = 0;
    mdb_reader_check(raw, &dead);
    if (auto opened = env->open_database(); !opened) {
        return std::unexpected(opened.error());
    }
    if (::stat(file.c_str(), &status) == 0) {
        env->file_ = {status.st_dev, status.st_ino};
        envs.by_file[env->file_] = env;
    }
    return env;
}

LmdbEnv::~LmdbEnv() {
    if (mark_.inherited()) {
        return;  // LMDB would give up what is the parent's
    }
    OpenEnvs& envs = open_envs();
    {
        const std::lock_guard lock(envs.mutex);
        mdb_env_close(env_);
        envs.by_file.erase(file_);
    }
    envs.closed.notify_all();
}

Result<void> LmdbEnv::open_database() {
    MDB_txn* txn = nullptr;
    int rc = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn);
    if (rc == MDB_MAP_RESIZED) {
        if (auto adopted = adopt_size(); !adopted) {
            return adopted;
        }
        rc = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn);
    }
    if (rc != 0) {
        return std::unexpected(lmdb_failure("read", path_, rc));
    }
    rc = mdb_dbi_open(txn, nullptr, 0, &database_);
    mdb_txn_abort(txn);
    if (rc != 0) {
        return std::unexpected(lmdb_failure("read", path_, rc));
    }
    return {};
}

std::uint64_t LmdbEnv::version() const {
    MDB_envinfo info{};
    mdb_env_info(env_, &info);
    return info.me_last_txnid;
}

std::uint64_t LmdbEnv::used_bytes() const {
    MDB_envinfo info{};
    MDB_stat stat{};
    mdb_env_info(env_, &info);
    mdb_env_stat(env_, &stat);
    return (info.me_last_pgno + 1) * stat.ms_psize;
}

Result<void> LmdbEnv::grow() {
    MDB_envinfo info{};
    mdb_env_info(env_, &info);
    return resize(info.me_mapsize * 2);
}

// Not the size that the other process has given it, which this one may have no room for.
Result<void> LmdbEnv::adopt_size() {
    return resize(map_bytes_at_most(2 * used_bytes()));
}

Result<void> LmdbEnv::resize(std::uint64_t map_bytes) {
    // LMDB maps what is in use, even if it is asked for less: so that is what to look for.
    map_bytes = std::max(map_bytes, used_bytes());
    std::unique_lock lock(resize_mutex_);
    // Snapshots that nobody can reach any more may still be on their way out.
    if (!txn_ended_.wait_for(lock, kDrainTimeout, [&] { return open_txns_ == 0; })) {
        return std::unexpected(Error{
            Code::busy,
            fmt::format("the map of {} cannot be resized while it is being read", path_.string())});
    }
    if (!has_address_space(map_bytes)) {
        return std::unexpected(Error{
            Code::out_of_space,
            fmt::format(
                "{} needs a map of {} MiB, for which this process has no address space; raise "
                "its limit (ulimit -v)",
                path_.string(), map_bytes >> 20U)});
    }
    if (const int rc = mdb_env_set_mapsize(env_, map_bytes); rc != 0) {
        return std::unexpected(lmdb_failure("resize the map of", path_, rc));
    }
    return {};
}

Result<LmdbTxn> LmdbTxn::begin(std::shared_ptr<LmdbEnv> env, bool writable) {
    MDB_txn* txn = nullptr;
    const unsigned flags = writable ? 0U : unsigned{MDB_RDONLY};
    const std::lock_guard lock(env->resize_mutex_);
    if (const int rc = mdb_txn_begin(env->get(), nullptr, flags, &txn); rc != 0) {
        if (rc == MDB_MAP_RESIZED) {
            return std::unexpected(Error{Code::unavailable, "the catalog's map has been resized"});
        }
        return std::unexpected(lmdb_failure("begin a transaction on", env->path(), rc));
    }
    ++env->open_txns_;
    return LmdbTxn(std::move(env), txn);
}

void LmdbTxn::ended() {
    const std::lock_guard lock(env_->resize_mutex_);
    --env_->open_txns_;
    env_->txn_ended_.notify_all();
}

LmdbTxn::LmdbTxn(LmdbTxn&& other) noexcept
    : env_(std::move(other.env_)), txn_(std::exchange(other.txn_, nullptr)) {}

LmdbTxn::~LmdbTxn() {
    if (txn_ != nullptr) {
        mdb_txn_abort(txn_);
        ended();
    }
}

namespace {

// LMDB takes a non-const pointer but does not write through it.
MDB_val value_of(std::string_view bytes) {
    return {bytes.size(), const_cast<char*>(bytes.data())};
}

// A full map is a matter of the caller's, who can enlarge it.
Error put_failure(const Path& path, int rc) {
    if (rc == MDB_MAP_FULL) {
        return {Code::unavailable, "the catalog's map is full"};
    }
    return lmdb_failure("write to", path, rc);
}

}  // namespace

Result<void> LmdbTxn::put(std::string_view key, std::string_view value) {
    MDB_val k = value_of(key);
    MDB_val v = value_of(value);
    if (const int rc = mdb_put(txn_, env_->database(), &k, &v, 0); rc != 0) {
        return std::unexpected(put_failure(env_->path(), rc));
    }
    return {};
}

Result<void> LmdbTxn::remove(std::string_view key) {
    MDB_val k = value_of(key);
    if (const int rc = mdb_del(txn_, env_->database(), &k, nullptr);
        rc != 0 && rc != MDB_NOTFOUND) {
        return std::unexpected(put_failure(env_->path(), rc));
    }
    return {};
}

Result<char*> LmdbTxn::reserve(std::string_view key, std::uint64_t bytes) {
    MDB_val k = value_of(key);
    MDB_val v{bytes, nullptr};
    if (const int rc = mdb_put(txn_, env_->database(), &k, &v, MDB_RESERVE); rc != 0) {
        return std::unexpected(put_failure(env_->path(), rc));
    }
    return static_cast<char*>(v.mv_data);
}

Result<std::string_view> LmdbTxn::get(std::string_view key) const {
    MDB_val k = value_of(key);
    MDB_val v{};
    const int rc = mdb_get(txn_, env_->database(), &k, &v);
    if (rc == MDB_NOTFOUND) {
        return std::string_view();
    }
    if (rc != 0) {
        return std::unexpected(lmdb_failure("read", env_->path(), rc));
    }
    return std::string_view(static_cast<const char*>(v.mv_data), v.mv_size);
}

Result<void> LmdbTxn::commit() {
    const int rc = mdb_txn_commit(std::exchange(txn_, nullptr));
    ended();
    if (rc != 0) {
        return std::unexpected(put_failure(env_->path(), rc));
    }
    return {};
}

}  // namespace dedup
