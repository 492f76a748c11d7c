// LMDB: one put with MDB_NOOVERWRITE a key, a transaction a group.
//
// Flags, from lmdb.h: none that gives up durability (no NOSYNC, NOMETASYNC or MAPASYNC) while
// claims run; MDB_NORDAHEAD, which it advises for random reads of a map larger than memory;
// MDB_NOTLS, so that each session can hold its own reader, which is reset and renewed instead of
// made anew. A load sets MDB_NOSYNC, sorts its keys and flushes at its end.
// LMDB has one writer at a time and no group commit: threads queue for it, one flush each.

#include <lmdb.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "adapter.hpp"

namespace bench {
namespace {

constexpr std::size_t kMapBytes = std::size_t{128} << 30U;  // address space only
constexpr unsigned kReaders = 600;

void check(int status, const char* what) {
    if (status != MDB_SUCCESS) {
        throw failure(std::string("LMDB: ") + what + ": " + mdb_strerror(status));
    }
}

MDB_val as_value(std::string_view bytes) {
    return {bytes.size(), const_cast<char*>(bytes.data())};
}

std::string_view as_view(const MDB_val& value) {
    return {static_cast<const char*>(value.mv_data), value.mv_size};
}

// A write transaction that is given up unless it is committed.
class Writing {
  public:
    explicit Writing(MDB_env* env) { check(mdb_txn_begin(env, nullptr, 0, &txn_), "begin"); }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;
    ~Writing() {
        if (txn_ != nullptr) {
            mdb_txn_abort(txn_);
        }
    }
    bool put(MDB_dbi dbi, std::string_view key, std::string_view value, unsigned flags) {
        MDB_val k = as_value(key);
        MDB_val v = as_value(value);
        const int status = mdb_put(txn_, dbi, &k, &v, flags);
        if (status == MDB_KEYEXIST) {
            return false;
        }
        check(status, "put");
        return true;
    }
    void commit() { check(mdb_txn_commit(std::exchange(txn_, nullptr)), "commit"); }

  private:
    MDB_txn* txn_ = nullptr;
};

class LmdbSession final : public Session {
  public:
    LmdbSession(MDB_env* env, MDB_dbi dbi) : env_(env), dbi_(dbi) {
        check(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &reader_), "begin reading");
        mdb_txn_reset(reader_);
    }
    ~LmdbSession() override { mdb_txn_abort(reader_); }

    std::size_t claim(Keys keys) override {
        claimed_.clear();
        const std::string value = claimed_value(now_ms() + kTtlMs);
        Writing writing(env_);
        for (const std::string_view key : keys) {
            if (writing.put(dbi_, key, value, MDB_NOOVERWRITE)) {
                claimed_.emplace_back(key);
            }
        }
        writing.commit();
        return claimed_.size();
    }

    void complete_claimed(std::string_view receipt) override {
        const std::string value = completed_value(now_ms() + kTtlMs, receipt);
        Writing writing(env_);
        for (const std::string& key : claimed_) {
            writing.put(dbi_, key, value, 0);
        }
        writing.commit();
    }

    bool lookup(std::string_view key, std::string& receipt) override {
        return lookup_many({&key, 1}, receipt) == 1;
    }

    // All of them in one transaction.
    std::size_t lookup_many(Keys keys, std::string& receipt) override {
        check(mdb_txn_renew(reader_), "renew");
        std::size_t found = 0;
        int status = MDB_SUCCESS;
        for (const std::string_view key : keys) {
            MDB_val k = as_value(key);
            MDB_val v{};
            status = mdb_get(reader_, dbi_, &k, &v);
            if (status == MDB_SUCCESS && receipt_of(as_view(v), receipt)) {
                ++found;
            } else if (status != MDB_SUCCESS && status != MDB_NOTFOUND) {
                break;
            }
        }
        mdb_txn_reset(reader_);
        if (status != MDB_NOTFOUND) {
            check(status, "get");
        }
        return found;
    }

  private:
    MDB_env* env_;
    MDB_dbi dbi_;
    MDB_txn* reader_ = nullptr;
    std::vector<std::string> claimed_;
};

class LmdbAdapter final : public Adapter {
  public:
    explicit LmdbAdapter(const std::string& directory) {
        const std::string path = directory + "/lmdb";
        std::filesystem::create_directories(path);
        check(mdb_env_create(&env_), "create");
        check(mdb_env_set_mapsize(env_, kMapBytes), "map size");
        check(mdb_env_set_maxreaders(env_, kReaders), "readers");
        check(mdb_env_open(env_, path.c_str(), MDB_NORDAHEAD | MDB_NOTLS, 0600), "open");
        MDB_txn* txn = nullptr;
        check(mdb_txn_begin(env_, nullptr, 0, &txn), "begin");
        check(mdb_dbi_open(txn, nullptr, 0, &dbi_), "open table");
        check(mdb_txn_commit(txn), "commit");
    }
    ~LmdbAdapter() override { mdb_env_close(env_); }

    std::unique_ptr<Session> session() override {
        return std::make_unique<LmdbSession>(env_, dbi_);
    }

    void load(Keys keys, std::string_view receipt, std::int64_t ttl_ms) override {
        check(mdb_env_set_flags(env_, MDB_NOSYNC, 1), "no sync");
        std::vector<std::string_view> sorted(keys.begin(), keys.end());
        std::sort(sorted.begin(), sorted.end());
        const std::string value = completed_value(now_ms() + ttl_ms, receipt);
        Writing writing(env_);
        for (const std::string_view key : sorted) {
            writing.put(dbi_, key, value, 0);
        }
        writing.commit();
    }

    void loaded() override {
        check(mdb_env_sync(env_, 1), "sync");
        check(mdb_env_set_flags(env_, MDB_NOSYNC, 0), "sync again");
    }

  private:
    MDB_env* env_ = nullptr;
    MDB_dbi dbi_ = 0;
};

}  // namespace

std::unique_ptr<Adapter> open_lmdb(const std::string& directory) {
    return std::make_unique<LmdbAdapter>(directory);
}

}  // namespace bench
