// Who waits for a key of a store behind a server. Invariant: the server's answer ends the wait, or
// the wait's own time, or an error; also when the connection, or the server, is lost meanwhile.
// Where `Waiting` says so nobody looks by himself, so a wake that is lost hangs the test.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/inside.hpp"
#include "dedup/async.hpp"
#include "dedup/cache.hpp"
#include "dedup/memory_store.hpp"
#include "server/away.hpp"
#include "support/child_process.hpp"
#include "support/manual_clock.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;
using Found = Result<LookupOutcome>;

// A store that a client of it waits in, and another one decides in.
struct Waiting {
    explicit Waiting(std::chrono::milliseconds timeout = 10s) : away(timeout) {
        CacheInside::waiters(*away.client).look_never();
        // The first wait makes the connection, with a greeting of its own.
        const Claim first = claim("k");
        REQUIRE(wait_while([&] { REQUIRE(others.release(first)); }, 4));
    }
    Claim claim(const std::string& key, const ClaimOptions& options = {}) {
        auto outcome = others.claim(key, options);
        REQUIRE(outcome.has_value());
        return std::get<Claimed>(*outcome).claim;
    }
    void wait_for_requests(std::uint64_t count) const {
        while (away.server->metrics().requests < count) {
            std::this_thread::yield();
        }
    }
    // What a wait comes to if `work` is done while it sleeps: when so many requests have come, two
    // looks and DEDUP.WAIT.
    Found wait_while(const std::function<void()>& work, std::uint64_t requests = 3) {
        Found found;
        const std::uint64_t before = away.server->metrics().requests;
        std::jthread waiter([&] { found = mine.wait("k", 1h); });
        wait_for_requests(before + requests);
        work();
        waiter.join();
        return found;
    }

    Away away;
    Cache mine{*away.client};
    std::unique_ptr<StreamStore> other = Away::open_at(away.server_path);
    Cache others{*other};
};

bool is_completed(const Found& found) {
    return found && found->completed() != nullptr;
}

bool is_in_flight(const Found& found) {
    return found && found->in_flight() != nullptr;
}

TEST_CASE("remote wait: whatever another process decides ends it") {
    Waiting waiting;
    Claim claim = waiting.claim("k");
    const Found released = waiting.wait_while([&] { REQUIRE(waiting.others.release(claim)); });
    CHECK(std::holds_alternative<Absent>(released.value()));
    claim = waiting.claim("k");
    const Found held =
        waiting.wait_while([&] { REQUIRE(waiting.others.hold(claim, "who knows")); });
    REQUIRE(is_in_flight(held));
    CHECK(held->in_flight()->held);
    REQUIRE(waiting.others.resolve("k", claim.claim_sequence, {.reason = "not done"}));
    claim = waiting.claim("k");
    CHECK(is_completed(waiting.wait_while([&] { REQUIRE(waiting.others.complete(claim, "r")); })));
}

TEST_CASE("remote wait: a renewed lease lets it go on, and its end ends it") {
    // Whether it has run out is the server's to say: its clock is the test's.
    ManualClock clock;
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto store = make_memory_store(clock.clock());
    const auto server = Server::start(*store, {.unix_path = path}).value();
    const auto client = Away::open_at(path);
    CacheInside::waiters(*client).look_never();
    Cache mine(*client);
    Cache inside(*store);
    const Claim claim = std::get<Claimed>(inside.claim("k", {.lease = 1h}).value()).claim;
    std::promise<Found> answer;
    const auto async = AsyncCache::start(mine).value();
    REQUIRE(async->wait_async("k", 10h, [&](Found found) { answer.set_value(std::move(found)); }));
    while (server->metrics().requests < 3) {  // two greetings, and its look
        std::this_thread::yield();
    }
    REQUIRE(inside.renew(claim, 3h));
    clock.advance(2 * 3'600'000);
    auto found = answer.get_future();
    CHECK(found.wait_for(100ms) == std::future_status::timeout);
    clock.advance(2 * 3'600'000);
    CHECK(is_in_flight(found.get()));
}

