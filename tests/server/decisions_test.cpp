// DEDUP.NOTE, HOLD, RESOLVE and FORGET, and claims that wait for them.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

struct DecisionsFixture {
    DecisionsFixture() {
        auto started = Server::start(*store, {.unix_path = path});
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
    }
    std::string claim(Client& client, std::string_view key) const {
        const std::string reply = client.ask({"DEDUP.CLAIM", key, "LEASE", "1000"});
        REQUIRE(reply.starts_with("['outcome' 'claimed'"));
        const std::size_t at = reply.find("'claim_sequence' ") + 17;
        return reply.substr(at, reply.find(' ', at) - at);
    }
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    ManualClock clock{1'000'000};
    std::unique_ptr<StreamStore> store = make_memory_store(clock.clock());
    std::unique_ptr<Server> server;
};

bool has(const std::string& reply, std::string_view words) {
    return reply.find(words) != std::string::npos;
}

TEST_CASE("decisions: a note is told to whoever comes after") {
    DecisionsFixture fixture;
    Client client(fixture.path);
    const std::string fence = fixture.claim(client, "k");
    CHECK(client.ask({"DEDUP.NOTE", "k", fence, "calls the bank"}) ==
          "['outcome' 'noted' 'namespace' 'default' 'key' 'k' 'claim_sequence' " + fence + "]");
    CHECK(has(client.ask({"DEDUP.LOOKUP", "k"}), "'note' 'calls the bank'"));
    CHECK(client.ask({"DEDUP.NOTE", "k", "999", "x"}).starts_with("-STALE_CLAIM"));
    fixture.clock.advance(2000);
    const std::string next = client.ask({"DEDUP.CLAIM", "k"});
    CHECK(has(next, "'attempt' 2"));
    CHECK(has(next, "'previous' ['claim_sequence' " + fence));
    CHECK(has(next, "'note' 'calls the bank'"));
    CHECK(has(next, "'end' 'lease_ran_out'"));
}

TEST_CASE("decisions: what is said is durable before the reply, whatever the store's appends are") {
    // Guards a note of the effect that follows it, of whichever client.
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    OpenOptions async;
    async.durability = Durability::async;
    async.flush_interval = std::chrono::minutes(1);
    const auto store = open(directory.path() / "store", async).value();
    const auto server = Server::start(*store, {.unix_path = path}).value();
    Client client(path);
    const auto remote = open("unix:" + path).value();
    Cache cache(*remote);
    const auto claim =
        std::get<Claimed>(cache.claim("k", {.lease = std::chrono::minutes(1)}).value()).claim;
    const std::string fence = std::to_string(claim.claim_sequence);
    const std::uint64_t before = store->metrics().flushes;
    REQUIRE(cache.note(claim, "calls the bank"));
    CHECK(store->metrics().flushes == before + 1);
    REQUIRE(has(client.ask({"DEDUP.NOTE", "k", fence, "calls it again"}), "'noted'"));
    CHECK(store->metrics().flushes == before + 2);
    REQUIRE(cache.hold(claim, "timeout"));
    REQUIRE(cache.resolve("k", claim.claim_sequence, {.receipt = "paid", .reason = "in its list"}));
    REQUIRE(cache.forget("k", 0, "refunded"));
    CHECK(store->metrics().flushes == before + 5);
}

TEST_CASE("decisions: a claim that is held waits until somebody says what became of it") {
    DecisionsFixture fixture;
    Client client(fixture.path);
    const std::string first = fixture.claim(client, "k");
    CHECK(has(client.ask({"DEDUP.HOLD", "k", first, "timed out"}), "'outcome' 'held'"));
    const std::string held = client.ask({"DEDUP.CLAIM", "k"});
    CHECK(has(held, "'outcome' 'held'"));
    CHECK(has(held, "'reason' 'timed out'"));
    for (const std::string& refused : {client.ask({"DEDUP.COMPLETE", "k", "CURRENT", "r"}),
                                       client.ask({"DEDUP.RELEASE", "k", "CURRENT"})}) {
        CHECK(refused.starts_with("-STALE_CLAIM"));
        CHECK(has(refused, "resolve it"));
    }
    CHECK(client.ask({"DEDUP.NOTE", "k", first, "late"}).starts_with("-STALE_CLAIM"));
    CHECK(client.ask({"DEDUP.RESOLVE", "k", "999", "NOTDONE", "REASON", "r"})
              .starts_with("-STALE_CLAIM"));
    CHECK(has(client.ask({"DEDUP.RESOLVE", "k", first, "NOTDONE", "REASON", "the bank has none",
                          "BY", "ada"}),
              "'outcome' 'released'"));
    CHECK(has(client.ask({"DEDUP.HISTORY", "k"}),
              "'began_ms' 1000000 'verdict' ['kind' 'resolved' 'by' 'ada' 'reason' 'the bank has "
              "none']"));
    const std::string next =
        client.ask({"DEDUP.CLAIM", "k", "LEASE", "1000", "UNANSWERED", "HOLD"});
    CHECK(has(next, "'by' 'ada'"));
    CHECK(has(next, "'reason' 'the bank has none'"));
    CHECK(has(client.ask({"DEDUP.HISTORY", "k"}), "'hold' 1"));
    const std::size_t at = next.find("'claim_sequence' ") + 17;
    const std::string second = next.substr(at, next.find(' ', at) - at);
    // Its lease still runs: its holder may be at work.
    CHECK(client.ask({"DEDUP.RESOLVE", "k", second, "DONE", "paid", "REASON", "r"})
              .starts_with("-STOREBUSY"));
    fixture.clock.advance(2000);
    CHECK(has(client.ask({"DEDUP.CLAIM", "k"}), "'outcome' 'held'"));
    CHECK(has(client.ask({"DEDUP.RESOLVE", "k", second, "DONE", "paid", "REASON", "r"}),
              "'outcome' 'completed'"));
    CHECK(has(client.ask({"DEDUP.LOOKUP", "k"}), "'receipt' 'paid'"));
    CHECK(has(client.ask({"DEDUP.FORGET", "k", "CURRENT", "REASON", "paid back"}),
              "'outcome' 'forgotten'"));
    CHECK(has(client.ask({"DEDUP.HISTORY", "k"}),
              "'verdict' ['kind' 'forgotten' 'by' '' 'reason' 'paid back']"));
    CHECK(
        has(client.ask({"DEDUP.FORGET", "k", "CURRENT", "REASON", "again"}), "'outcome' 'absent'"));
    CHECK(has(client.ask({"DEDUP.CLAIM", "k"}), "'end' 'forgotten'"));
    CHECK(has(client.ask({"DEDUP.FORGET", "k", "CURRENT", "REASON", "again"}),
              "'outcome' 'in_flight'"));
}

