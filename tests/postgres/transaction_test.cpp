// Claims and completions in a transaction of the caller's own.
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <variant>

#include "dedup/postgres_transaction.hpp"
#include "postgres/helpers.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

TransactionCache cache_on(const Client& client, const Schema& schema) {
    return TransactionCache(client.get(), {}, schema.options.schema);
}

TEST_CASE("transaction: a claim and its completion are there if and only if it commits") {
    // Guards against a receipt without its effect, which no retry would mend.
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store = schema.open();
    Cache outside(*store, {});
    Client client(schema.url());
    for (const bool commits : {false, true}) {
        client.row("BEGIN");
        auto inside = cache_on(client, schema);
        const auto claimed = inside.claim("k");
        REQUIRE_MESSAGE(claimed.has_value(), claimed.error().message);
        REQUIRE(std::holds_alternative<Claimed>(*claimed));
        REQUIRE(inside.complete(std::get<Claimed>(*claimed).claim, "receipt").has_value());
        CHECK(std::holds_alternative<Completed>(inside.lookup("k").value()));
        CHECK(std::holds_alternative<Absent>(outside.lookup("k").value()));
        client.row(commits ? "COMMIT" : "ROLLBACK");
        const auto after = outside.lookup("k").value();
        CHECK(std::holds_alternative<Completed>(after) == commits);
        CHECK(std::holds_alternative<Absent>(after) != commits);
    }
    client.row("BEGIN");
    auto inside = cache_on(client, schema);
    CHECK(std::get<Completed>(inside.claim("k").value()).receipt == "receipt");
    client.row("ROLLBACK");
}

