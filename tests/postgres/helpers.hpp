// What the tests of the store in PostgreSQL share: a schema each, and a plain connection.
#pragma once

#include <doctest/doctest.h>
#include <libpq-fe.h>

#include <chrono>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/postgres_store.hpp"
#include "support/manual_clock.hpp"
#include "support/postgres_server.hpp"

namespace dedup::test {

// Nothing to test without a server; the contract suite has said so.
#define NEEDS_POSTGRES()                               \
    do {                                               \
        if (!PostgresServer::programs().has_value()) { \
            MESSAGE("no PostgreSQL server is here");   \
            return;                                    \
        }                                              \
    } while (false)

// A schema of its own in the shared server, with a store in it.
class Schema {
  public:
    Schema() {
        static int made = 0;
        options.schema = "s" + std::to_string(++made);
        const auto outcome = init_postgres(url(), options);
        REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
        CHECK(*outcome == PostgresInit::created);
    }
    [[nodiscard]] static std::string url() { return PostgresServer::shared().url(); }

    [[nodiscard]] std::unique_ptr<StreamStore> open(const std::string& parameters = "") const {
        auto store = open_postgres(url() + parameters, options);
        REQUIRE_MESSAGE(store.has_value(), store.error().message);
        return *std::move(store);
    }
    // Runs SQL as somebody else would; "@" is the schema.
    std::string sql(std::string text) const {
        for (std::size_t at = text.find('@'); at != std::string::npos; at = text.find('@', at)) {
            text.replace(at, 1, options.schema);
        }
        return PostgresServer::shared().sql(text);
    }

    PostgresOptions options;
};

// Checks that it is an error of this kind, whose message has `word`.
template <class T>
void refused(const Result<T>& result, Code code, std::string_view word) {
    REQUIRE(!result.has_value());
    CHECK_MESSAGE(result.error().code == code, result.error().message);
    CHECK_MESSAGE(result.error().message.contains(word), result.error().message);
}

// A connection as an application has one.
class Client {
  public:
    explicit Client(const std::string& url) : conn_(PQconnectdb(url.c_str())) {
        REQUIRE_MESSAGE(PQstatus(conn_) == CONNECTION_OK, PQerrorMessage(conn_));
    }
    ~Client() { PQfinish(conn_); }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    [[nodiscard]] PGconn* get() const { return conn_; }

    // The first row, as text; fails the test if the server refuses.
    std::vector<std::string> row(const std::string& sql,
                                 const std::vector<std::pair<std::string, bool>>& parameters = {}) {
        std::vector<const char*> values;
        std::vector<int> lengths;
        std::vector<int> formats;
        for (const auto& [value, binary] : parameters) {
            values.push_back(value.c_str());
            lengths.push_back(static_cast<int>(value.size()));
            formats.push_back(binary ? 1 : 0);
        }
        PGresult* const result =
            PQexecParams(conn_, sql.c_str(), static_cast<int>(values.size()), nullptr,
                         values.data(), lengths.data(), formats.data(), 0);
        const std::unique_ptr<PGresult, decltype(&PQclear)> owned(result, PQclear);
        REQUIRE_MESSAGE(succeeded(result), PQresultErrorMessage(result));
        std::vector<std::string> row;
        for (int i = 0; i < PQnfields(result) && PQntuples(result) > 0; ++i) {
            row.emplace_back(PQgetvalue(result, 0, i));
        }
        return row;
    }

    // The first value; "SQLSTATE message" if the server refuses.
    std::string answer(const std::string& sql) {
        const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(conn_, sql.c_str()),
                                                                   &PQclear);
        if (succeeded(result.get())) {
            return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
        }
        return std::string(PQresultErrorField(result.get(), PG_DIAG_SQLSTATE)) + " " +
               PQresultErrorField(result.get(), PG_DIAG_MESSAGE_PRIMARY);
    }

  private:
    static bool succeeded(const PGresult* result) {
        const auto status = PQresultStatus(result);
        return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
    }

    PGconn* conn_;
};

// A client that names the schema's functions and tables without it.
class SchemaClient : public Client {
  public:
    explicit SchemaClient(const Schema& schema) : Client(schema.url()) {
        row("SET search_path = " + schema.options.schema);
    }
};

}  // namespace dedup::test
