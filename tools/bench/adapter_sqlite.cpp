// SQLite: INSERT ... ON CONFLICT DO NOTHING, prepared, a transaction a group.
//
// Settings, from sqlite.org: WAL with synchronous=FULL, which flushes the log at each commit
// (pragma.html; NORMAL would lose the last commits with the power); WITHOUT ROWID, which
// withoutrowid.html advises for a key that is not an integer and small rows; a page cache of
// 256 MiB and reads by mmap (mmap.html); a checkpoint each 16,384 pages instead of 1,000, since
// wal.html says that fewer checkpoints favour writing. One connection writes, as only one can at a
// time and waiting for its turn in memory is cheaper than busy handlers; each session reads with
// its own. A load has synchronous=OFF and ends with a checkpoint under FULL.

#include <sqlite3.h>

#include <mutex>
#include <vector>

#include "adapter.hpp"

namespace bench {
namespace {

class Connection {
  public:
    explicit Connection(const std::string& path) {
        check(sqlite3_open_v2(path.c_str(), &db_,
                              SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                              nullptr));
        run("PRAGMA busy_timeout=60000");
        run("PRAGMA journal_mode=WAL");
        run("PRAGMA synchronous=FULL");
        run("PRAGMA wal_autocheckpoint=16384");
        run("PRAGMA mmap_size=17179869184");
    }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() { sqlite3_close_v2(db_); }

    void check(int status) const {
        if (status != SQLITE_OK && status != SQLITE_DONE && status != SQLITE_ROW) {
            throw failure(std::string("SQLite: ") + sqlite3_errmsg(db_));
        }
    }
    void run(const char* sql) const { check(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr)); }
    [[nodiscard]] int changes() const { return sqlite3_changes(db_); }
    [[nodiscard]] sqlite3* get() const { return db_; }

  private:
    sqlite3* db_ = nullptr;
};

class Statement {
  public:
    Statement(const Connection& connection, const char* sql) : connection_(connection) {
        connection_.check(sqlite3_prepare_v3(connection.get(), sql, -1, SQLITE_PREPARE_PERSISTENT,
                                             &statement_, nullptr));
    }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    ~Statement() { sqlite3_finalize(statement_); }

    // The bytes must outlive the next run.
    Statement& bind(int index, std::string_view bytes) {
        connection_.check(sqlite3_bind_blob(statement_, index, bytes.data(),
                                            static_cast<int>(bytes.size()), SQLITE_STATIC));
        return *this;
    }
    // True if there was a row, which `receipt` gets the first column of.
    bool run(std::string* value = nullptr) {
        const int status = sqlite3_step(statement_);
        if (status == SQLITE_ROW && value != nullptr) {
            value->assign(static_cast<const char*>(sqlite3_column_blob(statement_, 0)),
                          static_cast<std::size_t>(sqlite3_column_bytes(statement_, 0)));
        }
        sqlite3_reset(statement_);
        connection_.check(status);
        return status == SQLITE_ROW;
    }

  private:
    const Connection& connection_;
    sqlite3_stmt* statement_ = nullptr;
};

// The one connection that writes.
struct Writer {
    explicit Writer(const std::string& path) : connection(path) {
        connection.run("PRAGMA cache_size=-262144");
        connection.run(
            "CREATE TABLE IF NOT EXISTS processed_events("
            "key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID");
    }

    std::mutex mutex;
    Connection connection;
};

struct Writes {
    explicit Writes(const Connection& connection)
        : begin(connection, "BEGIN IMMEDIATE"),
          insert(connection, "INSERT INTO processed_events VALUES(?1, ?2) ON CONFLICT DO NOTHING"),
          update(connection, "UPDATE processed_events SET value = ?2 WHERE key = ?1"),
          commit(connection, "COMMIT") {}

    Statement begin;
    Statement insert;
    Statement update;
    Statement commit;
};

class SqliteSession final : public Session {
  public:
    SqliteSession(Writer& writer, Writes& writes, const std::string& path)
        : writer_(writer),
          writes_(writes),
          reader_(path),
          select_(reader_, "SELECT value FROM processed_events WHERE key = ?1") {}

    std::size_t claim(Keys keys) override {
        claimed_.clear();
        const std::string value = claimed_value(now_ms() + kTtlMs);
        const std::lock_guard lock(writer_.mutex);
        writes_.begin.run();
        for (const std::string_view key : keys) {
            writes_.insert.bind(1, key).bind(2, value).run();
            if (writer_.connection.changes() == 1) {
                claimed_.emplace_back(key);
            }
        }
        writes_.commit.run();
        return claimed_.size();
    }

    void complete_claimed(std::string_view receipt) override {
        const std::string value = completed_value(now_ms() + kTtlMs, receipt);
        const std::lock_guard lock(writer_.mutex);
        writes_.begin.run();
        for (const std::string& key : claimed_) {
            writes_.update.bind(1, key).bind(2, value).run();
        }
        writes_.commit.run();
    }

    bool lookup(std::string_view key, std::string& receipt) override {
        return select_.bind(1, key).run(&value_) && receipt_of(value_, receipt);
    }

  private:
    Writer& writer_;
    Writes& writes_;
    Connection reader_;
    Statement select_;
    std::string value_;
    std::vector<std::string> claimed_;
};

class SqliteAdapter final : public Adapter {
  public:
    explicit SqliteAdapter(const std::string& directory)
        : path_(directory + "/sqlite.db"), writer_(path_), writes_(writer_.connection) {}

    std::unique_ptr<Session> session() override {
        return std::make_unique<SqliteSession>(writer_, writes_, path_);
    }

    void load(Keys keys, std::string_view receipt, std::int64_t ttl_ms) override {
        writer_.connection.run("PRAGMA synchronous=OFF");
        const std::string value = completed_value(now_ms() + ttl_ms, receipt);
        writes_.begin.run();
        for (const std::string_view key : keys) {
            writes_.insert.bind(1, key).bind(2, value).run();
        }
        writes_.commit.run();
    }

    void loaded() override {
        writer_.connection.run("PRAGMA synchronous=FULL");
        writer_.connection.run("PRAGMA wal_checkpoint(TRUNCATE)");
    }

  private:
    std::string path_;
    Writer writer_;
    Writes writes_;
};

}  // namespace

std::unique_ptr<Adapter> open_sqlite(const std::string& directory) {
    return std::make_unique<SqliteAdapter>(directory);
}

}  // namespace bench
