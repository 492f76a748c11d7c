// LMDB, wrapped as far as the catalog needs it. This header and its sources are the only place
// that knows lmdb.h.
#pragma once

#include <lmdb.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "env/env.hpp"
#include "env/process.hpp"

namespace dedup {

// Translates LMDB's `rc` for `action` on the catalog at `path`.
[[nodiscard]] Error lmdb_failure(std::string_view action, const Path& path, int rc);

using FileId = std::pair<dev_t, ino_t>;

// An open LMDB environment. LMDB forbids to open one file twice in a process, so all stores in a
// process that use one catalog share it.
class LmdbEnv {
  public:
    // Opens the environment in directory `path`. For reading, the file must exist. Checks first
    // that the file is whole, because LMDB trusts it blindly; see lmdb_check.hpp.
    // Errors: corruption (not an LMDB file, or a damaged one), io, read_only, busy (the process
    // has it open without the right to write).
    [[nodiscard]] static Result<std::shared_ptr<LmdbEnv>> open(const Path& path, bool writable,
                                                               std::uint64_t map_bytes);
    ~LmdbEnv();
    LmdbEnv(const LmdbEnv&) = delete;
    LmdbEnv& operator=(const LmdbEnv&) = delete;

    [[nodiscard]] MDB_env* get() const { return env_; }
    [[nodiscard]] MDB_dbi database() const { return database_; }
    [[nodiscard]] const Path& path() const { return path_; }

    // The number of the last committed transaction.
    [[nodiscard]] std::uint64_t version() const;
    // Bytes in use, rounded up to pages.
    [[nodiscard]] std::uint64_t used_bytes() const;

    // Doubles the map, or makes it large enough for what another process has added.
    // Errors: busy (a transaction is open in this process, whose map would move under it),
    // out_of_space (no address space; all stays as it was), io.
    [[nodiscard]] Result<void> grow();
    [[nodiscard]] Result<void> adopt_size();

  private:
    LmdbEnv(MDB_env* env, Path path, bool writable)
        : env_(env), path_(std::move(path)), writable_(writable) {}

    friend class LmdbTxn;

    [[nodiscard]] Result<void> open_database();
    [[nodiscard]] Result<void> resize(std::uint64_t map_bytes);

    const ProcessMark mark_;
    MDB_env* env_;
    Path path_;
    MDB_dbi database_ = 0;
    bool writable_;
    FileId file_{};
    std::mutex resize_mutex_;  // guards open_txns_, and keeps transactions from beginning
    std::condition_variable txn_ended_;
    std::uint64_t open_txns_ = 0;
};

// A transaction that is given up unless it is committed.
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
    // Gives room for a value, to be filled before the next call on this transaction.
    [[nodiscard]] Result<char*> reserve(std::string_view key, std::uint64_t bytes);
    // The value, valid until the transaction ends; a null view if there is none.
    [[nodiscard]] Result<std::string_view> get(std::string_view key) const;
    [[nodiscard]] Result<void> commit();

  private:
    LmdbTxn(std::shared_ptr<LmdbEnv> env, MDB_txn* txn) : env_(std::move(env)), txn_(txn) {}
    void ended();

    std::shared_ptr<LmdbEnv> env_;
    MDB_txn* txn_;
};

}  // namespace dedup
