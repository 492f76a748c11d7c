// The SQL functions where others have chosen the arguments, the session or the schema.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "postgres/helpers.hpp"

namespace dedup::test {
namespace {

TEST_CASE("functions: bad arguments are refused by name") {
    NEEDS_POSTGRES();
    const Schema schema;
    SchemaClient client(schema);
    struct Bad {
        const char* call;
        const char* message;
    };
    const std::vector<Bad> all = {
        {"claim(NULL, 'k')", "ns is null"},
        {"claim('', 'k')", "ns must be"},
        {"lookup(E'a\nb', 'k')", "ns must be"},
        {"lookup(E'caf\u00e9', 'k')", "ns must be"},
        {"lookup(repeat('n', 256), 'k')", "ns must be"},
        {"claim('n', NULL)", "key is null"},
        {"claim('n', '')", "key is empty; it needs 1 to 1,024 bytes"},
        {"claim('n', convert_to(repeat('k', 1025), 'UTF8'))", "key is 1,025 bytes"},
        {"claim('n', 'k', NULL)", "owner is null"},
        {"claim('n', 'k', '', 0)", "lease_ms is 0"},
        {"claim('n', 'k', ttl_ms => -1)", "ttl_ms is -1"},
        {"claim('n', 'k', fingerprint => NULL)", "fingerprint is null"},
        {"claim('n', 'k', event_id => NULL)", "event_id is null"},
        {"claim('n', 'k', metadata => NULL)", "metadata is null"},
        {"claim('n', 'k', metadata => convert_to(repeat('m', 65537), 'UTF8'))",
         "metadata is 65,537 bytes; at most 65,536"},
        {"claim('n', 'k', unanswered => NULL)", "unanswered is null"},
        {"claim('n', 'k', unanswered => 'wait')", "unanswered is wait"},
        {"claim('n', 'k', attempts_max => NULL)", "attempts_max is null"},
        {"claim('n', 'k', attempts_max => -1)", "attempts_max is -1"},
        {"remember('n', 'k', NULL)", "receipt is null"},
        {"complete('n', 'k', NULL, 'r')", "fence is null"},
        {"complete('n', 'k', 1, NULL)", "receipt is null"},
        {"complete('n', 'k', 1, 'r', 0)", "ttl_ms is 0"},
        {"release('n', 'k', NULL)", "fence is null"},
        {"renew('n', 'k', NULL, 1)", "fence is null"},
        {"renew('n', 'k', 1, NULL)", "lease_ms is null"},
        {"note('n', 'k', NULL, 'm')", "fence is null"},
        {"note('n', 'k', 1, NULL)", "metadata is null"},
        {"hold('n', 'k', NULL, 'r')", "fence is null"},
        {"hold('n', 'k', 1, NULL)", "reason is null"},
        {"resolve('n', 'k', NULL, false, 'r')", "fence is null"},
        {"resolve('n', 'k', 0, false, 'r')", "fence is 0"},
        {"resolve('n', 'k', 1, NULL, 'r')", "done is null"},
        {"resolve('n', 'k', 1, true, 'r')", "receipt is null"},
        {"resolve('n', 'k', 1, false, 'r', receipt => 'x')", "receipt is given"},
        {"resolve('n', 'k', 1, false, '')", "reason is empty"},
        {"resolve('n', 'k', 1, false, NULL)", "reason is null"},
        {"resolve('n', 'k', 1, false, 'r', NULL)", "by is null"},
        {"forget('n', 'k', NULL, 'r')", "fence is null"},
        {"forget('n', 'k', 0, '')", "reason is empty"},
        {"forget('n', 'k', 0, convert_to(repeat('r', 4097), 'UTF8'))", "reason is 4,097 bytes"},
        {"forget('n', 'k', 0, 'r', NULL)", "by is null"},
        {"held(NULL)", "ns is null"},
        {"lookup('n', NULL)", "key is null"},
    };
    for (const auto& [call, message] : all) {
        CAPTURE(std::string(call));
        const std::string refusal = client.answer(std::string("SELECT ") + call);
        CHECK_MESSAGE(refusal.starts_with("22023 "), refusal);
        CHECK_MESSAGE(refusal.contains(message), refusal);
    }
    CHECK(client.row("SELECT count(*) FROM head")[0] == "0");
}

TEST_CASE("functions: no name is ever code") {
    NEEDS_POSTGRES();
    const Schema schema;
    SchemaClient client(schema);
    const std::string hostile = "'; DROP TABLE head; -- $1 %s \\";
    const auto call = [&](const std::string& what) {
        return client.row("SELECT " + what, {{hostile, false}, {hostile, true}})[0];
    };
    const std::string fence = call("fence FROM claim($1, $2::bytea, $2::bytea)");
    CHECK(call("note($1, $2::bytea, " + fence + ", $2::bytea)") == "noted");
    CHECK(call("hold($1, $2::bytea, " + fence + ", $2::bytea)") == "held");
    CHECK(call("outcome FROM held($1) WHERE key = $2::bytea") == "held");
    CHECK(call("resolve($1, $2::bytea, " + fence + ", true, $2::bytea, $2::bytea, $2::bytea)") ==
          "completed");
    const auto store = schema.open();
    Cache cache(*store, {.ns = hostile});
    CHECK(std::get<Completed>(cache.lookup(hostile).value()).receipt == hostile);
    CHECK(store->head({hostile, hostile}).value()->verdict ==
          Verdict{Verdict::Kind::resolved, hostile, hostile});
    CHECK(call("forget($1, $2::bytea, 0, $2::bytea)") == "forgotten");
}

TEST_CASE("functions: a longest text is written as the library writes it") {
    NEEDS_POSTGRES();
    const Schema schema;
    SchemaClient client(schema);
    const std::string fence = client.row("SELECT fence FROM claim('n', 'k')")[0];
    CHECK(client.row("SELECT resolve('n', 'k', " + fence +
                     ", false, convert_to(repeat('r', 4096), 'UTF8'), "
                     "convert_to(repeat('b', 1024), 'UTF8'))")[0] == "released");
    const auto store = schema.open();
    const auto head = store->head({"n", "k"});
    REQUIRE_MESSAGE(head.has_value(), head.error().message);
    CHECK(head->value().verdict ==
          Verdict{Verdict::Kind::resolved, std::string(1'024, 'b'), std::string(4'096, 'r')});
}

// Every function once, in a session that somebody has prepared; fails if one answers otherwise.
void use_all(Client& client, const Schema& schema, const std::string& key) {
    const auto call = [&](const std::string& what, const std::string& from = "") {
        return client.row("SELECT " + from + " " + schema.options.schema + "." + what,
                          {{key, true}})[0];
    };
    const auto fence = [&] { return call("lookup('n', $1::bytea)", "fence FROM"); };
    CHECK(call("claim('n', $1::bytea, lease_ms => 60000, unanswered => 'hold')", "outcome FROM") ==
          "claimed");
    CHECK(call("renew('n', $1::bytea, " + fence() + ", 60000)", "outcome FROM") == "renewed");
    CHECK(call("note('n', $1::bytea, " + fence() + ", 'm')") == "noted");
    CHECK(call("hold('n', $1::bytea, " + fence() + ", 'why')") == "held");
    CHECK(call("held('n') WHERE key = $1::bytea", "outcome FROM") == "held");
    CHECK(call("resolve('n', $1::bytea, " + fence() + ", false, 'why')") == "released");
    CHECK(call("remember('n', $1::bytea, 'r')", "outcome FROM") == "new");
    CHECK(call("forget('n', $1::bytea, 0, 'why')") == "forgotten");
    CHECK(call("claim('n', $1::bytea)", "previous_end FROM") == "forgotten");
    CHECK(call("release('n', $1::bytea, 0)") == "released");
    CHECK(call("claim('n', $1::bytea)", "attempt FROM") == "4");
    CHECK(call("complete('n', $1::bytea, " + fence() + ", 'r')") == "completed");
    CHECK(call("heads WHERE key = encode($1::bytea, 'escape')", "state FROM") == "completed");
}

TEST_CASE("functions: in sessions with other defaults") {
    // Guards against names, literals and plans that mean something else there.
    NEEDS_POSTGRES();
    const Schema schema;
    schema.sql(
        "CREATE SCHEMA IF NOT EXISTS evil;"
        "CREATE OR REPLACE FUNCTION evil.wrong(bytea, bytea) RETURNS bool LANGUAGE sql "
        "AS 'SELECT false';"
        "DROP OPERATOR IF EXISTS evil.<> (bytea, bytea);"
        "CREATE OPERATOR evil.<> (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = evil.wrong);"
        "CREATE OR REPLACE FUNCTION evil.octet_length(bytea) RETURNS int LANGUAGE sql "
        "AS 'SELECT 0';"
        "CREATE OR REPLACE FUNCTION evil.substring(bytea, int) RETURNS bytea LANGUAGE sql "
        "AS 'SELECT NULL::bytea';"
        "CREATE OR REPLACE FUNCTION evil.get_byte(bytea, int) RETURNS int LANGUAGE sql "
        "AS 'SELECT 7'");
    for (const char* const setting :
         {"search_path = evil, pg_catalog", "search_path = pg_temp", "search_path = ''",
          "standard_conforming_strings = off", "bytea_output = escape", "TimeZone = 'Asia/Tokyo'",
          "client_encoding = 'LATIN1'", "DateStyle = 'SQL, DMY'", "extra_float_digits = 0",
          "plpgsql.extra_errors = 'all'", "transform_null_equals = on", "enable_indexscan = off",
          "plan_cache_mode = force_generic_plan", "plan_cache_mode = force_custom_plan",
          "default_transaction_isolation = 'repeatable read'",
          "default_transaction_isolation = 'serializable'", "lc_numeric = 'C'"}) {
        CAPTURE(std::string(setting));
        Client client(schema.url());
        client.row(std::string("SET ") + setting);
        use_all(client, schema, setting);
    }
    CHECK(schema.sql("SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = "
                     "'@'::regnamespace AND proconfig IS DISTINCT FROM "
                     "'{\"search_path=pg_catalog, pg_temp\"}'") == "");
}

TEST_CASE("functions: a stream begins above what was swept") {
    // Guards against a fence that is lower than one that was given before.
    NEEDS_POSTGRES();
    const Schema schema;
    SchemaClient client(schema);
    client.row(
        "UPDATE meta SET sequence_floor = (((SELECT last_value FROM block) + 3) << 16) | 65535");
    CHECK(client.row("SELECT fence > sequence_floor FROM claim('n', 'k'), meta")[0] == "t");
    CHECK(client.row("SELECT fence = sequence FROM head")[0] == "t");
}

TEST_CASE("functions: a namespace from a column with a collation of its own") {
    NEEDS_POSTGRES();
    const Schema schema;
    SchemaClient client(schema);
    client.row("CREATE TEMP TABLE job (tenant text COLLATE \"POSIX\")");
    client.row("INSERT INTO job VALUES ('n')");
    CHECK(client.row("SELECT outcome FROM job, claim(tenant, 'k')")[0] == "claimed");
    CHECK(client.row("SELECT outcome FROM job, lookup(tenant, 'k')")[0] == "in_flight");
    CHECK(client.row("SELECT hold(tenant, 'k', fence, 'why') FROM job, lookup(tenant, 'k')")[0] ==
          "held");
    CHECK(client.row("SELECT key FROM job, held(tenant)")[0] == "\\x6b");
}

// Two calls about one key, of which the second comes too late.
struct TooLate {
    std::string before;  // what both find
    std::string wins;
    std::string loses;
    std::string answer;  // of the latter, once it sees the former
};

std::vector<TooLate> too_late() {
    const std::string claims = "(claim('n', 'k')).outcome";
    const std::string claimed = "(claim('n', 'k')).fence";
    const std::string fence = "(lookup('n', 'k')).fence";
    const std::string completes = "complete('n', 'k', " + fence + ", ";
    const std::string resolves = "resolve('n', 'k', " + fence + ", ";
    const std::string done = resolves + "true, 'why', 'ada', 'r')";
    return {{"1", claims, claims, "in_flight"},
            {"1", "(remember('n', 'k', 'r')).outcome", claims, "completed"},
            {"release('n', 'k', " + claimed + ")", claims, claims, "in_flight"},
            {claimed, completes + "'r')", "release('n', 'k', " + fence + ")", "nothing"},
            {claimed, completes + "'r')", completes + "'other')", "receipt_mismatch"},
            {claimed, done, resolves + "false, 'why', 'ada')", "receipt_mismatch"},
            {claimed, "note('n', 'k', " + fence + ", 'm')", done, "completed"},
            {claimed, "hold('n', 'k', " + fence + ", 'why')",
             "(renew('n', 'k', " + fence + ", 1000)).outcome", "stale_claim"},
            {"(remember('n', 'k', 'r')).fence", "forget('n', 'k', 0, 'why')",
             "forget('n', 'k', 0, 'why')", "nothing"}};
}

// Runs each race at each level. play(race) gives what the loser is told.
void at_each_level(SchemaClient& winner, SchemaClient& loser, const auto& play) {
    for (const std::string level : {"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}) {
        for (const TooLate& race : too_late()) {
            CAPTURE(level);
            CAPTURE(race.wins);
            CAPTURE(race.loses);
            winner.row("DELETE FROM head");
            winner.row("SELECT " + race.before);
            winner.row("BEGIN ISOLATION LEVEL " + level);
            loser.row("BEGIN ISOLATION LEVEL " + level);
            const std::string told = play(race);
            if (level == "READ COMMITTED") {
                CHECK(told == race.answer);
                loser.row("COMMIT");
                continue;
            }
            CHECK_MESSAGE(told.starts_with("40001 "), told);
            loser.row("ROLLBACK");
            CHECK(loser.row("SELECT " + race.loses)[0] == race.answer);
        }
    }
}

TEST_CASE("functions: who looks at an old snapshot is told to begin again, or sees who was first") {
    // Guards against two winners in transactions that last.
    NEEDS_POSTGRES();
    const Schema schema;
    SchemaClient winner(schema);
    SchemaClient loser(schema);
    at_each_level(winner, loser, [&](const TooLate& race) {
        loser.row("SELECT count(*) FROM head");  // takes the snapshot
        winner.row("SELECT " + race.wins);
        winner.row("COMMIT");
        return loser.answer("SELECT " + race.loses);
    });
}

TEST_CASE("functions: who waits for another transaction sees what it did, or begins again") {
    // Guards against a head that is written over once its lock is free.
    NEEDS_POSTGRES();
    const Schema schema;
    SchemaClient winner(schema);
    SchemaClient loser(schema);
    SchemaClient watcher(schema);
    at_each_level(winner, loser, [&](const TooLate& race) {
        winner.row("SELECT " + race.wins);
        std::string told;
        std::thread waiting([&] { told = loser.answer("SELECT " + race.loses); });
        while (watcher.row("SELECT count(*) FROM pg_locks WHERE NOT granted")[0] == "0") {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        winner.row("COMMIT");
        waiting.join();
        return told;
    });
}

std::string text_of(const std::filesystem::path& file) {
    std::ifstream in(file);
    REQUIRE(in.good());
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

TEST_CASE("functions: a schema of format 2 is brought up to date, with what its functions left") {
    // Guards against old functions that stay beside new ones, or rights and claims that go.
    NEEDS_POSTGRES();
    Schema schema;
    schema.sql("DROP SCHEMA @ CASCADE");
    schema.sql(text_of(std::filesystem::path(DEDUP_SOURCE_ROOT) / "tests" / "golden" /
                       "postgres_format_2.sql"));
    schema.sql("CREATE ROLE " + schema.options.schema + "_reader");
    schema.sql("GRANT SELECT ON @.heads TO " + schema.options.schema + "_reader");
    SchemaClient client(schema);
    const std::string fence = client.row("SELECT fence FROM claim('n', 'k', 'w', 60000)")[0];
    // What `hold` of the library wrote, and what the old completion left of it.
    client.row(
        "UPDATE head SET expires_ms = 0, expiry_slot = 0, rest = "
        "'\\x010101012d02012d1001018104010177' || 'y'::bytea");
    CHECK(client.row("SELECT outcome FROM lookup('n', 'k')")[0] == "held");
    CHECK(client.row("SELECT complete('n', 'k', " + fence + ", 'r')")[0] == "completed");
    client.row("SELECT claim('n', 'other')");

    CHECK(init_postgres(schema.url(), schema.options).value() == PostgresInit::upgraded);
    CHECK(client.row("SELECT outcome FROM claim('n', 'k')")[0] == "completed");
    CHECK(client.row("SELECT outcome, unanswered FROM lookup('n', 'other')") ==
          std::vector<std::string>{"in_flight", "rerun"});
    CHECK(client.row("SELECT forget('n', 'k', " + fence + ", 'why')")[0] == "forgotten");
    use_all(client, schema, "new");
    CHECK(schema.sql("SELECT count(*) FROM (SELECT 1 FROM pg_proc WHERE pronamespace = "
                     "'@'::regnamespace GROUP BY proname HAVING count(*) > 1) twice") == "0");
    CHECK(schema.sql("SELECT count(*) FROM pg_proc WHERE pronamespace = '@'::regnamespace AND "
                     "proname IN ('hold_place', 'holds', 'put_on_hold', 'ended')") == "0");
    CHECK(schema.sql("SELECT has_table_privilege('" + schema.options.schema +
                     "_reader', '@.heads', 'SELECT')") == "t");
    CHECK(init_postgres(schema.url(), schema.options).value() == PostgresInit::was_there);
    use_all(client, schema, "again");
}

}  // namespace
}  // namespace dedup::test