TEST_CASE("decisions: whoever remembers a key is told who was there before") {
    DecisionsFixture fixture;
    Client client(fixture.path);
    CHECK(!has(client.ask({"DEDUP.REMEMBER", "fresh", "r"}), "previous"));
    const std::string fence = fixture.claim(client, "k");
    client.ask({"DEDUP.RELEASE", "k", fence});
    const std::string fresh = client.ask({"DEDUP.REMEMBER", "k", "r"});
    CHECK(has(fresh, "'outcome' 'new'"));
    CHECK(has(fresh, "'end' 'released'"));
}

TEST_CASE("decisions: from some attempt on a claim is held") {
    DecisionsFixture fixture;
    Client client(fixture.path);
    for (const char* outcome : {"claimed", "claimed", "held"}) {
        const std::string reply =
            client.ask({"DEDUP.CLAIM", "k", "LEASE", "1000", "ATTEMPTSMAX", "2"});
        CHECK_MESSAGE(reply.starts_with(std::string("['outcome' '") + outcome), reply);
        fixture.clock.advance(2000);
    }
}

TEST_CASE("decisions: what is wrong is said") {
    DecisionsFixture fixture;
    Client client(fixture.path);
    const std::string fence = fixture.claim(client, "k");
    for (const auto& [request, words] :
         std::vector<std::pair<std::vector<std::string>, std::string_view>>{
             {{"DEDUP.NOTE", "k", "CURRENT", "x"}, "not a claim_sequence"},
             {{"DEDUP.NOTE", "k", fence}, "wrong number"},
             {{"DEDUP.NOTE", "k", fence, "x", "REASON", "r"}, "not an option"},
             {{"DEDUP.HOLD", "k", "0", "x"}, "not a claim_sequence"},
             {{"DEDUP.RESOLVE", "k", fence, "DONE"}, "syntax error"},
             {{"DEDUP.RESOLVE", "k", fence, "MAYBE", "r"}, "syntax error"},
             {{"DEDUP.RESOLVE", "k", fence, "NOTDONE"}, "reason"},
             {{"DEDUP.RESOLVE", "k", fence, "NOTDONE", "REASON", "r", "TTL", "1"}, "not an option"},
             {{"DEDUP.FORGET", "k", fence}, "reason"},
             {{"DEDUP.CLAIM", "l", "UNANSWERED", "YES"}, "HOLD or RERUN"},
             {{"DEDUP.CLAIM", "l", "ATTEMPTSMAX", "-1"}, "not a number"},
             {{"DEDUP.REMEMBER", "l", "r", "UNANSWERED", "HOLD"}, "not an option"}}) {
        const std::string reply = client.ask_all(request);
        CHECK_MESSAGE((reply.starts_with("-ERR") && has(reply, words)), reply);
    }
    CHECK(has(client.ask({"DEDUP.LOOKUP", "l"}), "absent"));
}

TEST_CASE("decisions: DBSIZE counts the strings of the database") {
    DecisionsFixture fixture;
    Client client(fixture.path);
    CHECK(client.ask({"DBSIZE"}) == "0");
    for (int i = 0; i < 300; ++i) {
        client.ask({"SET", "k" + std::to_string(i), "v"});
    }
    client.ask({"DEL", "k1"});
    fixture.claim(client, "other");
    CHECK(client.ask({"DBSIZE"}) == "299");
    CHECK(client.ask({"SELECT", "1"}) == "OK");
    CHECK(client.ask({"DBSIZE"}) == "0");
}

}  // namespace
}  // namespace dedup::test
