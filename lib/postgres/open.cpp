// Opening a store in a database, and making one.
#include <fmt/format.h>

#include <utility>

#include "dedup/postgres_store.hpp"
#include "postgres/postgres_store.hpp"
#include "postgres/schema.hpp"
#include "record/try.hpp"

namespace dedup {
namespace pg {
namespace {

// Two that make one schema at the same time: the second finds what the first has made.
constexpr std::string_view kLockInit = "SELECT pg_advisory_xact_lock(4873264917264);\n";

// Nobody else's operators get into what is made.
constexpr std::string_view kOwnNames = "SET LOCAL search_path = pg_catalog, pg_temp;\n";

constexpr std::string_view kMakeSchema = R"sql(
DO $$ BEGIN
    IF to_regnamespace('@') IS NULL THEN CREATE SCHEMA @; END IF;
END $$;
)sql";

Error explained(const Trouble& trouble) {
    Error error = trouble.error;
    if (trouble.sqlstate == "42501") {
        error.message +=
            "; somebody who may create a schema in the database has to do this, or to give the "
            "role a schema of its own";
    }
    return error;
}

Result<PostgresInit> init(const Target& target) {
    const Statements statements(target.schema,
                                target.options.durability == PostgresDurability::local,
                                target.options.timeout);
    ServerClock clock;
    Pool pool(target, statements, clock);
    const auto deadline = [&] { return std::chrono::steady_clock::now() + target.options.timeout; };
    auto lease = DEDUP_TRY(pool.try_once(deadline()));
    const auto meta = [&]() { return lease->run({&statements.meta}, deadline()); };
    auto found = meta();
    PostgresInit outcome = PostgresInit::was_there;
    std::string sql = fmt::format("BEGIN;\n{}{}", kOwnNames, kLockInit);
    if (!found) {
        if (found.error().sqlstate != "42P01" && found.error().sqlstate != "3F000") {
            return std::unexpected(explained(found.error()));
        }
        outcome = PostgresInit::created;
        sql += in_schema(kMakeSchema, target.schema);
        sql += in_schema(kSchemaSql, target.schema);
    } else if (found->size() == 1 && found->number(0, 0) < kFormat) {
        outcome = PostgresInit::upgraded;
    } else if (found->size() == 1) {
        DEDUP_TRY(check_format(found->number(0, 0), target.options.schema));
    }
    for (const std::string_view part : {kBaseFunctionsSql, kRestFunctionsSql, kClaimFunctionsSql,
                                        kEndFunctionsSql, kDecisionFunctionsSql, kFormatSql}) {
        sql += in_schema(part, target.schema);
    }
    sql += "COMMIT;\n";
    if (auto made = lease->script(sql, deadline()); !made) {
        // Somebody else may have been quicker.
        static_cast<void>(lease->script("ROLLBACK", deadline()));
        if (made.error().sqlstate == "42P07" && meta()) {
            return PostgresInit::was_there;
        }
        return std::unexpected(explained(made.error()));
    }
    return outcome;
}

}  // namespace
}  // namespace pg

Result<std::unique_ptr<StreamStore>> open_postgres(const std::string& url,
                                                   const PostgresOptions& options) {
    auto target = DEDUP_TRY(pg::parse_target(url, options));
    auto time = std::make_shared<pg::TimeSource>();
    time->given = target.options.clock;
    auto store = std::make_unique<pg::PostgresStore>(std::move(target), std::move(time));
    DEDUP_TRY(store->begin());
    return store;
}

Result<PostgresInit> init_postgres(const std::string& url, const PostgresOptions& options) {
    auto target = DEDUP_TRY(pg::parse_target(url, options));
    return pg::init(target);
}

}  // namespace dedup
