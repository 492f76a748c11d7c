// PostgreSQL: INSERT ... ON CONFLICT DO NOTHING into a table with a unique event id, prepared, sent
// through libpq's pipeline mode, a transaction a group. A single claim is a transaction by itself.
//
// The server is Debian's, started by servers.py with the settings that stand there. fsync,
// synchronous_commit and full_page_writes are on. The id is text in the C collation, which is the
// fastest for equality; only the sweep's table has an index on the expiry. A load is COPY.
// Everything goes through a Unix socket, lookups too: each waits for one round trip.

#include <libpq-fe.h>

#include <array>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "adapter.hpp"

namespace bench {
namespace {

using Reply = std::unique_ptr<PGresult, decltype(&PQclear)>;

class Connection {
  public:
    // Waits for a server that is starting.
    explicit Connection(const std::string& directory) {
        const std::string where = "host='" + directory + "' dbname=postgres user=postgres";
        for (int attempt = 0; connection_ == nullptr; ++attempt) {
            connection_ = PQconnectdb(where.c_str());
            if (PQstatus(connection_) == CONNECTION_OK) {
                break;
            }
            const std::string why = PQerrorMessage(connection_);
            PQfinish(std::exchange(connection_, nullptr));
            if (attempt == kServerAttempts) {
                throw failure("PostgreSQL: " + why);
            }
            std::this_thread::sleep_for(kServerPause);
        }
    }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() { PQfinish(connection_); }

    [[nodiscard]] PGconn* get() const { return connection_; }

    [[noreturn]] void fail() const {
        throw failure(std::string("PostgreSQL: ") + PQerrorMessage(connection_));
    }
    void check(bool good) const {
        if (!good) {
            fail();
        }
    }
    Reply checked(PGresult* result) const {
        Reply reply(result, PQclear);
        const ExecStatusType status = PQresultStatus(result);
        check(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ||
              status == PGRES_PIPELINE_SYNC || status == PGRES_COPY_IN);
        return reply;
    }
    Reply run(const std::string& sql) const { return checked(PQexec(connection_, sql.c_str())); }
    void prepare(const char* name, const char* sql) const {
        checked(PQprepare(connection_, name, sql, 0, nullptr));
    }

  private:
    PGconn* connection_ = nullptr;
};

// A group of statements, all sent before the first reply is read.
class Pipeline {
  public:
    explicit Pipeline(const Connection& connection) : connection_(connection) {
        connection_.check(PQenterPipelineMode(connection_.get()) == 1);
    }
    Pipeline(const Pipeline&) = delete;
    Pipeline& operator=(const Pipeline&) = delete;
    ~Pipeline() { PQexitPipelineMode(connection_.get()); }

    void send(const char* statement, std::span<const std::string_view> values) {
        std::array<const char*, 3> pointers{};
        std::array<int, 3> lengths{};
        // All parameters are sent as they are, which for text is its binary form, too.
        std::array<int, 3> formats{1, 1, 1};
        for (std::size_t i = 0; i < values.size(); ++i) {
            pointers[i] = values[i].data();
            lengths[i] = static_cast<int>(values[i].size());
        }
        connection_.check(PQsendQueryPrepared(connection_.get(), statement,
                                              static_cast<int>(values.size()), pointers.data(),
                                              lengths.data(), formats.data(), 1) == 1);
        ++sent_;
    }

    // Gives whether each statement has changed or found a row, in the order in which they were
    // sent; see(reply) is called for each.
    template <class See>
    std::vector<bool> finish(const See& see) {
        connection_.check(PQpipelineSync(connection_.get()) == 1);
        std::vector<bool> changed;
        for (std::size_t i = 0; i < sent_; ++i) {
            const Reply reply = connection_.checked(PQgetResult(connection_.get()));
            changed.push_back(std::strcmp(PQcmdTuples(reply.get()), "1") == 0);
            see(*reply);
            PQgetResult(connection_.get());  // null: the end of this statement's replies
        }
        connection_.checked(PQgetResult(connection_.get()));
        return changed;
    }
    std::vector<bool> finish() {
        return finish([](const PGresult&) {});
    }

  private:
    const Connection& connection_;
    std::size_t sent_ = 0;
};

// A bigint as the server wants it.
std::string network_order(std::int64_t value) {
    std::string bytes(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) {
        bytes[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (56U - 8U * i));
    }
    return bytes;
}

class PostgresSession final : public Session {
  public:
    explicit PostgresSession(const std::string& directory) : connection_(directory) {
        connection_.prepare("begin", "BEGIN");
        connection_.prepare("commit", "COMMIT");
        connection_.prepare("insert",
                            "INSERT INTO processed_events(event_id, expires_at) VALUES($1, $2) "
                            "ON CONFLICT DO NOTHING");
        connection_.prepare("update",
                            "UPDATE processed_events SET receipt = $2, expires_at = $3 "
                            "WHERE event_id = $1");
        connection_.prepare("select",
                            "SELECT receipt FROM processed_events "
                            "WHERE event_id = $1 AND receipt IS NOT NULL");
    }

