// LMDB, wrapped as far as the catalog needs it. This header and its sources are the only place
// that knows lmdb.h.
#pragma once

#include <lmdb.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string_view>
#include <utility>

#include "env/env.hpp"
#include "env/process.hpp"

namespace dedup {

// Translates LMDB's `rc` for `action` on the catalog at `path`.
[[nodiscard]] Error lmdb_failure(std::string_view action, const Path& path, int rc);

// An open LMDB environment, without LMDB's lock file. Either of the process that holds the store's
// lock, which alone writes; or of a copy in memory, which nobody changes. Readers never open the
// file that is written: they would need the right to write, would pin pages, and LMDB tells
// processes apart by their pids, which are not unique across containers.
class LmdbEnv {
  public:
    // Opens the environment in directory `path`, which is made if it is not there. Checks first
    // that the file is whole, because LMDB trusts it blindly; see lmdb_check.hpp. The caller sees
    // to it that nobody else has it open.
    // Errors: corruption (not an LMDB file, or a damaged one), io, read_only.
    [[nodiscard]] static Result<std::shared_ptr<LmdbEnv>> open(const Path& path,
                                                               std::uint64_t map_bytes);
    // Opens a copy of `file`, which a writer may be changing. `path` is its directory, for errors.
    // Errors: corruption, io, unavailable.
    [[nodiscard]] static Result<std::shared_ptr<LmdbEnv>> open_copy(const Path& path, File& file);
    ~LmdbEnv();
    LmdbEnv(const LmdbEnv&) = delete;
    LmdbEnv& operator=(const LmdbEnv&) = delete;

    [[nodiscard]] MDB_env* get() const { return env_; }
    [[nodiscard]] MDB_dbi database() const { return database_; }
    [[nodiscard]] const Path& path() const { return path_; }

    // Writes all of it to `to`. Of a copy only.
    // Errors: io, out_of_space.
    [[nodiscard]] Result<void> copy_to(File& to) const;

    // The number of the last committed transaction.
    [[nodiscard]] std::uint64_t version() const;
    // Bytes in use, rounded up to pages.
    [[nodiscard]] std::uint64_t used_bytes() const;

    // Doubles the map. Waits until no transaction is open.
    // Errors: out_of_space (no address space; all stays as it was), io.
    [[nodiscard]] Result<void> grow();

  private:
    LmdbEnv(MDB_env* env, Path path) : env_(env), path_(std::move(path)) {}

    friend class LmdbTxn;

    [[nodiscard]] static Result<std::shared_ptr<LmdbEnv>> make(const Path& path, const char* file,
                                                               std::uint64_t map_bytes,
                                                               unsigned flags);
    [[nodiscard]] Result<void> open_database();

    const ProcessMark mark_;
    MDB_env* env_;
    Path path_;
    MDB_dbi database_ = 0;
    // Held by transactions, for writing by those that write: without a lock file LMDB does not
    // know of readers, whose pages a transaction might use again.
    std::shared_mutex mutex_;
};

// A transaction that is given up unless it is committed. Short, and one a thread: it keeps those of
// the other kind waiting.
class LmdbTxn {
  public:
    [[nodiscard]] static Result<LmdbTxn> begin(std::shared_ptr<LmdbEnv> env, bool writable);
    LmdbTxn(LmdbTxn&& other) noexcept;
    LmdbTxn& operator=(LmdbTxn&&) = delete;
    ~LmdbTxn();

    [[nodiscard]] MDB_txn* get() const { return txn_; }
    [[nodiscard]] std::uint64_t version() const { return mdb_txn_id(txn_); }
    [[nodiscard]] const LmdbEnv& env() const { return *env_; }

    [[nodiscard]] Result<void> put(std::string_view key, std::string_view value);
    // Nothing happens if the key is not there.
    [[nodiscard]] Result<void> remove(std::string_view key);
    // The value, valid until the transaction ends; a null view if there is none.
    [[nodiscard]] Result<std::string_view> get(std::string_view key) const;
    [[nodiscard]] Result<void> commit();

  private:
    LmdbTxn(std::shared_ptr<LmdbEnv> env, bool writable);

    std::shared_ptr<LmdbEnv> env_;
    std::shared_lock<std::shared_mutex> shared_;
    std::unique_lock<std::shared_mutex> exclusive_;
    MDB_txn* txn_ = nullptr;
};

}  // namespace dedup
