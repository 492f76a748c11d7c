// What can be wrong with a server, a role, a URL: an error that names it and the way out.
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "dedup/log_store.hpp"
#include "postgres/helpers.hpp"
#include "postgres/proxy.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

Append claim_of(const std::string& key, std::string receipt = "") {
    Append append;
    append.record.ns = "trouble";
    append.record.key = key;
    if (!receipt.empty()) {
        append.record.receipt = std::move(receipt);
    }
    return append;
}

Result<std::uint64_t> append_key(StreamStore& store, const std::string& key) {
    const auto claim = claim_of(key);
    return store.append({&claim, 1}).front();
}

// A role of the shared server with these settings; its URL.
std::string url_of_role(const Schema& schema, const std::string& settings,
                        const std::string& password = "") {
    const std::string role = "role_" + schema.options.schema;
    schema.sql("DO $$ BEGIN CREATE ROLE " + role +
               " LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object THEN END $$; "
               "ALTER ROLE " +
               role + " RESET ALL");
    schema.sql("GRANT USAGE ON SCHEMA @ TO " + role +
               "; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA @ TO " + role +
               "; GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA @ TO " + role);
    if (!settings.empty()) {
        schema.sql("ALTER ROLE " + role + " SET " + settings);
    }
    return "postgresql://" + role + (password.empty() ? "" : ":" + password) +
           "@/postgres?host=" + PostgresServer::shared().directory();
}

TEST_CASE("trouble: URLs that make no sense") {
    // Guards against a statement, or a connection, that is made of what somebody has typed.
    NEEDS_POSTGRES();
    const std::string url = Schema::url();
    const auto bad = [&](const std::string& parameters, std::string_view word) {
        refused(open_postgres(url + parameters), Code::invalid_argument, word);
        refused(init_postgres(url + parameters), Code::invalid_argument, word);
    };
    for (const char* const schema :
         {"", "1a", "a-b", "a%22b", "a;drop", "a b", "caf\xc3\xa9", "a.b", "a@b"}) {
        bad(std::string("&schema=") + schema, "schema's name");
    }
    bad("&schema=" + std::string(64, 'a'), "schema's name");
    bad("&durability=none", "local or failover");
    bad("&prepared=no", "true or false");
    bad("&connections=many", "a number");
    bad("&connections=0", "connections_max");
    bad("&nonsense=1", "nonsense");
    refused(open_postgres("mysql://host/db"), Code::invalid_argument, "postgresql://");
    refused(open_postgres(url, {.timeout = milliseconds(1)}), Code::invalid_argument, "timeout");
}

TEST_CASE("trouble: no server, no database, no such user, a wrong password") {
    NEEDS_POSTGRES();
    const Schema schema;
    PostgresOptions options = schema.options;
    const std::string host = PostgresServer::shared().directory();
    refused(open_postgres("postgresql:///postgres?host=/nowhere", options), Code::unavailable,
            "/nowhere");
    refused(open_postgres("postgresql://dedup@/nothing?host=" + host, options),
            Code::invalid_argument, "nothing");
    refused(open_postgres("postgresql://nobody@/postgres?host=" + host, options),
            Code::invalid_argument, "nobody");
    PostgresServer::shared().admit("local all role_" + schema.options.schema + " scram-sha-256");
    refused(open_postgres(url_of_role(schema, "", "wrong"), options), Code::invalid_argument,
            "password");
    const auto right = open_postgres(url_of_role(schema, "", "right"), options);
    REQUIRE_MESSAGE(right.has_value(), right.error().message);
    CHECK(append_key(**right, "k").has_value());
}

