// One connection to a PostgreSQL server, and what can become of a request that is sent over it.
#pragma once

#include <libpq-fe.h>

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dedup/error.hpp"
#include "env/process.hpp"
#include "postgres/wire.hpp"

namespace dedup::pg {

using TimePoint = std::chrono::steady_clock::time_point;

// A statement of the library's. Its text never has data in it, and no name but the schema's.
struct Statement {
    std::string name;  // under which it is prepared
    std::string sql;
};

// A statement with its parameters, each in binary.
struct Query {
    const Statement* statement = nullptr;
    std::vector<std::string> parameters = {};
};

// What a query gave.
class Table {
  public:
    explicit Table(PGresult* result) : result_(result) {}

    [[nodiscard]] std::size_t size() const {
        return static_cast<std::size_t>(PQntuples(result_.get()));
    }
    [[nodiscard]] bool is_null(std::size_t row, int column) const {
        return PQgetisnull(result_.get(), static_cast<int>(row), column) != 0;
    }
    // Of a text or bytea; it lives as long as the table.
    [[nodiscard]] std::string_view bytes(std::size_t row, int column) const {
        const int at = static_cast<int>(row);
        return {PQgetvalue(result_.get(), at, column),
                static_cast<std::size_t>(PQgetlength(result_.get(), at, column))};
    }
    // Whether it is an error instead, and which.
    [[nodiscard]] bool failed() const;
    [[nodiscard]] std::string sqlstate() const;
    [[nodiscard]] Error error() const;
    // Of an int2, int4, int8 or bool; 0 if it is null.
    [[nodiscard]] std::int64_t number(std::size_t row, int column) const;

  private:
    struct Clear {
        void operator()(PGresult* result) const { PQclear(result); }
    };
    std::unique_ptr<PGresult, Clear> result_;
};

// Why a request gave nothing.
struct Trouble {
    Error error;
    std::string sqlstate = {};  // empty: not from the server
    // Nobody knows whether it was carried out. Otherwise it was not.
    bool unknown = false;

    // Another attempt may succeed at once: a deadlock or a serialization failure.
    [[nodiscard]] bool transient() const { return sqlstate == "40001" || sqlstate == "40P01"; }
    // The server has not what the statement asks for: a clause, a column, a function, a kind of
    // query.
    [[nodiscard]] bool not_understood() const {
        return sqlstate == "0A000" || sqlstate == "42601" || sqlstate == "42703" ||
               sqlstate == "42883";
    }
    // The server has ended the statement: it took longer than statement_timeout.
    [[nodiscard]] bool timed_out() const { return sqlstate == "57014"; }
    // A lock that it waited for stayed somebody else's.
    [[nodiscard]] bool locked() const { return sqlstate == "55P03"; }
};

template <class T>
using Reply = std::expected<T, Trouble>;

// What an SQLSTATE means to callers of a store.
[[nodiscard]] Code code_of(std::string_view sqlstate);

// Not for several threads at once. Never cancels what it has sent: a commit that waits for a
// standby would be acknowledged by that without being replicated.
class Connection {
  public:
    // How transactions run on it.
    struct Settings {
        bool prepared = true;
        const Statement* begin = nullptr;
        const Statement* commit = nullptr;
        const Statement* local = nullptr;  // run behind each BEGIN if not null
    };

    // `parameters` are libpq's, in pairs; blocks until there is a connection or
    // libpq's connect_timeout is over for each host.
    [[nodiscard]] static Result<std::unique_ptr<Connection>> open(
        std::span<const std::pair<std::string, std::string>> parameters, const Settings& settings);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // Runs the queries in one transaction and one round trip; gives a table each.
    [[nodiscard]] Reply<std::vector<Table>> transact(std::span<const Query> queries,
                                                     TimePoint deadline);
    // Runs one query; in a transaction of its own if it must be told its settings.
    [[nodiscard]] Reply<Table> run(const Query& query, TimePoint deadline);
    // Runs the queries in one round trip, and in a transaction of their own if they must be told
    // their settings; gives a table each.
    [[nodiscard]] Reply<std::vector<Table>> ask(std::span<const Query> queries, TimePoint deadline);
    // What a transaction on it begins with.
    [[nodiscard]] std::vector<Query> beginning() const;
    // Runs the queries and leaves the transaction open that they begin or go on with.
    [[nodiscard]] Reply<std::vector<Table>> step(std::span<const Query> queries,
                                                 TimePoint deadline);
    // Runs a text of several statements, which has no parameters.
    [[nodiscard]] Reply<void> script(const std::string& sql, TimePoint deadline);

    // Whether the server has warned of anything in the last call. A commit that was not
    // replicated is such a warning beside success.
    [[nodiscard]] bool warned() const { return warned_; }
    // Nothing more can be sent over it.
    [[nodiscard]] bool broken() const {
        return abandoned_ || PQstatus(conn_) != CONNECTION_OK ||
               PQtransactionStatus(conn_) != PQTRANS_IDLE;
    }

  private:
    struct Sent {
        bool wanted = false;  // its table is given to the caller
        const Statement* prepares = nullptr;
    };

    Connection(PGconn* conn, const Settings& settings);
    static void notice(void* self, const PGresult* result);

    bool send(const Query& query, bool wanted);
    [[nodiscard]] Reply<std::vector<Table>> collect(TimePoint deadline);
    [[nodiscard]] bool wait(TimePoint deadline);
    void roll_back(TimePoint deadline);
    [[nodiscard]] Trouble lost(std::string_view why);

    PGconn* conn_;
    const ProcessMark mark_;
    Settings settings_;
    std::set<std::string, std::less<>> prepared_;
    std::vector<Sent> sent_;
    bool warned_ = false;
    bool abandoned_ = false;  // something was sent that has not been answered
};

}  // namespace dedup::pg