TEST_CASE("transaction: a duplicate waits for the first one's end, and not for ever") {
    // Guards against two that both work, and against one that waits for a transaction without end.
    NEEDS_POSTGRES();
    const Schema schema;
    Client first(schema.url());
    Client second(schema.url());
    second.row("CREATE TABLE work_" + schema.options.schema + " (x int)");
    first.row("BEGIN");
    auto winner = cache_on(first, schema);
    const Claim claim = std::get<Claimed>(winner.claim("k").value()).claim;

    second.row("BEGIN");
    second.row("INSERT INTO work_" + schema.options.schema + " VALUES (1)");
    second.row("SET LOCAL lock_timeout = '7s'");
    auto loser = cache_on(second, schema);
    const auto held = loser.claim("k", {}, milliseconds(50));
    REQUIRE_MESSAGE(held.has_value(), held.error().message);
    CHECK(std::holds_alternative<InFlight>(*held));
    CHECK(second.row("SHOW lock_timeout").at(0) == "7s");  // as it was

    std::thread finisher([&] {
        std::this_thread::sleep_for(milliseconds(100));
        CHECK(winner.complete(claim, "receipt").has_value());
        first.row("COMMIT");
    });
    const auto waited = loser.claim("k", {}, milliseconds(20'000));
    finisher.join();
    REQUIRE_MESSAGE(waited.has_value(), waited.error().message);
    CHECK(std::get<Completed>(*waited).receipt == "receipt");
    second.row("COMMIT");  // what it did before is still its own
    CHECK(second.row("SELECT count(*) FROM work_" + schema.options.schema).at(0) == "1");
}

TEST_CASE("transaction: leased claims of a store and these respect each other") {
    NEEDS_POSTGRES();
    Schema schema;
    ManualClock clock(4'000'000'000'000);
    schema.options.clock = clock.clock();
    schema.options.trust_clock = true;
    const auto store = schema.open();
    Cache outside(*store, {});
    const auto leased = outside.claim("k", {.owner = "worker", .lease = milliseconds(1'000)});
    const Claim old = std::get<Claimed>(leased.value()).claim;
    Client client(schema.url());
    client.row("BEGIN");
    auto inside = cache_on(client, schema);
    CHECK(std::get<InFlight>(inside.claim("k").value()).owner == "worker");
    schema.sql("UPDATE @.meta SET time_high_ms = 4000000002000");  // the lease is over
    const auto taken = inside.claim("k");
    REQUIRE_MESSAGE(taken.has_value(), taken.error().message);
    const Claim claim = std::get<Claimed>(*taken).claim;
    CHECK(claim.attempt == 2);
    CHECK(claim.claim_sequence > old.claim_sequence);
    client.row("COMMIT");
    clock.set(4'000'000'002'001);
    const auto late = outside.complete(old, "late");
    REQUIRE(!late.has_value());
    CHECK(late.error().code == Code::stale_claim);
    CHECK(outside.complete(claim, "done").has_value());
}

TEST_CASE("transaction: what does not fit is refused by name") {
    NEEDS_POSTGRES();
    const Schema schema;
    Client client(schema.url());
    auto cache = cache_on(client, schema);
    const auto refused = [](const auto& result, std::string_view word) {
        REQUIRE(!result.has_value());
        CHECK_MESSAGE(result.error().message.contains(word), result.error().message);
    };
    refused(cache.claim("k"), "BEGIN");
    client.row("BEGIN");
    refused(TransactionCache(client.get(), {}, "x; DROP TABLE y").claim("k"), "schema's name");
    refused(TransactionCache(client.get(), {}, "none_here").claim("k"), "dedupctl init");
    refused(cache.claim("k"), "ROLLBACK");
    client.row("ROLLBACK");
}

TEST_CASE("run_once: the effect is there once, whoever runs it, and a duplicate gets the receipt") {
    // Guards against work that is done twice, or whose receipt is somebody else's.
    NEEDS_POSTGRES();
    const Schema schema;
    Client owner(schema.url());
    const std::string table = "effect_" + schema.options.schema;
    owner.row("CREATE TABLE " + table + " (key text, thread int)");
    std::atomic<int> ran = 0;
    std::atomic<int> duplicates = 0;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
            Client client(schema.url());
            RunOnceOptions options;
            options.schema = schema.options.schema;
            for (int i = 0; i < 20; ++i) {
                const std::string key = "key-" + std::to_string(i);
                const auto outcome = run_once(
                    client.get(), key,
                    [&](PGconn*, const Claimed& claimed) -> Result<std::string> {
                        client.row("INSERT INTO " + table + " VALUES ('" + key + "', " +
                                   std::to_string(thread) + ")");
                        return "receipt of " + claimed.claim.key;
                    },
                    options);
                REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
                if (const auto* done = std::get_if<Ran>(&*outcome)) {
                    ++ran;
                    CHECK(done->receipt == "receipt of " + key);
                } else {
                    ++duplicates;
                    CHECK(std::get<Completed>(*outcome).receipt == "receipt of " + key);
                }
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(ran == 20);
    CHECK(duplicates == 60);
    CHECK(owner.row("SELECT count(*), count(DISTINCT key) FROM " + table) ==
          std::vector<std::string>{"20", "20"});
}

TEST_CASE("run_once: the work is told of a claim that nobody answered") {
    // Guards against an effect outside of the database that is repeated because nobody was told.
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store = schema.open();
    Cache dead(*store, {});
    const auto claimed = dead.claim("k", {.owner = "dead", .lease = milliseconds{1}});
    REQUIRE(claimed.has_value());
    REQUIRE(dead.note(claimed->claimed()->claim, "reference 8125").has_value());
    std::this_thread::sleep_for(milliseconds{20});
    Client client(schema.url());
    RunOnceOptions options;
    options.schema = schema.options.schema;
    const auto outcome = run_once(
        client.get(), "k",
        [](PGconn*, const Claimed& mine) -> Result<std::string> {
            REQUIRE(mine.previous.has_value());
            CHECK(mine.previous->owner == "dead");
            return mine.previous->note;
        },
        options);
    REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
    CHECK(std::get<Ran>(*outcome).receipt == "reference 8125");
}

TEST_CASE("run_once: an outcome can be asked what it is") {
    const RunOnceOutcome ran = Ran{.receipt = "r"};
    CHECK(ran.ran()->receipt == "r");
    CHECK((!ran.in_flight() && !ran.completed() && !ran.mismatch() && !ran.held()));
    CHECK(RunOnceOutcome().in_flight() != nullptr);
    CHECK(RunOnceOutcome(Completed()).completed() != nullptr);
    CHECK(RunOnceOutcome(Mismatch{.fingerprint = "f"}).mismatch()->fingerprint == "f");
    CHECK(RunOnceOutcome(Held()).held() != nullptr);
    CHECK(!RunOnceOutcome().ran());
}

TEST_CASE("run_once: failed work leaves nothing, and what may run again does") {
    NEEDS_POSTGRES();
    const Schema schema;
    Client client(schema.url());
    RunOnceOptions options;
    options.schema = schema.options.schema;
    int attempts = 0;
    const auto failed = run_once(
        client.get(), "k",
        [&](PGconn*, const Claimed&) -> Result<std::string> {
            ++attempts;
            return std::unexpected(Error{Code::io, "the printer is on fire"});
        },
        options);
    REQUIRE(!failed.has_value());
    CHECK(failed.error().message == "the printer is on fire");
    CHECK(attempts == 1);
    const auto done = run_once(
        client.get(), "k",
        [&](PGconn*, const Claimed&) -> Result<std::string> {
            if (++attempts < 4) {
                return std::unexpected(Error{Code::unavailable, "serialization failure"});
            }
            return "done";
        },
        options);
    REQUIRE_MESSAGE(done.has_value(), done.error().message);
    CHECK(std::get<Ran>(*done).receipt == "done");
    CHECK(attempts == 4);
}

}  // namespace
}  // namespace dedup::test
