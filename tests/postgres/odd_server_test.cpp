// Servers that answer what they were not asked, whose clock is set, whose one row everybody wants:
// what this costs, and whom.
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "postgres/helpers.hpp"
#include "postgres/proxy.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

Append odd_claim(const std::string& key) {
    Append append;
    append.record.ns = "odd";
    append.record.key = key;
    return append;
}

std::uint64_t must_append(StreamStore& store, const Append& append) {
    const auto landed = store.append({&append, 1}).front();
    REQUIRE_MESSAGE(landed.has_value(), landed.error().message);
    return *landed;
}

std::unique_ptr<StreamStore> open_behind(const Proxy& proxy, const PostgresOptions& options) {
    auto store = open_postgres(proxy.url(), options);
    REQUIRE_MESSAGE(store.has_value(), store.error().message);
    return *std::move(store);
}

TEST_CASE("odd server: answers about keys that it was not asked for are errors") {
    // Guards against a process that ends because of what a server says.
    NEEDS_POSTGRES();
    const Schema schema;
    const auto watcher = schema.open();
    must_append(*watcher, odd_claim("a"));
    must_append(*watcher, odd_claim("b"));
    Proxy proxy(PostgresServer::shared().socket());
    proxy.replace("t.i FROM unnest", "999 FROM unnest");
    proxy.replace("SELECT t.i, h.sequence", "SELECT 999, h.sequence");
    const auto store = open_behind(proxy, schema.options);
    const std::vector<StreamKey> both = {{"odd", "a"}, {"odd", "b"}};
    for (const auto& head : store->heads(both)) {
        refused(head, Code::corruption, "was not asked for");
    }
    const std::vector<Append> lost = {odd_claim("a"), odd_claim("new")};
    const auto results = store->append(lost);
    refused(results[0], Code::corruption, "was not asked for");
    CHECK(results[1].has_value());
    PostgresOptions bounded = schema.options;
    bounded.capacity.keys_max = 100;
    refused(open_behind(proxy, bounded)->append(lost).front(), Code::corruption,
            "was not asked for");
}

TEST_CASE("odd server: a block of sequences that is none is an error") {
    NEEDS_POSTGRES();
    const Schema schema;
    Proxy proxy(PostgresServer::shared().socket());
    const std::string asked = "\"" + schema.options.schema + "\".next_block()";
    std::string instead = "0::int8";
    instead.resize(asked.size(), ' ');
    proxy.replace(asked, instead);
    const auto store = open_behind(proxy, schema.options);
    const auto claim = odd_claim("k");
    refused(store->append({&claim, 1}).front(), Code::corruption, "block");
    CHECK(!store->head({"odd", "k"}).value());
}

TEST_CASE("odd server: an atomic append whose room cannot be checked writes nothing") {
    NEEDS_POSTGRES();
    Schema schema;
    schema.options.capacity.keys_max = 100;
    Proxy proxy(PostgresServer::shared().socket());
    proxy.replace("h.sequence, h.fence FROM", "h.sequence, h.fonce FROM");
    const auto store = open_behind(proxy, schema.options);
    const std::vector<Append> both = {odd_claim("a"), odd_claim("b")};
    for (const auto& result : store->append(both, Batch::atomic)) {
        refused(result, Code::invalid_argument, "fonce");
    }
    CHECK(!store->head({"odd", "a"}).value());
}

