#include "postgres/transaction_store.hpp"

#include <fmt/format.h>

#include <utility>

#include "contract/check_stream.hpp"
#include "postgres/head_rows.hpp"
#include "postgres/libpq.hpp"
#include "postgres/schema.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

std::unexpected<Error> not_here() {
    return std::unexpected(
        Error{Code::invalid_argument, "this is not part of a transaction; use open_postgres()"});
}

}  // namespace

TransactionStore::TransactionStore(PGconn* connection, const std::string& schema)
    : StreamStore([this] { return server_ms(); }, kDefaultGrace, StoreClock::Jumps::ignore),
      conn_(connection),
      schema_(quote_schema(schema)),
      statements_(schema_.value_or("dedup"), false, {}),  // the session is the caller's
      now_{"", in_schema("SELECT @.now_ms()", schema_.value_or("dedup"))},
      set_wait_{"",
                "SELECT current_setting('lock_timeout'), "
                "set_config('lock_timeout', $1::text, true)"} {}

Result<Table> TransactionStore::run(const Query& query) {
    std::vector<const char*> values;
    std::vector<int> lengths;
    for (const std::string& parameter : query.parameters) {
        values.push_back(parameter.data());
        lengths.push_back(static_cast<int>(parameter.size()));
    }
    const std::vector<int> formats(query.parameters.size(), 1);
    Table table(PQexecParams(conn_, query.statement->sql.c_str(),
                             static_cast<int>(query.parameters.size()), nullptr, values.data(),
                             lengths.data(), formats.data(), 1));
    if (!table.failed()) {
        return table;
    }
    sqlstate_ = table.sqlstate();
    return std::unexpected(table.error());
}

Result<void> TransactionStore::check() {
    if (!schema_) {
        return std::unexpected(schema_.error());
    }
    DEDUP_TRY(load_libpq());
    switch (PQtransactionStatus(conn_)) {
        case PQTRANS_INTRANS:
            break;
        case PQTRANS_IDLE:
            return std::unexpected(Error{Code::invalid_argument,
                                         "no transaction is open on the connection; BEGIN first"});
        case PQTRANS_INERROR:
            return std::unexpected(Error{Code::invalid_argument,
                                         "the transaction has failed; ROLLBACK, and begin again"});
        default:
            return std::unexpected(
                Error{Code::unavailable, "the connection is lost, or in use by another call"});
    }
    if (checked_) {
        return {};
    }
    const auto meta = run({&statements_.meta});
    if (!meta) {
        return std::unexpected(meta.error());
    }
    DEDUP_TRY(check_format(meta->size() == 1 ? meta->number(0, 0) : 0, "of the store"));
    checked_ = true;
    return {};
}

std::int64_t TransactionStore::server_ms() {
    const auto now = run({&now_});
    return now && now->size() == 1 ? now->number(0, 0) : 0;
}

std::vector<Result<std::optional<Record>>> TransactionStore::heads(
    std::span<const StreamKey> streams) {
    std::vector<Result<std::optional<Record>>> heads;
    for (const StreamKey& stream : streams) {
        if (auto named = check_stream(stream); !named) {
            heads.emplace_back(std::unexpected(std::move(named).error()));
            continue;
        }
        auto table = run({&statements_.heads.one, stream_parameters({&stream, 1})});
        if (!table) {
            heads.emplace_back(std::unexpected(std::move(table).error()));
        } else if (table->size() == 0) {
            heads.emplace_back(std::nullopt);
        } else {
            heads.emplace_back(read_head(*table, 0));
        }
    }
    return heads;
}

std::vector<Result<std::uint64_t>> TransactionStore::append(std::span<const Append> batch,
                                                            Batch mode) {
    std::vector<Result<std::uint64_t>> results;
    for (const Append& item : batch) {
        results.push_back(mode == Batch::each ? append_one(item)
                                              : Result<std::uint64_t>(not_here()));
    }
    return results;
}

// Within a savepoint, so that a wait that was too long does not end the caller's transaction.
Result<std::uint64_t> TransactionStore::append_one(const Append& item) {
    DEDUP_TRY(check_record(item.record));
    const Statement save{"", "SAVEPOINT dedup_append"};
    const Statement release{"", "RELEASE SAVEPOINT dedup_append"};
    const Statement back{"", "ROLLBACK TO SAVEPOINT dedup_append"};
    if (auto saved = run({&save}); !saved) {
        return std::unexpected(std::move(saved).error());
    }
    auto landed = write(item);
    const bool failed = PQtransactionStatus(conn_) == PQTRANS_INERROR;
    const std::string sqlstate = sqlstate_;
    if (failed) {
        static_cast<void>(run({&back}));
    }
    auto released = run({&release});
    sqlstate_ = sqlstate;
    if (failed && sqlstate == "55P03") {
        return std::unexpected(
            Error{Code::busy, fmt::format("another transaction has stream {}",
                                          stream_name(item.record.ns, item.record.key))});
    }
    if (landed && !released) {
        return std::unexpected(std::move(released).error());
    }
    return landed;
}

Result<std::uint64_t> TransactionStore::write(const Append& item) {
    const auto before =
        run({&set_wait_, {fmt::format("{}ms", std::max<std::int64_t>(1, wait_.count()))}});
    if (!before) {
        return std::unexpected(before.error());
    }
    const auto block = run({&statements_.block});
    if (!block) {
        return std::unexpected(block.error());
    }
    const Row row{&item, bucket_of({item.record.ns, item.record.key}),
                  static_cast<std::uint64_t>(block->number(0, 0)) * kBlockSequences};
    const bool update = item.expected_sequence != 0;
    const auto written = run({&(update ? statements_.update : statements_.insert).one,
                              batch_parameters({&row, 1}, update)});
    if (!written) {
        return std::unexpected(written.error());
    }
    if (auto after = run({&set_wait_, {std::string(before->bytes(0, 0))}}); !after) {
        return std::unexpected(after.error());
    }
    if (written->size() == 0) {
        return std::unexpected(Error{
            .code = Code::sequence_conflict,
            .message =
                fmt::format("stream {}: the head is another than {}",
                            stream_name(item.record.ns, item.record.key), item.expected_sequence)});
    }
    return row.sequence;
}

Result<std::vector<Version>> TransactionStore::history(StreamKey, const HistoryLimits&) {
    return not_here();
}

Result<ScanPage> TransactionStore::scan(const ScanOptions&) {
    return not_here();
}

Result<SweepReport> TransactionStore::sweep(const SweepOptions&) {
    return not_here();
}

Result<std::vector<SweepReport>> TransactionStore::sweep_history() {
    return not_here();
}

Result<StoreStats> TransactionStore::stats() {
    return not_here();
}

}  // namespace dedup::pg