TEST_CASE("trouble: no schema, a newer one, and one that is there already") {
    NEEDS_POSTGRES();
    const Schema schema;
    refused(open_postgres(schema.url() + "&schema=not_there"), Code::invalid_argument,
            "dedupctl init");
    CHECK(init_postgres(schema.url(), schema.options).value() == PostgresInit::was_there);
    const auto store = schema.open();
    REQUIRE(append_key(*store, "k").has_value());
    CHECK(init_postgres(schema.url(), schema.options).value() == PostgresInit::was_there);
    CHECK(store->stats().value().in_flight == 1);
    schema.sql("UPDATE @.meta SET format = 99");
    refused(open_postgres(schema.url(), schema.options), Code::unsupported_version, "99");
    refused(init_postgres(schema.url(), schema.options), Code::unsupported_version, "99");
    schema.sql("UPDATE @.meta SET format = 1");
    refused(open_postgres(schema.url(), schema.options), Code::unsupported_version,
            "dedupctl init");
    CHECK(init_postgres(schema.url(), schema.options).value() == PostgresInit::upgraded);
    // One open for all engines.
    const auto same = open(schema.url() + "&schema=" + schema.options.schema);
    REQUIRE_MESSAGE(same.has_value(), same.error().message);
    CHECK((*same)->stats().value().store_id == store->stats().value().store_id);
}

TEST_CASE("trouble: a role that may do less") {
    NEEDS_POSTGRES();
    const Schema schema;
    const std::string reader = url_of_role(schema, "default_transaction_read_only = on");
    refused(open_postgres(reader, schema.options), Code::read_only, "read-only");
    PostgresOptions reading = schema.options;
    reading.read_only = true;
    const auto store = open_postgres(reader, reading);
    REQUIRE_MESSAGE(store.has_value(), store.error().message);
    CHECK(!(*store)->head({"trouble", "k"}).value());
    refused(append_key(**store, "k"), Code::read_only, "reading only");

    const std::string writer = url_of_role(schema, "");
    schema.sql("REVOKE INSERT ON @.head FROM role_" + schema.options.schema);
    const auto other = open_postgres(writer, schema.options);
    REQUIRE_MESSAGE(other.has_value(), other.error().message);
    refused(append_key(**other, "k"), Code::invalid_argument, "docs/postgres.md");
    refused(init_postgres(writer + "&schema=of_its_own"), Code::invalid_argument,
            "create a schema");
}

TEST_CASE("trouble: a role with other defaults") {
    // Guards against durability and isolation that somebody else has chosen.
    NEEDS_POSTGRES();
    const Schema schema;
    for (const char* const settings :
         {"synchronous_commit = off", "default_transaction_isolation = 'serializable'",
          "plan_cache_mode = force_custom_plan", "default_transaction_deferrable = on",
          "bytea_output = escape", "extra_float_digits = 0", "client_encoding = 'LATIN1'",
          "standard_conforming_strings = off", "TimeZone = 'Asia/Kathmandu'", "lc_messages = 'C'",
          "search_path = pg_temp"}) {
        CAPTURE(std::string(settings));
        const auto store = open_postgres(url_of_role(schema, settings), schema.options);
        REQUIRE_MESSAGE(store.has_value(), store.error().message);
        const auto landed = append_key(**store, settings);
        REQUIRE_MESSAGE(landed.has_value(), landed.error().message);
        CHECK((*store)->head({"trouble", settings}).value()->sequence == *landed);
    }
}

TEST_CASE("trouble: init takes what open takes") {
    NEEDS_POSTGRES();
    const Schema schema;
    for (const char* const level : {"off", "local", "remote_write", "remote_apply"}) {
        CAPTURE(std::string(level));
        const std::string url =
            Schema::url() + "&options=-csynchronous_commit%3D" + std::string(level);
        const auto made = init_postgres(url, schema.options);
        CHECK_MESSAGE(made.has_value(), (made ? "" : made.error().message));
        CHECK(open_postgres(url, schema.options).has_value());
    }
}

