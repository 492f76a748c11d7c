#include "catalog/lmdb_env.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <mutex>
#include <utility>

#include "catalog/lmdb_check.hpp"
#include "env/descriptor.hpp"
#include "env/places.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

constexpr const char* kDataName = "data.mdb";
constexpr std::size_t kEnvPieceBytes = 256 * 1024;
constexpr std::uint64_t kMapBytesMin = 64 * 1024 * 1024;

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

// A file that is nowhere but in memory.
class MemoryFile final : public File {
  public:
    MemoryFile() : fd_(::memfd_create("dedup-catalog", MFD_CLOEXEC)) {}
    [[nodiscard]] int fd() const { return fd_.get(); }

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        const auto got = retry(
            [&] { return ::pread(fd(), into.data(), into.size(), static_cast<off_t>(offset)); });
        if (got < 0) {
            return failed("read");
        }
        return static_cast<std::size_t>(got);
    }
    Result<void> write(std::uint64_t offset, std::string_view bytes) override {
        while (!bytes.empty()) {
            const auto put = retry([&] {
                return ::pwrite(fd(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
            });
            if (put <= 0) {
                return failed("write");
            }
            offset += static_cast<std::uint64_t>(put);
            bytes.remove_prefix(static_cast<std::size_t>(put));
        }
        return {};
    }
    Result<void> sync() override { return {}; }
    Result<void> truncate(std::uint64_t bytes) override {
        if (::ftruncate(fd(), static_cast<off_t>(bytes)) != 0) {
            return failed("truncate");
        }
        return {};
    }
    Result<bool> reserve(std::uint64_t /*bytes*/) override { return false; }
    Result<std::uint64_t> size() override {
        struct stat status {};
        if (::fstat(fd(), &status) != 0) {
            return failed("look at");
        }
        return static_cast<std::uint64_t>(status.st_size);
    }

  private:
    static std::unexpected<Error> failed(std::string_view action) {
        return std::unexpected(os_failure(action, "the copy of a catalog in memory", errno));
    }
    const Descriptor fd_;
};

}  // namespace

Error lmdb_failure(std::string_view action, const Path& path, int rc) {
    if (rc > 0) {
        return os_failure(action, path, rc);
    }
    Code code = Code::io;
    if (rc == MDB_VERSION_MISMATCH) {
        code = Code::unsupported_version;
    } else if (rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND ||
               rc == MDB_PANIC || rc == MDB_BAD_TXN || rc == MDB_INCOMPATIBLE) {
        code = Code::corruption;
    }
    return {code, fmt::format("cannot {} {}: {}", action, path.string(), mdb_strerror(rc))};
}

Result<std::shared_ptr<LmdbEnv>> LmdbEnv::make(const Path& path, const char* file,
                                               std::uint64_t map_bytes, unsigned flags) {
    MDB_env* raw = nullptr;
    if (const int rc = mdb_env_create(&raw); rc != 0) {
        return std::unexpected(lmdb_failure("open", path, rc));
    }
    std::shared_ptr<LmdbEnv> env(new LmdbEnv(raw, path));
    mdb_env_set_mapsize(raw, map_bytes);
    fill_standard_descriptors();
    if (const int rc = mdb_env_open(raw, file, flags | MDB_NOLOCK | MDB_NOTLS, 0600); rc != 0) {
        return std::unexpected(lmdb_failure("open", path, rc));
    }
    close_on_exec(raw);
    if (auto opened = env->open_database(); !opened) {
        return std::unexpected(opened.error());
    }
    return env;
}

Result<std::shared_ptr<LmdbEnv>> LmdbEnv::open(const Path& path, std::uint64_t map_bytes) {
    if (auto checked = check_regular(path, {kDataName}); !checked) {
        return std::unexpected(checked.error());
    }
    if (auto file = posix_env().open(path / kDataName, OpenMode::read)) {
        if (auto checked = check_lmdb_file(path / kDataName, **file); !checked) {
            return std::unexpected(checked.error());
        }
    } else if (file.error().os_error != ENOENT) {
        return std::unexpected(file.error());
    }
    auto env = make(path, path.c_str(), map_bytes_at_most(map_bytes), 0);
    if (env) {
        inherit_access(path, {kDataName});
    }
    return env;
}