TEST_CASE("remote wait: the process that serves the store is told, too, and tells") {
    Waiting waiting;
    Cache inside(*waiting.away.inner);
    CacheInside::waiters(*waiting.away.inner).look_never();
    Claim claim = waiting.claim("k");
    CHECK(is_completed(waiting.wait_while([&] { REQUIRE(inside.complete(claim, "r")); })));

    claim = waiting.claim("another");
    Found found;
    std::atomic<bool> looked = false;
    std::jthread waiter([&] {
        looked = is_in_flight(inside.lookup("another"));
        found = inside.wait("another", 1h);
    });
    while (!looked) {
        std::this_thread::yield();
    }
    std::this_thread::sleep_for(20ms);  // so that it sleeps, most likely
    REQUIRE(waiting.others.complete(claim, "r"));
    waiter.join();
    CHECK(is_completed(found));
}

TEST_CASE("remote wait: its time ends it") {
    Waiting waiting;
    waiting.claim("k");
    for (const auto most : {0ms, 1ms, 50ms}) {
        CHECK(is_in_flight(waiting.mine.wait("k", most)));
    }
    // And of two that wait for one key, each has its own.
    CHECK(is_completed(waiting.wait_while([&] {
        CHECK(is_in_flight(waiting.mine.wait("k", 20ms)));
        REQUIRE(waiting.others.complete_current("k", "r"));
    })));
}

TEST_CASE("remote wait: thousands take one connection, and each is ended by its own key") {
    constexpr std::size_t kKeys = 3'000;
    Waiting waiting;
    const auto async = AsyncCache::start(waiting.mine).value();
    std::vector<ClaimRequest> requests;
    for (std::size_t i = 0; i < kKeys; ++i) {
        requests.push_back({std::to_string(i), {}});
    }
    std::vector<Claim> claims;
    for (auto& outcome : waiting.others.claim_many(requests)) {
        claims.push_back(std::get<Claimed>(outcome.value()).claim);
    }
    std::vector<std::promise<Found>> answers(kKeys);
    for (std::size_t i = 0; i < kKeys; ++i) {
        REQUIRE(async->wait_async(claims[i].key, 1h,
                                  [&, i](Found found) { answers[i].set_value(std::move(found)); }));
    }
    std::vector<Completion> completions;
    for (std::size_t i = 1; i < kKeys; ++i) {
        completions.push_back({claims[i], claims[i].key, {}});
    }
    for (const auto& completed : waiting.others.complete_many(completions)) {
        REQUIRE(completed.has_value());
    }
    for (std::size_t i = 1; i < kKeys; ++i) {
        const Found found = answers[i].get_future().get();
        REQUIRE(is_completed(found));
        CHECK(found->completed()->receipt == claims[i].key);
    }
    // Two of the client that waits, one of the other.
    CHECK(waiting.away.server->metrics().connections == 3);
    auto first = answers[0].get_future();
    CHECK(first.wait_for(0s) == std::future_status::timeout);
    REQUIRE(waiting.others.complete(claims[0], "r"));
    CHECK(is_completed(first.get()));
}

TEST_CASE("remote wait: goes on behind a restart of the server") {
    Waiting waiting;
    const Claim claim = waiting.claim("k");
    CHECK(is_completed(waiting.wait_while([&] {
        waiting.away.serve();
        waiting.wait_for_requests(4);  // two greetings, a look, and DEDUP.WAIT
        REQUIRE(waiting.others.complete(claim, "r"));
    })));
}

TEST_CASE("remote wait: a server that is gone ends it, as it would any call") {
    Waiting waiting(1s);
    waiting.claim("k");
    const Found found = waiting.wait_while([&] { waiting.away.server.reset(); });
    REQUIRE(!found);
    CHECK(found.error().code == Code::unavailable);
}

TEST_CASE("remote wait: whatever is lost of the question or its answer, it ends") {
    using Fault = FaultyWay::Fault;
    for (const Fault fault : {Fault::lose_request, Fault::lose_answer, Fault::hold_answer}) {
        Waiting waiting(1s);
        const Claim claim = waiting.claim("k");
        waiting.away.way.arm(fault, {}, "DEDUP.WAIT");
        CHECK(is_completed(waiting.wait_while([&] {
            while (waiting.away.way.armed()) {
                std::this_thread::yield();
            }
            REQUIRE(waiting.others.complete(claim, "r"));
        })));
    }
}