TEST_CASE("odd server: a store that only reads follows the server's clock") {
    // Guards against a process that answers duplicates for weeks by the clock of its machine.
    NEEDS_POSTGRES();
    Schema schema;
    schema.options.grace = milliseconds(200);
    const std::string fake = schema.options.schema + "_fake";
    schema.sql("CREATE SCHEMA " + fake + "; CREATE TABLE " + fake +
               ".step (by interval); INSERT INTO " + fake + ".step VALUES ('0'); CREATE FUNCTION " +
               fake +
               ".clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
               "'SELECT pg_catalog.clock_timestamp() + (SELECT by FROM " +
               fake + ".step)'");
    const auto store = schema.open("&options=-csearch_path%3D" + fake + "%2Cpg_catalog");
    const std::int64_t before = store->now_ms();
    schema.sql("UPDATE " + fake + ".step SET by = '10 minutes'");
    std::this_thread::sleep_for(milliseconds(150));
    REQUIRE(store->head({"odd", "k"}).has_value());
    CHECK(store->now_ms() - before >= 600'000);
    CHECK(store->now_ms() - before < 900'000);
}

TEST_CASE("odd server: nobody waits for whoever writes down the time") {
    NEEDS_POSTGRES();
    Schema schema;
    ManualClock clock(1'000'000);
    schema.options.clock = clock.clock();
    must_append(*schema.open(), odd_claim("first"));
    Client client(schema.url());
    client.row("BEGIN");
    client.row("UPDATE " + schema.options.schema + ".meta SET time_high_ms = time_high_ms + 1");
    const auto store = schema.open();
    must_append(*store, odd_claim("second"));  // and takes a block
    client.row("ROLLBACK");
}

TEST_CASE("odd server: without a grace, too, a block serves many appends") {
    NEEDS_POSTGRES();
    Schema schema;
    schema.options.grace = milliseconds(0);
    const auto store = schema.open();
    for (int i = 0; i < 30; ++i) {
        must_append(*store, odd_claim(std::to_string(i)));
    }
    CHECK(std::stoi(schema.sql("SELECT last_value FROM @.block")) < 30);
}

TEST_CASE("odd server: a block is durable before it is used") {
    // Guards against numbers that a server gives again after a crash, while somebody still tries to
    // find out what became of an append with them.
    NEEDS_POSTGRES();
    PostgresServer server;
    PostgresOptions options;
    ManualClock clock(1'000'000);  // or the time is written down with the block
    options.clock = clock.clock();
    REQUIRE(init_postgres(server.url(), options).has_value());
    must_append(*open_postgres(server.url(), options).value(), odd_claim("first"));
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.sql("SELECT pg_reload_conf()");
    options.timeout = milliseconds(1'000);
    const auto opened = open_postgres(server.url(), options);
    REQUIRE_MESSAGE(opened.has_value(), opened.error().message);
    StreamStore& store = **opened;
    std::string waits;
    std::thread watcher([&] {
        for (int i = 0; i < 100 && waits.empty(); ++i) {
            waits = server.sql(
                "SELECT query FROM pg_stat_activity WHERE application_name = 'dedup' "
                "AND wait_event = 'SyncRep' LIMIT 1");
        }
    });
    const auto claim = odd_claim("k");
    refused(store.append({&claim, 1}).front(), Code::unavailable, "");
    watcher.join();
    CHECK(waits == "COMMIT");  // of the block; an append of one key has none
    server.sql("ALTER SYSTEM RESET synchronous_standby_names");
    server.sql("SELECT pg_reload_conf()");
    CHECK(!store.head({"odd", "k"}).value());
}

TEST_CASE("odd server: it counts the bytes of a head as the library does") {
    // Guards against a bound that two stores keep differently.
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store = schema.open();
    Append full = odd_claim("full");
    full.record.owner = "owner";
    full.record.fingerprint = std::string(200, 'f');
    full.record.event_id = "event";
    full.record.metadata = std::string(1'000, 'm');
    full.record.hold = true;
    full.record.lease_until_ms = 5'000;
    full.record.conflict.count = 2;
    full.record.conflict.fingerprints = {"one", std::string(130, 'o')};
    Append receipt = odd_claim("\xff\xfe receipt");
    receipt.record.receipt = std::string(3'000, 'r');
    Append empty = odd_claim("empty receipt");
    empty.record.receipt = "";
    const std::vector<Append> batch = {odd_claim("plain"), full, receipt, empty};
    for (const auto& result : store->append(batch)) {
        REQUIRE_MESSAGE(result.has_value(), (result ? "" : result.error().message));
    }
    PostgresOptions bounded = schema.options;
    bounded.capacity.bytes_max = 1;
    const auto other = open_postgres(schema.url(), bounded);
    REQUIRE(other.has_value());
    const auto more = odd_claim("more");
    refused((*other)->append({&more, 1}).front(), Code::out_of_space,
            " bytes, " + std::to_string(store->metrics().bytes_written) + " are in use");
}

}  // namespace
}  // namespace dedup::test