Result<std::shared_ptr<LmdbEnv>> LmdbEnv::open_copy(const Path& path, File& file) {
    fill_standard_descriptors();
    MemoryFile copy;
    if (copy.fd() < 0) {
        return std::unexpected(os_failure("copy", path, errno));
    }
    if (auto copied = copy_lmdb_file(path / kDataName, file, copy); !copied) {
        return std::unexpected(copied.error());
    }
    if (auto checked = check_lmdb_file(path / kDataName, copy); !checked) {
        return std::unexpected(checked.error());
    }
    // LMDB opens files by their names.
    const std::string name = fmt::format("/proc/self/fd/{}", copy.fd());
    if (::access(name.c_str(), R_OK) != 0) {
        return std::unexpected(Error{
            Code::io,
            fmt::format("cannot read {}: that needs /proc, which is not mounted", path.string()),
            ENOSYS});
    }
    return make(path, name.c_str(), copy.size().value_or(0), MDB_RDONLY | MDB_NOSUBDIR);
}

Result<void> LmdbEnv::copy_to(File& to) const {
    mdb_filehandle_t fd = -1;
    if (const int rc = mdb_env_get_fd(env_, &fd); rc != 0) {
        return std::unexpected(lmdb_failure("copy", path_, rc));
    }
    std::string piece(kEnvPieceBytes, '\0');
    for (std::uint64_t at = 0;;) {
        const ssize_t got =
            retry([&] { return ::pread(fd, piece.data(), piece.size(), static_cast<off_t>(at)); });
        if (got < 0) {
            return std::unexpected(os_failure("copy", path_, errno));
        }
        if (got == 0) {
            return {};
        }
        const auto bytes = static_cast<std::size_t>(got);
        DEDUP_TRY(to.write(at, std::string_view(piece).substr(0, bytes)));
        at += bytes;
    }
}

LmdbEnv::~LmdbEnv() {
    if (!mark_.inherited()) {
        mdb_env_close(env_);
    }
}

Result<void> LmdbEnv::open_database() {
    MDB_txn* txn = nullptr;
    int rc = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn);
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
    const std::lock_guard lock(mutex_);
    MDB_envinfo info{};
    mdb_env_info(env_, &info);
    const std::uint64_t map_bytes = info.me_mapsize * 2;
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

LmdbTxn::LmdbTxn(std::shared_ptr<LmdbEnv> env, bool writable)
    : env_(std::move(env)),
      shared_(env_->mutex_, std::defer_lock),
      exclusive_(env_->mutex_, std::defer_lock) {
    if (writable) {
        exclusive_.lock();
    } else {
        shared_.lock();
    }
}

Result<LmdbTxn> LmdbTxn::begin(std::shared_ptr<LmdbEnv> env, bool writable) {
    LmdbTxn txn(std::move(env), writable);
    const unsigned flags = writable ? 0U : unsigned{MDB_RDONLY};
    if (const int rc = mdb_txn_begin(txn.env_->get(), nullptr, flags, &txn.txn_); rc != 0) {
        txn.txn_ = nullptr;
        return std::unexpected(lmdb_failure("begin a transaction on", txn.env_->path(), rc));
    }
    return txn;
}

LmdbTxn::LmdbTxn(LmdbTxn&& other) noexcept
    : env_(std::move(other.env_)),
      shared_(std::move(other.shared_)),
      exclusive_(std::move(other.exclusive_)),
      txn_(std::exchange(other.txn_, nullptr)) {}

LmdbTxn::~LmdbTxn() {
    if (txn_ != nullptr) {
        mdb_txn_abort(txn_);
    }
}

namespace {

// LMDB takes a non-const pointer but does not write through it.
MDB_val value_of(std::string_view bytes) {
    return {bytes.size(), const_cast<char*>(bytes.data())};
}

// A full map is a matter of the caller's, who can enlarge it and try again.
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
    if (rc != 0) {
        return std::unexpected(put_failure(env_->path(), rc));
    }
    return {};
}

}  // namespace dedup