    std::size_t claim(Keys keys) override {
        claimed_.clear();
        const std::string expires_at = network_order(now_ms() + kTtlMs);
        const std::vector<bool> changed = in_transaction(keys.size(), [&](Pipeline& pipeline) {
            for (const std::string_view key : keys) {
                pipeline.send("insert", std::array<std::string_view, 2>{key, expires_at});
            }
        });
        for (std::size_t i = 0; i < keys.size(); ++i) {
            if (changed[i]) {
                claimed_.emplace_back(keys[i]);
            }
        }
        return claimed_.size();
    }

    void complete_claimed(std::string_view receipt) override {
        const std::string expires_at = network_order(now_ms() + kTtlMs);
        in_transaction(claimed_.size(), [&](Pipeline& pipeline) {
            for (const std::string_view key : claimed_) {
                pipeline.send("update", std::array<std::string_view, 3>{key, receipt, expires_at});
            }
        });
    }

    bool lookup(std::string_view key, std::string& receipt) override {
        const char* value = key.data();
        const int length = static_cast<int>(key.size());
        const int format = 1;
        const Reply reply = connection_.checked(
            PQexecPrepared(connection_.get(), "select", 1, &value, &length, &format, 1));
        if (PQntuples(reply.get()) == 0) {
            return false;
        }
        receipt.assign(PQgetvalue(reply.get(), 0, 0),
                       static_cast<std::size_t>(PQgetlength(reply.get(), 0, 0)));
        return true;
    }

    std::size_t lookup_many(Keys keys, std::string& receipt) override {
        Pipeline pipeline(connection_);
        for (const std::string_view key : keys) {
            pipeline.send("select", {&key, 1});
        }
        std::size_t completed = 0;
        pipeline.finish([&](const PGresult& reply) {
            if (PQntuples(&reply) == 1) {
                receipt.assign(PQgetvalue(&reply, 0, 0),
                               static_cast<std::size_t>(PQgetlength(&reply, 0, 0)));
                ++completed;
            }
        });
        return completed;
    }

  private:
    // Gives what the statements that `send` sends have changed.
    template <class Send>
    std::vector<bool> in_transaction(std::size_t statements, const Send& send) {
        Pipeline pipeline(connection_);
        if (statements == 1) {
            send(pipeline);
            return pipeline.finish();
        }
        pipeline.send("begin", {});
        send(pipeline);
        pipeline.send("commit", {});
        std::vector<bool> changed = pipeline.finish();
        changed.erase(changed.begin());
        return changed;
    }

    Connection connection_;
    std::vector<std::string> claimed_;
};

class PostgresAdapter final : public Adapter {
  public:
    explicit PostgresAdapter(std::string directory)
        : directory_(std::move(directory)), connection_(directory_) {
        connection_.run(
            "CREATE TABLE IF NOT EXISTS processed_events(event_id text COLLATE \"C\" PRIMARY KEY, "
            "expires_at bigint NOT NULL, receipt bytea)");
    }

    std::unique_ptr<Session> session() override {
        return std::make_unique<PostgresSession>(directory_);
    }

    void load(Keys keys, std::string_view receipt, std::int64_t ttl_ms) override {
        const std::string expires_at = std::to_string(now_ms() + ttl_ms);
        std::string rows;
        for (const std::string_view key : keys) {
            rows.append(key).append("\t").append(expires_at).append("\t").append(receipt) += '\n';
        }
        connection_.run("COPY processed_events FROM STDIN");
        connection_.check(
            PQputCopyData(connection_.get(), rows.data(), static_cast<int>(rows.size())) == 1);
        connection_.check(PQputCopyEnd(connection_.get(), nullptr) == 1);
        while (PGresult* result = PQgetResult(connection_.get())) {
            connection_.checked(result);
        }
    }

    // What autovacuum would do in time; a fresh bulk load should be analysed.
    void loaded() override {
        connection_.run("VACUUM ANALYZE processed_events");
        connection_.run("CHECKPOINT");
    }

    // An index on the expiry has to be there, which the harness asks for by index_expiry().
    std::uint64_t sweep(std::int64_t ahead_ms) override {
        const Reply reply = connection_.run("DELETE FROM processed_events WHERE expires_at < " +
                                            std::to_string(now_ms() + ahead_ms));
        return std::stoull(PQcmdTuples(reply.get()));
    }
    void index_expiry() override {
        connection_.run(
            "CREATE INDEX IF NOT EXISTS processed_events_expiry ON processed_events(expires_at)");
    }
    void tidy() override { connection_.run("VACUUM processed_events"); }

  private:
    std::string directory_;
    Connection connection_;
};

}  // namespace

std::unique_ptr<Adapter> open_postgres(const std::string& directory) {
    return std::make_unique<PostgresAdapter>(directory);
}

}  // namespace bench
