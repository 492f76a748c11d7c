// RocksDB: a Get and, if that finds nothing, a put; one WriteBatch with sync a group.
//
// Settings, from its wiki ("Setup Options and Basic Tuning", "RocksDB Bloom Filter", "RocksDB
// Tuning Guide" and "Pipelined Write"): a full Bloom filter of 10 bits a key, format version 5, a
// shared block cache that holds index and filter blocks with those of level 0 pinned, blocks of 16
// KiB with a hash index for point lookups, dynamic level sizes, as many background jobs as cores
// (at least 2) and all files kept open; memtables of 64 MiB with a filter of whole keys; SSTs
// flushed in steps of 1 MiB; pipelined writes, which help many threads. No compression, as keys and
// receipts are random. The log is flushed by fdatasync, the default.
//
// RocksDB has no "put if absent"; its transactions lock keys. Striped locks do the same here at
// less cost, since all callers are in one process. A load goes without the log and flushes at its
// end, as the wiki's page on bulk loading says.

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <array>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "adapter.hpp"

namespace bench {
namespace {

constexpr std::size_t kStripes = 1024;
constexpr std::size_t kCacheBytes = std::size_t{512} << 20U;

using Stripes = std::array<std::mutex, kStripes>;

void check(const rocksdb::Status& status) {
    if (!status.ok()) {
        throw failure("RocksDB: " + status.ToString());
    }
}

rocksdb::Slice slice(std::string_view bytes) {
    return {bytes.data(), bytes.size()};
}

rocksdb::Options options() {
    rocksdb::BlockBasedTableOptions table;
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    table.block_cache = rocksdb::NewLRUCache(kCacheBytes);
    table.block_size = std::size_t{16} << 10U;
    table.cache_index_and_filter_blocks = true;
    table.pin_l0_filter_and_index_blocks_in_cache = true;
    table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
    table.format_version = 5;
    rocksdb::Options options;
    options.create_if_missing = true;
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    options.compression = rocksdb::kNoCompression;
    options.level_compaction_dynamic_level_bytes = true;
    options.compaction_pri = rocksdb::kMinOverlappingRatio;
    options.max_background_jobs =
        static_cast<int>(std::max(2U, std::thread::hardware_concurrency()));
    options.max_open_files = -1;
    options.bytes_per_sync = 1048576;
    options.memtable_whole_key_filtering = true;
    options.memtable_prefix_bloom_size_ratio = 0.02;
    options.enable_pipelined_write = true;
    return options;
}

// Holds the stripes of all keys of a group, taken in order so that no two callers wait for each
// other.
class StripesHeld {
  public:
    StripesHeld(Stripes& stripes, Keys keys) : stripes_(stripes) {
        for (const std::string_view key : keys) {
            held_.push_back(std::hash<std::string_view>()(key) % kStripes);
        }
        std::sort(held_.begin(), held_.end());
        held_.erase(std::unique(held_.begin(), held_.end()), held_.end());
        for (const std::size_t stripe : held_) {
            stripes_[stripe].lock();
        }
    }
    StripesHeld(const StripesHeld&) = delete;
    StripesHeld& operator=(const StripesHeld&) = delete;
    ~StripesHeld() {
        for (const std::size_t stripe : held_) {
            stripes_[stripe].unlock();
        }
    }

  private:
    Stripes& stripes_;
    std::vector<std::size_t> held_;
};

class RocksSession final : public Session {
  public:
    RocksSession(rocksdb::DB& db, Stripes& stripes) : db_(db), stripes_(stripes) {
        durable_.sync = true;
    }

    std::size_t claim(Keys keys) override {
        claimed_.clear();
        const StripesHeld held(stripes_, keys);
        const std::string value = claimed_value(now_ms() + kTtlMs);
        rocksdb::WriteBatch batch;
        for (const std::string_view key : keys) {
            const rocksdb::Status status =
                db_.Get({}, db_.DefaultColumnFamily(), slice(key), &found_);
            found_.Reset();
            if (status.ok()) {
                continue;
            }
            if (!status.IsNotFound()) {
                check(status);
            }
            check(batch.Put(slice(key), value));
            claimed_.emplace_back(key);
        }
        if (!claimed_.empty()) {
            check(db_.Write(durable_, &batch));
        }
        return claimed_.size();
    }

    void complete_claimed(std::string_view receipt) override {
        const std::string value = completed_value(now_ms() + kTtlMs, receipt);
        rocksdb::WriteBatch batch;
        for (const std::string& key : claimed_) {
            check(batch.Put(key, value));
        }
        check(db_.Write(durable_, &batch));
    }

    bool lookup(std::string_view key, std::string& receipt) override {
        const rocksdb::Status status = db_.Get({}, db_.DefaultColumnFamily(), slice(key), &found_);
        if (status.IsNotFound()) {
            return false;
        }
        check(status);
        const bool completed = receipt_of(found_.ToStringView(), receipt);
        found_.Reset();
        return completed;
    }

    std::size_t lookup_many(Keys keys, std::string& receipt) override {
        slices_.clear();
        for (const std::string_view key : keys) {
            slices_.push_back(slice(key));
        }
        values_.resize(keys.size());
        statuses_.resize(keys.size());
        db_.MultiGet({}, db_.DefaultColumnFamily(), keys.size(), slices_.data(), values_.data(),
                     statuses_.data());
        std::size_t completed = 0;
        for (std::size_t i = 0; i < keys.size(); ++i) {
            if (!statuses_[i].IsNotFound()) {
                check(statuses_[i]);
                completed += receipt_of(values_[i].ToStringView(), receipt) ? 1U : 0U;
            }
            values_[i].Reset();
        }
        return completed;
    }

  private:
    std::vector<rocksdb::Slice> slices_;
    std::vector<rocksdb::PinnableSlice> values_;
    std::vector<rocksdb::Status> statuses_;
    rocksdb::DB& db_;
    Stripes& stripes_;
    rocksdb::WriteOptions durable_;
    rocksdb::PinnableSlice found_;
    std::vector<std::string> claimed_;
};

class RocksAdapter final : public Adapter {
  public:
    explicit RocksAdapter(const std::string& directory) {
        rocksdb::DB* db = nullptr;
        check(rocksdb::DB::Open(options(), directory + "/rocksdb", &db));
        db_.reset(db);
    }

    std::unique_ptr<Session> session() override {
        return std::make_unique<RocksSession>(*db_, stripes_);
    }

    void load(Keys keys, std::string_view receipt, std::int64_t ttl_ms) override {
        const std::string value = completed_value(now_ms() + ttl_ms, receipt);
        rocksdb::WriteOptions without_log;
        without_log.disableWAL = true;
        rocksdb::WriteBatch batch;
        for (const std::string_view key : keys) {
            check(batch.Put(slice(key), value));
        }
        check(db_->Write(without_log, &batch));
    }

    void loaded() override { check(db_->Flush({})); }

  private:
    std::unique_ptr<rocksdb::DB> db_;
    Stripes stripes_;
};

}  // namespace

std::unique_ptr<Adapter> open_rocksdb(const std::string& directory) {
    return std::make_unique<RocksAdapter>(directory);
}

}  // namespace bench