TEST_CASE("remote wait: a connection that dies in silence is noticed, and only that") {
    using Fault = FaultyWay::Fault;
    Waiting waiting(1s);
    const Claim claim = waiting.claim("k");
    const std::uint64_t connected = waiting.away.server->metrics().connected;
    CHECK(is_completed(waiting.wait_while([&] {
        waiting.wait_for_requests(waiting.away.server->metrics().requests + 1);  // a sign of life
        CHECK(waiting.away.server->metrics().connected == connected);
        waiting.away.way.arm(Fault::hold_answer, {}, "SELECT");
        while (waiting.away.way.armed()) {
            std::this_thread::yield();
        }
        REQUIRE(waiting.others.complete(claim, "r"));
    })));
}

TEST_CASE("remote wait: closing the store ends it with an error") {
    Waiting waiting;
    waiting.claim("k");
    const auto async = AsyncCache::start(waiting.mine).value();
    std::promise<Found> answer;
    REQUIRE(async->wait_async("k", 1h, [&](Found found) { answer.set_value(std::move(found)); }));
    const Found found = waiting.wait_while([&] { REQUIRE(waiting.away.client->close()); });
    REQUIRE(!found);
    CHECK(found.error().code == Code::closed);
    const Found later = answer.get_future().get();
    REQUIRE(!later);
    CHECK(later.error().code == Code::closed);
    CHECK(waiting.mine.wait("k", 1h).error().code == Code::closed);
}

TEST_CASE("remote wait: a forked child is told that the connection is its parent's, who waits on") {
    Waiting waiting;
    const Claim claim = waiting.claim("k");
    CHECK(is_completed(waiting.wait_while([&] {
        CHECK(exit_code(in_child([&] {
                  alarm(60);  // one that hangs
                  const Found found = waiting.mine.wait("k", 1h);
                  waiting.away.client.reset();
                  return !found && found.error().code == Code::closed ? 0 : 1;
              })) == 0);
        REQUIRE(waiting.others.complete(claim, "r"));
    })));
}

TEST_CASE("remote wait: where the server takes no more waits, those who wait look") {
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto store = make_memory_store();
    // So two can be asked for. What is refused is said to be, and does not keep others out.
    const auto server = Server::start(*store, {.unix_path = path, .requests_max = 4}).value();
    const auto client = Away::open_at(path);
    Cache mine(*client);
    Cache inside(*store);
    std::array<Found, 4> found;
    std::vector<std::jthread> waiters;
    for (std::size_t i = 0; i < found.size(); ++i) {
        REQUIRE(inside.claim(std::to_string(i)));
        waiters.emplace_back([&, i] { found[i] = mine.wait(std::to_string(i), 1h); });
    }
    while (server->metrics().busy == 0) {
        std::this_thread::yield();
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
        REQUIRE(inside.complete_current(std::to_string(i), "r"));
    }
    waiters.clear();
    for (const Found& each : found) {
        CHECK(is_completed(each));
    }
}

TEST_CASE("remote wait: one for which there is no room leaves the others theirs") {
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto store = make_memory_store();
    const auto server = Server::start(*store, {.unix_path = path, .requests_max = 4}).value();
    const auto client = Away::open_at(path);
    CacheInside::waiters(*client).look_never();
    Cache mine(*client);
    Cache inside(*store);
    for (const char* const key : {"a", "b", "c"}) {
        REQUIRE(inside.claim(key));
    }
    const std::uint64_t before = server->metrics().requests;
    std::array<Found, 2> found;
    std::jthread a([&] { found[0] = mine.wait("a", 1h); });
    std::jthread b([&] { found[1] = mine.wait("b", 1h); });
    while (server->metrics().requests < before + 7) {  // a greeting, four looks, two DEDUP.WAIT
        std::this_thread::yield();
    }
    CHECK(is_in_flight(mine.wait("c", 50ms)));
    while (server->metrics().busy == 0) {
        std::this_thread::yield();
    }
    std::this_thread::sleep_for(20ms);  // so that the client knows, most likely
    REQUIRE(inside.complete_current("a", "r"));
    REQUIRE(inside.complete_current("b", "r"));
    a.join();
    b.join();
    CHECK(is_completed(found[0]));
    CHECK(is_completed(found[1]));
    CHECK(server->metrics().connections == 2);
}

}  // namespace
}  // namespace dedup::test
