#include "postgres/connection.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <optional>
#include <utility>

#include "record/try.hpp"

namespace dedup::pg {
namespace {

// One line, without the end of it that libpq gives.
// libpq begins the lines of its advice with a tab.
std::string one_line(std::string_view text) {
    std::string line;
    for (const char c : text) {
        const bool blank = c == '\n' || c == '\t' || c == ' ';
        if (!blank || !(line.empty() || line.back() == ' ')) {
            line += blank ? ' ' : c;
        }
    }
    if (line.ends_with(' ')) {
        line.pop_back();
    }
    return line;
}

std::string field(const PGresult* result, int which) {
    const char* const text = PQresultErrorField(result, which);
    return text == nullptr ? std::string() : one_line(text);
}

// A server that answers, and refuses this user or database, will refuse them the next time, too.
// libpq tells the reason in words alone.
bool is_refusal(std::string_view message) {
    return std::ranges::any_of(
        std::array<std::string_view, 6>{"authentication failed", "does not exist",
                                        "no pg_hba.conf entry", "no password supplied",
                                        "invalid connection option", "permission denied for"},
        [&](std::string_view words) { return message.contains(words); });
}

Error connect_error(const PGconn* conn) {
    const std::string message = one_line(PQerrorMessage(conn));
    if (is_refusal(message)) {
        return {.code = Code::invalid_argument,
                .message = fmt::format("PostgreSQL refused the connection: {}; correct the user, "
                                       "the password or the database of the store's URL",
                                       message)};
    }
    // Of the last host that was tried.
    const std::string_view way_out = message.contains("hot standby")
                                         ? "; name the primary in the store's URL, or all hosts"
                                         : "";
    return {.code = Code::unavailable,
            .message = fmt::format("no connection to PostgreSQL: {}{}", message, way_out)};
}

// What the server has refused, and whether that is all.
Trouble refused(const Table& table) {
    Trouble trouble{.error = table.error(), .sqlstate = table.sqlstate()};
    const std::string_view state = trouble.sqlstate;
    trouble.unknown = state.empty() || state.starts_with("08") || state == "57P01" ||
                      state == "57P02" || state == "40003";
    return trouble;
}

// The way out, where there is one.
std::string_view hint_for(std::string_view sqlstate) {
    if (sqlstate == "42501") {
        return "; grant the role what docs/postgres.md lists";
    }
    if (sqlstate == "42P01" || sqlstate == "3F000" || sqlstate == "42883") {
        return "; make the schema with `dedupctl init`";
    }
    if (sqlstate == "57014") {
        return "; raise the role's statement_timeout or, where it was a sweep, the store's timeout";
    }
    if (sqlstate == "55P03") {
        return "; another transaction has the key, or the table";
    }
    return sqlstate == "53100" ? "; make room on the server's disk" : "";
}

}  // namespace

Code code_of(std::string_view sqlstate) {
    const std::string_view kind = sqlstate.substr(0, 2);
    if (sqlstate == "42501" || sqlstate == "42P01" || sqlstate == "42883" || sqlstate == "42703" ||
        kind == "3F" || kind == "28" || kind == "3D") {
        return Code::invalid_argument;
    }
    if (sqlstate == "53300" || sqlstate == "57014" || sqlstate == "55P03" || sqlstate == "25006" ||
        sqlstate == "25P02" || kind == "57" || kind == "08" || kind == "40") {
        return Code::unavailable;
    }
    if (kind == "53") {
        return Code::out_of_space;
    }
    return kind == "XX" ? Code::corruption : Code::io;
}

bool Table::failed() const {
    const ExecStatusType status = PQresultStatus(result_.get());
    return status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK;
}

std::string Table::sqlstate() const {
    return field(result_.get(), PG_DIAG_SQLSTATE);
}

Error Table::error() const {
    const std::string state = sqlstate();
    std::string message = field(result_.get(), PG_DIAG_MESSAGE_PRIMARY);
    if (message.empty()) {
        message = one_line(PQresultErrorMessage(result_.get()));
    }
    return {.code = state.empty() ? Code::unavailable : code_of(state),
            .message = fmt::format("PostgreSQL: {}{}{}", message,
                                   state.empty() ? "" : " (" + state + ")", hint_for(state))};
}

std::int64_t Table::number(std::size_t row, int column) const {
    if (is_null(row, column)) {
        return 0;
    }
    const std::string_view value = bytes(row, column);
    switch (value.size()) {
        case 1:
            return value[0];
        case 2:
            return get_number<std::int16_t>(value.data());
        case 4:
            return get_number<std::int32_t>(value.data());
        case 8:
            return get_number<std::int64_t>(value.data());
        default:
            return 0;
    }
}

Result<std::unique_ptr<Connection>> Connection::open(
    std::span<const std::pair<std::string, std::string>> parameters, const Settings& settings) {
    std::vector<const char*> names;
    std::vector<const char*> values;
    for (const auto& [name, value] : parameters) {
        names.push_back(name.c_str());
        values.push_back(value.c_str());
    }
    names.push_back(nullptr);
    values.push_back(nullptr);
    PGconn* const conn = PQconnectdbParams(names.data(), values.data(), 1);
    if (conn == nullptr) {
        throw std::bad_alloc();
    }
    std::unique_ptr<Connection> connection(new Connection(conn, settings));
    if (PQstatus(conn) != CONNECTION_OK) {
        return std::unexpected(connect_error(conn));
    }
    if (PQsetnonblocking(conn, 1) != 0) {
        return std::unexpected(connect_error(conn));
    }
    return connection;
}

Connection::Connection(PGconn* conn, const Settings& settings) : conn_(conn), settings_(settings) {
    PQsetNoticeReceiver(conn_, &Connection::notice, this);
    if (PQsocket(conn_) >= 0) {
        close_in_children({PQsocket(conn_)});
    }
}

// In a forked child it must not say goodbye on the parent's connection.
Connection::~Connection() {
    if (mark_.inherited()) {
        leave_to_parent(conn_);
        return;
    }
    if (PQsocket(conn_) >= 0) {
        forget_in_children(PQsocket(conn_));
    }
    PQfinish(conn_);
}

void Connection::notice(void* self, const PGresult* result) {
    const char* const severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity != nullptr && std::string_view(severity) == "WARNING") {
        static_cast<Connection*>(self)->warned_ = true;
    }
}