TEST_CASE("trouble: a statement timeout is an error, and nothing is lost") {
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store =
        open_postgres(url_of_role(schema, "statement_timeout = 200"), schema.options);
    REQUIRE_MESSAGE(store.has_value(), store.error().message);
    REQUIRE(append_key(**store, "before").has_value());
    Client locker(schema.url());
    locker.row("BEGIN");
    locker.row("LOCK TABLE " + schema.options.schema + ".head");
    refused(append_key(**store, "k"), Code::unavailable, "statement_timeout");
    refused((*store)->head({"trouble", "before"}), Code::unavailable, "statement_timeout");
    locker.row("ROLLBACK");
    CHECK(!(*store)->head({"trouble", "k"}).value());
    CHECK(append_key(**store, "k").has_value());
}

TEST_CASE("trouble: a server that would lose what it acknowledges has to be asked for by name") {
    NEEDS_POSTGRES();
    PostgresServer server;
    PostgresOptions options;
    REQUIRE(init_postgres(server.url(), options).has_value());
    REQUIRE(open_postgres(server.url(), options).has_value());  // nobody to fail over to
    server.sql("SELECT pg_create_physical_replication_slot('standby')");
    refused(open_postgres(server.url(), options), Code::failed, "durability=local");
    CHECK(open_postgres(server.url() + "&durability=local", options).has_value());
    server.sql("SELECT pg_drop_replication_slot('standby')");
    server.stop(SIGINT);
    server.start();
    const auto store = open_postgres(server.url(), options);
    REQUIRE(store.has_value());

    // A standby that is not there: commits wait. One whose wait is cancelled is not replicated,
    // though the server says that it has succeeded.
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.sql("SELECT pg_reload_conf()");
    options.timeout = milliseconds(1'000);
    const auto waiting = open_postgres(server.url(), options);
    REQUIRE(waiting.has_value());
    Result<std::uint64_t> result = 0;
    std::thread writer([&] { result = append_key(**waiting, "k"); });
    for (int i = 0; i < 60; ++i) {
        server.sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'dedup' AND wait_event = 'SyncRep'");
        std::this_thread::sleep_for(milliseconds(20));
    }
    writer.join();
    REQUIRE(!result.has_value());
    CHECK_MESSAGE(
        (result.error().code == Code::outcome_unknown || result.error().code == Code::unavailable),
        result.error().message);
    server.sql("ALTER SYSTEM RESET synchronous_standby_names");
    server.sql("SELECT pg_reload_conf()");
    CHECK(append_key(**waiting, "after").has_value());
}

TEST_CASE("trouble: a server that crashes and comes back") {
    // Guards against a connection, a statement or a block of sequences that is believed to last.
    NEEDS_POSTGRES();
    PostgresServer server;
    REQUIRE(init_postgres(server.url()).has_value());
    const auto store = open_postgres(server.url());
    REQUIRE(store.has_value());
    std::uint64_t last = 0;
    for (int round = 0; round < 3; ++round) {
        const std::string key = "key-" + std::to_string(round);
        const auto landed = append_key(**store, key);
        REQUIRE_MESSAGE(landed.has_value(), landed.error().message);
        CHECK(*landed > last);
        last = *landed;
        server.stop(SIGQUIT);
        server.start();
        CHECK((*store)->head({"trouble", key}).value()->sequence == last);
    }
}

TEST_CASE("trouble: another server, or a restored copy, gives other sequences") {
    // Guards against a fence that is given again after a failover that has lost it.
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store = schema.open();
    const auto before = append_key(*store, "before");
    REQUIRE(before.has_value());
    schema.sql("UPDATE @.meta SET identity = 'another'");
    const auto again = schema.open();
    const auto after = append_key(*again, "after");
    REQUIRE(after.has_value());
    CHECK(*after > *before + (std::uint64_t{1} << 32U));
    CHECK(schema.sql("SELECT identity = @.server_identity() FROM @.meta") == "t");
}

TEST_CASE("trouble: through a pooler that hands connections around, and over a single one") {
    NEEDS_POSTGRES();
    const Schema schema;
    for (const char* const parameters :
         {"&prepared=false", "&connections=1", "&connections=1&prepared=false"}) {
        CAPTURE(std::string(parameters));
        const auto store = schema.open(parameters);
        Cache cache(*store, {.ns = std::string("through ") + parameters + "x"});
        std::vector<std::thread> threads;
        std::atomic<int> won = 0;
        for (int thread = 0; thread < 4; ++thread) {
            threads.emplace_back([&] {
                for (int i = 0; i < 20; ++i) {
                    const auto claimed = cache.claim("key-" + std::to_string(i));
                    REQUIRE_MESSAGE(claimed.has_value(), claimed.error().message);
                    if (const auto* mine = std::get_if<Claimed>(&*claimed)) {
                        ++won;
                        CHECK(cache.complete(mine->claim, "r").has_value());
                    }
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        CHECK(won == 20);
        const std::vector<Append> both = {claim_of(std::string("a") + parameters),
                                          claim_of(std::string("b") + parameters)};
        for (const auto& result : store->append(both, Batch::atomic)) {
            CHECK_MESSAGE(result.has_value(), (result ? "" : result.error().message));
        }
        CHECK(store->sweep().has_value());
        CHECK(store->close().has_value());
    }
}

TEST_CASE("trouble: the largest batch, and one of more bytes than a message may have") {
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store = schema.open();
    std::vector<Append> many;
    for (std::size_t i = 0; i < kBatchItemsMax; ++i) {
        many.push_back(claim_of("many-" + std::to_string(i)));
    }
    std::size_t failed = 0;
    for (const auto& result : store->append(many)) {
        failed += !result;
    }
    CHECK(failed == 0);
    std::vector<Append> large;
    for (int i = 0; i < 6; ++i) {
        large.push_back(claim_of("large-" + std::to_string(i), std::string(kReceiptBytesMax, 'r')));
    }
    for (const auto& result : store->append(large)) {
        CHECK_MESSAGE(result.has_value(), (result ? "" : result.error().message));
    }
    // A page of a scan is bounded by its bytes.
    ScanOptions options;
    options.key_prefix = "large-";
    std::size_t heads = 0;
    do {
        const auto page = store->scan(options);
        REQUIRE_MESSAGE(page.has_value(), page.error().message);
        CHECK(page->heads.size() < 6);
        heads += page->heads.size();
        options.cursor = page->cursor;
    } while (!options.cursor.empty());
    CHECK(heads == 6);
}

TEST_CASE("trouble: a key that somebody's transaction holds keeps nobody from the others") {
    NEEDS_POSTGRES();
    Schema schema;
    schema.options.timeout = milliseconds(4'000);
    const auto store = schema.open();
    Client client(schema.url());
    client.row("BEGIN");
    client.row("SELECT outcome FROM " + schema.options.schema + ".claim('trouble', 'held')");
    std::vector<Append> claims;
    for (int i = 0; i < 100; ++i) {
        claims.push_back(claim_of(i == 37 ? "held" : "free-" + std::to_string(i)));
    }
    const auto results = store->append(claims);
    for (std::size_t i = 0; i < results.size(); ++i) {
        CAPTURE(i);
        if (i == 37) {
            refused(results[i], Code::unavailable, "another transaction");
        } else {
            CHECK(results[i].has_value());
        }
    }
    client.row("ROLLBACK");
    CHECK(append_key(*store, "held").has_value());
    // None of those that waited goes on behind its caller's back.
    CHECK(schema.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") ==
          "0");
}

TEST_CASE("trouble: a sweep goes on where others have taken over what it had found") {
    NEEDS_POSTGRES();
    Schema schema;
    schema.options.timeout = milliseconds(20'000);
    ManualClock clock;
    schema.options.clock = clock.clock();
    const auto store = schema.open();
    constexpr std::size_t kKeys = 60'000;  // two batches
    std::vector<Append> claims;
    for (std::size_t i = 0; i < kKeys; ++i) {
        claims.push_back(claim_of(std::to_string(i)));
        claims.back().record.expires_at_ms = clock.now_ms() + 1'000;
    }
    for (const auto& result : store->append(claims)) {
        REQUIRE_MESSAGE(result.has_value(), (result ? "" : result.error().message));
    }
    clock.advance(60'000);
    // Holds up the first batch at a row of it, which it then takes over.
    Client client(schema.url());
    client.row("BEGIN");
    client.row("UPDATE " + schema.options.schema +
               ".head SET expires_ms = expires_ms + 3600000 WHERE sequence = (SELECT min(sequence) "
               "FROM " +
               schema.options.schema + ".head)");
    std::thread commits([&] {
        std::this_thread::sleep_for(milliseconds(500));
        client.row("COMMIT");
    });
    const auto report = store->sweep();
    commits.join();
    REQUIRE_MESSAGE(report.has_value(), report.error().message);
    CHECK(report->removed.total() == kKeys - 1);
}

TEST_CASE("trouble: a sweep of rows that a query can find by their keys only") {
    NEEDS_POSTGRES();
    Schema schema;
    ManualClock clock;
    schema.options.clock = clock.clock();
    const auto store = schema.open();
    Client client(schema.url());
    const std::string name = schema.options.schema;
    client.row("ALTER TABLE " + name + ".head RENAME TO rows");
    client.row("CREATE VIEW " + name + ".head AS SELECT * FROM " + name + ".rows");
    std::vector<Append> claims;
    for (int i = 0; i < 100; ++i) {
        claims.push_back(claim_of(std::to_string(i)));
        claims.back().record.expires_at_ms = clock.now_ms() + (i < 70 ? 1'000 : 1'000'000);
    }
    for (const auto& result : store->append(claims)) {
        REQUIRE_MESSAGE(result.has_value(), (result ? "" : result.error().message));
    }
    clock.advance(60'000);
    const auto report = store->sweep();
    REQUIRE_MESSAGE(report.has_value(), report.error().message);
    CHECK(report->removed.total() == 70);
    CHECK(report->retained.total() == 30);
}

TEST_CASE("trouble: names of up to 63 characters, none of which hides another's statement") {
    NEEDS_POSTGRES();
    PostgresOptions options;
    options.schema = std::string(63, 's');
    REQUIRE(init_postgres(Schema::url(), options).has_value());
    auto store = open_postgres(Schema::url(), options);
    REQUIRE(store.has_value());
    CHECK(append_key(**store, "one").has_value());
    const std::vector<Append> two = {claim_of("two"), claim_of("three")};
    for (const auto& result : (*store)->append(two)) {
        CHECK_MESSAGE(result.has_value(), (result ? "" : result.error().message));
    }
}

TEST_CASE("trouble: a host that ends connections, or says nothing, does not hide the next one") {
    // As behind a balancer or a container's port, which accept for a server that is not there.
    NEEDS_POSTGRES();
    Schema schema;
    schema.options.timeout = milliseconds(4'000);
    const auto open_behind = [&](const Proxy& proxy) {
        const std::string url = proxy.url() + "," + PostgresServer::shared().directory();
        auto store = open_postgres(url, schema.options);
        REQUIRE_MESSAGE(store.has_value(), store.error().message);
        return *std::move(store);
    };
    Proxy ends(PostgresServer::shared().socket());
    ends.refuse(true);
    const auto store = open_behind(ends);
    CHECK(append_key(*store, "a").has_value());
    Proxy silent(PostgresServer::shared().socket());
    silent.arm(Proxy::Fault::hold_answer, 1);
    CHECK(append_key(*open_behind(silent), "b").has_value());
    refused(open_postgres(ends.url() + ",/nowhere", schema.options), Code::unavailable, "/nowhere");
    refused(open_postgres(ends.url() + ",/tmp&port=1,2,3", schema.options), Code::invalid_argument,
            "3 of port");
}

}  // namespace
}  // namespace dedup::test