bool Connection::send(const Query& query, bool wanted) {
    const Statement& statement = *query.statement;
    const int count = static_cast<int>(query.parameters.size());
    std::vector<const char*> values;
    std::vector<int> lengths;
    for (const std::string& parameter : query.parameters) {
        values.push_back(parameter.data());
        lengths.push_back(static_cast<int>(parameter.size()));
    }
    const std::vector<int> formats(query.parameters.size(), 1);
    if (!settings_.prepared || statement.name.empty()) {
        sent_.push_back({wanted});
        return PQsendQueryParams(conn_, statement.sql.c_str(), count, nullptr, values.data(),
                                 lengths.data(), formats.data(), 1) != 0;
    }
    const bool prepared =
        prepared_.contains(statement.name) ||
        std::ranges::any_of(sent_, [&](const Sent& sent) { return sent.prepares == &statement; });
    if (!prepared) {
        sent_.push_back({.prepares = &statement});
        if (PQsendPrepare(conn_, statement.name.c_str(), statement.sql.c_str(), 0, nullptr) == 0) {
            return false;
        }
    }
    sent_.push_back({wanted});
    return PQsendQueryPrepared(conn_, statement.name.c_str(), count, values.data(), lengths.data(),
                               formats.data(), 1) != 0;
}

bool Connection::wait(TimePoint deadline) {
    while (true) {
        const int flushed = PQflush(conn_);
        if (flushed < 0) {
            return true;  // PQgetResult says what is wrong
        }
        if (flushed == 0 && PQisBusy(conn_) == 0) {
            return true;
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
            return false;
        }
        pollfd socket{PQsocket(conn_), static_cast<short>(flushed == 0 ? POLLIN : POLLIN | POLLOUT),
                      0};
        const int ready =
            ::poll(&socket, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 60'000)));
        if (ready < 0 && errno != EINTR) {
            return true;
        }
        if (ready > 0 && (socket.revents & ~POLLOUT) != 0 && PQconsumeInput(conn_) == 0) {
            return true;
        }
    }
}

Reply<std::vector<Table>> Connection::collect(TimePoint deadline) {
    std::vector<Table> tables;
    std::optional<Trouble> trouble;
    std::size_t at = 0;  // whose results come now
    while (true) {
        if (!wait(deadline)) {
            return std::unexpected(lost("no answer in time"));
        }
        PGresult* const result = PQgetResult(conn_);
        if (result == nullptr) {
            if (PQstatus(conn_) != CONNECTION_OK || at >= sent_.size()) {
                return std::unexpected(lost(one_line(PQerrorMessage(conn_))));
            }
            ++at;
            continue;
        }
        Table table(result);
        switch (PQresultStatus(result)) {
            case PGRES_PIPELINE_SYNC:
                if (PQexitPipelineMode(conn_) == 0) {
                    abandoned_ = true;
                }
                if (trouble) {
                    return std::unexpected(*std::move(trouble));
                }
                if (std::cmp_not_equal(std::ranges::count_if(sent_, &Sent::wanted),
                                       tables.size())) {
                    return std::unexpected(lost("it answered something else than was asked"));
                }
                return tables;
            case PGRES_COMMAND_OK:
            case PGRES_TUPLES_OK:
                if (at < sent_.size() && sent_[at].wanted) {
                    tables.push_back(std::move(table));
                } else if (at < sent_.size() && sent_[at].prepares != nullptr) {
                    prepared_.insert(sent_[at].prepares->name);
                }
                break;
            case PGRES_PIPELINE_ABORTED:
                break;
            default:
                if (!trouble) {
                    trouble = refused(table);
                }
                if (PQstatus(conn_) != CONNECTION_OK) {
                    trouble->unknown = true;
                    abandoned_ = true;
                    return std::unexpected(*std::move(trouble));
                }
        }
    }
}

Reply<std::vector<Table>> Connection::step(std::span<const Query> queries, TimePoint deadline) {
    warned_ = false;
    sent_.clear();
    if (abandoned_ || PQenterPipelineMode(conn_) == 0) {
        return std::unexpected(lost("it is in use or lost"));
    }
    for (const Query& query : queries) {
        if (!send(query, true)) {
            return std::unexpected(lost(one_line(PQerrorMessage(conn_))));
        }
    }
    if (PQpipelineSync(conn_) == 0) {
        return std::unexpected(lost(one_line(PQerrorMessage(conn_))));
    }
    auto tables = collect(deadline);
    if (!tables && !abandoned_) {
        roll_back(deadline);
    }
    return tables;
}

std::vector<Query> Connection::beginning() const {
    std::vector<Query> steps = {{settings_.begin}};
    if (settings_.local != nullptr) {
        steps.push_back({settings_.local});
    }
    return steps;
}

Reply<std::vector<Table>> Connection::transact(std::span<const Query> queries, TimePoint deadline) {
    std::vector<Query> all = beginning();
    const auto first = static_cast<std::ptrdiff_t>(all.size());
    all.insert(all.end(), queries.begin(), queries.end());
    all.push_back({settings_.commit});
    auto tables = step(all, deadline);
    if (tables) {
        tables->pop_back();
        tables->erase(tables->begin(), tables->begin() + first);
    }
    return tables;
}

Reply<std::vector<Table>> Connection::ask(std::span<const Query> queries, TimePoint deadline) {
    return settings_.local == nullptr ? step(queries, deadline) : transact(queries, deadline);
}

Reply<Table> Connection::run(const Query& query, TimePoint deadline) {
    auto tables = DEDUP_TRY(ask({&query, 1}, deadline));
    return std::move(tables.front());
}

Reply<void> Connection::script(const std::string& sql, TimePoint deadline) {
    warned_ = false;
    if (abandoned_ || PQsendQuery(conn_, sql.c_str()) == 0) {
        return std::unexpected(lost(one_line(PQerrorMessage(conn_))));
    }
    std::optional<Trouble> trouble;
    while (true) {
        if (!wait(deadline)) {
            return std::unexpected(lost("no answer in time"));
        }
        PGresult* const result = PQgetResult(conn_);
        if (result == nullptr) {
            break;
        }
        const Table table(result);
        if (table.failed() && !trouble) {
            trouble = refused(table);
        }
    }
    if (trouble) {
        return std::unexpected(*std::move(trouble));
    }
    return {};
}

void Connection::roll_back(TimePoint deadline) {
    if (PQtransactionStatus(conn_) == PQTRANS_IDLE) {
        return;
    }
    // A moment more, or a connection is lost for every error at the end of the time.
    const auto moment = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    if (!script("ROLLBACK", std::max(deadline, moment))) {
        abandoned_ = true;
    }
}

Trouble Connection::lost(std::string_view why) {
    abandoned_ = true;
    return {.error = {.code = Code::unavailable,
                      .message = fmt::format("the connection to PostgreSQL at {} was lost: {}",
                                             PQhost(conn_) == nullptr ? "?" : PQhost(conn_), why)},
            .unknown = true};
}

}  // namespace dedup::pg
