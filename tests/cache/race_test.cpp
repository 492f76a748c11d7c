// Lost races, failing stores, waiting, and many threads on one key.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

// A cache that loses its next race: `competitor` runs through a cache of its own after the heads
// were read and before the append.
struct Racer {
    explicit Racer(TestStore& store)
        : hooked(*store), cache(hooked, {.ttl = 60s}), other(*store, {.ttl = 60s}) {}

    void lose_to(std::function<void(Cache&)> competitor, int times = 1) {
        hooked.before_append = [this, competitor = std::move(competitor), times]() mutable {
            if (times-- > 0) {
                competitor(other);
            }
        };
    }

    HookedStore hooked;
    Cache cache;
    Cache other;
};

TEST_CASE("lost race: a claim gets the answer that the winner's record gives") {
    // Guards against a loser that reports an error, or believes to have won.
    on_each_store([](TestStore& store) {
        Racer racer(store);
        ClaimOptions winner;
        winner.owner = "winner";
        racer.lose_to([&](Cache& other) { must_claim(other, "claimed", winner); });
        CHECK(as<InFlight>(racer.cache.claim("claimed")).owner == "winner");

        racer.lose_to([](Cache& other) { as<New>(other.remember("remembered", "r")); });
        CHECK(as<Completed>(racer.cache.claim("remembered")).receipt == "r");

        racer.lose_to([&](Cache& other) { must_claim(other, "k", with_fingerprint("one")); });
        CHECK(as<Mismatch>(racer.cache.claim("k", with_fingerprint("two"))).conflicts == 1);

        racer.lose_to([](Cache& other) {
            must_claim(other, "released");
            CHECK(must(other.release_current("released")));
        });
        CHECK(must_claim(racer.cache, "released").attempt == 2);

        // An expired head counts as absent, but its sequence is still the one to expect.
        must_claim(racer.other, "expired");
        store.clock.set(62'001);
        racer.lose_to([](Cache& other) { must_claim(other, "expired"); });
        as<InFlight>(racer.cache.claim("expired"));
    });
}

TEST_CASE("lost race: as many times as it takes") {
    // Guards against a loop that gives up after its first repetition.
    on_each_store([](TestStore& store) {
        Racer racer(store);
        racer.lose_to(
            [](Cache& other) {
                must_claim(other, "k");
                CHECK(must(other.release_current("k")));
            },
            5);
        CHECK(must_claim(racer.cache, "k").attempt == 6);
        CHECK(racer.hooked.appends == 6);
    });
}

TEST_CASE("lost race: a completion succeeds if the winner stored equal bytes") {
    // Guards against a retry of a completion, in flight twice, that reports failure; and against a
    // completion that passes over a takeover.
    on_each_store([](TestStore& store) {
        Racer racer(store);
        const Claim same = must_claim(racer.cache, "same");
        racer.lose_to([&](Cache& other) { must(other.complete(same, "r")); });
        must(racer.cache.complete(same, "r"));

        const Claim other_bytes = must_claim(racer.cache, "other");
        racer.lose_to([&](Cache& other) { must(other.complete(other_bytes, "first")); });
        check_error(racer.cache.complete(other_bytes, "second"), Code::receipt_mismatch);
        CHECK(as<Completed>(racer.cache.lookup("other")).receipt == "first");

        const Claim counted = must_claim(racer.cache, "counted", with_fingerprint("one"));
        racer.lose_to(
            [](Cache& other) { as<Mismatch>(other.claim("counted", with_fingerprint("two"))); });
        must(racer.cache.complete(counted, "r"));
        CHECK(head_of(*store, "counted").conflict.count == 1);

        const Claim slow = must_claim(racer.cache, "slow", with_lease(1s));
        store.clock.set(10'000);
        racer.lose_to([](Cache& other) { must_claim(other, "slow"); });
        check_error(racer.cache.complete(slow, "r"), Code::stale_claim);

        const Claim dropped = must_claim(racer.cache, "dropped");
        racer.lose_to([](Cache& other) { CHECK(must(other.release_current("dropped"))); });
        check_error(racer.cache.complete(dropped, "r"), Code::stale_claim, "released");
        racer.lose_to([](Cache&) {});
        must_claim(racer.cache, "by key");
        racer.lose_to([](Cache& other) { CHECK(must(other.release_current("by key"))); });
        check_error(racer.cache.complete_current("by key", "r"), Code::not_claimed);
    });
}

TEST_CASE("lost race: a release is content if the key is free, and reports a new holder") {
    // Guards against a release that undoes a completion or another worker's claim.
    on_each_store([](TestStore& store) {
        Racer racer(store);
        const Claim done = must_claim(racer.cache, "done");
        racer.lose_to([&](Cache& other) { must(other.complete(done, "r")); });
        CHECK(!must(racer.cache.release(done)));
        CHECK(as<Completed>(racer.cache.lookup("done")).receipt == "r");

        const Claim gone = must_claim(racer.cache, "gone");
        racer.lose_to([&](Cache& other) { CHECK(must(other.release(gone))); });
        CHECK(!must(racer.cache.release(gone)));

        const Claim slow = must_claim(racer.cache, "slow", with_lease(1s));
        store.clock.set(10'000);
        racer.lose_to([](Cache& other) { must_claim(other, "slow"); });
        check_error(racer.cache.release(slow), Code::stale_claim);
        as<InFlight>(racer.cache.lookup("slow"));
    });
}

TEST_CASE("lost race: renew and remember read again too") {
    // Guards against a heartbeat that fails because a duplicate arrived at the same time.
    on_each_store([](TestStore& store) {
        Racer racer(store);
        ClaimOptions options = with_lease(1s);
        options.fingerprint = "one";
        const Claim claim = must_claim(racer.cache, "k", options);
        racer.lose_to(
            [](Cache& other) { as<Mismatch>(other.claim("k", with_fingerprint("two"))); });
        CHECK(must(racer.cache.renew(claim, 5s)).deadline_ms == 6'000);
        CHECK(head_of(*store, "k").conflict.count == 1);
        racer.lose_to([&](Cache& other) { must(other.complete(claim, "r")); });
        check_error(racer.cache.renew(claim, 5s), Code::stale_claim, "completed");

        racer.lose_to([](Cache& other) { must_claim(other, "line"); });
        as<InFlight>(racer.cache.remember("line", "r"));
        racer.lose_to([](Cache& other) { as<New>(other.remember("again", "first")); });
        CHECK(as<Completed>(racer.cache.remember("again", "second")).receipt == "first");
    });
}

TEST_CASE("lost race: in a span only the losers go round again") {
    // Guards against winners that are appended a second time.
    on_each_store([](TestStore& store) {
        Racer racer(store);
        racer.lose_to([](Cache& other) {
            must_claim(other, "b");
            as<New>(other.remember("d", "r"));
        });
        const std::vector<ClaimRequest> requests = {
            {"a", {}}, {"b", {}}, {"c", {}}, {"d", {}}, {"a", {}}};
        const auto answers = racer.cache.claim_many(requests);
        as<Claimed>(answers[0]);
        as<InFlight>(answers[1]);
        as<Claimed>(answers[2]);
        CHECK(as<Completed>(answers[3]).receipt == "r");
        as<InFlight>(answers[4]);
        CHECK(racer.hooked.appends == 1);
        CHECK(records_in(*store) == 4);
    });
}

TEST_CASE("failing store: the item gets the store's error, and nothing is tried again") {
    // Guards against a second append after outcome_unknown, which could do the work twice.
    on_each_store([](TestStore& store) {
        HookedStore failing(*store);
        Cache cache(failing);
        const Claim claim = must_claim(cache, "claimed");
        for (const Code code :
             {Code::outcome_unknown, Code::out_of_space, Code::io, Code::failed, Code::read_only}) {
            failing.appends = 0;
            failing.fail_append = [code](const Append&) { return code; };
            check_error(cache.claim("k"), code, "injected");
            check_error(cache.remember("k", "r"), code);
            check_error(cache.complete(claim, "r"), code);
            check_error(cache.renew(claim, 1s), code);
            check_error(cache.release(claim), code);
            CHECK(failing.appends == 5);
            as<Absent>(cache.lookup("k"));
            as<InFlight>(cache.claim("claimed"));  // needs no append
        }

        failing.appends = 0;
        failing.fail_append = [](const Append& item) {
            return item.record.key == "b" ? std::optional(Code::out_of_space) : std::nullopt;
        };
        const std::vector<ClaimRequest> requests = {{"a", {}}, {"b", {}}, {"c", {}}};
        const auto answers = cache.claim_many(requests);
        as<Claimed>(answers[0]);
        check_error(answers[1], Code::out_of_space);
        as<Claimed>(answers[2]);
        CHECK(failing.appends == 1);

        failing.fail_heads = true;
        check_error(cache.lookup("k"), Code::io);
        check_error(cache.claim("k"), Code::io);
        check_error(cache.wait("k", 1h), Code::io);
        CHECK(failing.appends == 1);
    });
}

TEST_CASE("wait: returns at once what is decided, and InFlight when the time is up") {
    // Guards against a wait that hangs on a key which nobody will ever decide.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        as<Absent>(cache.wait("none", milliseconds::max()));
        as<New>(cache.remember("done", "r"));
        CHECK(as<Completed>(cache.wait("done", milliseconds::max())).receipt == "r");
        must_claim(cache, "k");
        for (const milliseconds timeout : {0ms, -1ms, milliseconds::min(), 1ms, 20ms}) {
            as<InFlight>(cache.wait("k", timeout));
        }
        CHECK(must(cache.release_current("k")));
        as<Absent>(cache.wait("k", 1h));
        CHECK(records_in(*store) == (store.keeps_versions() ? 3 : 2));
    });
}

TEST_CASE("wait: woken by a completion, a release, or the end of the lease") {
    // Guards against a waiter that sleeps through the decision. If it did, this would not end.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        Cache elsewhere(*store, {.ttl = 60s});
        const auto waits = [&](const std::function<void()>& decide) {
            Result<LookupOutcome> found = Absent{};
            std::jthread waiter([&] { found = cache.wait("k", 1h); });
            decide();
            waiter.join();
            return found;
        };
        for (Cache* const decider : {&cache, &elsewhere}) {
            const Claim claim = must_claim(cache, "k");
            as<Absent>(waits([&] { CHECK(must(decider->release(claim))); }));
            must_claim(cache, "k", with_lease(1s));
            as<InFlight>(waits([&] { store.clock.advance(1'001); }));
            const Claim last = must_claim(cache, "k", with_ttl(5s));
            CHECK(as<Completed>(waits([&] { must(decider->complete(last, "r")); })).receipt == "r");
            store.clock.advance(6'001);
            must_claim(cache, "k", with_ttl(5s));
            as<Absent>(waits([&] { store.clock.advance(6'001); }));  // expired
        }
    });
}

TEST_CASE("threads: one key, one winner, and everybody has the winner's receipt") {
    // Guards against a payment that is made twice because two requests came at the same time.
    on_each_store([](TestStore& store) {
        constexpr std::size_t kThreads = 16;
        std::array<Cache, 2> caches = {Cache(*store), Cache(*store)};
        for (int round = 0; round < 10; ++round) {
            const std::string key = "payment-" + std::to_string(round);
            std::array<std::string, kThreads> receipts;
            std::atomic<int> winners = 0;
            std::vector<std::jthread> threads;
            for (std::size_t t = 0; t < kThreads; ++t) {
                threads.emplace_back([&, t] {
                    Cache& cache = caches[t % caches.size()];
                    const auto outcome = cache.claim(key);
                    if (outcome && std::holds_alternative<Claimed>(*outcome)) {
                        ++winners;
                        const std::string receipt = "by " + std::to_string(t);
                        if (cache.complete(std::get<Claimed>(*outcome).claim, receipt)) {
                            receipts[t] = receipt;
                        }
                    } else if (const auto found = cache.wait(key, 1h);
                               found && std::holds_alternative<Completed>(*found)) {
                        receipts[t] = std::get<Completed>(*found).receipt;
                    }
                });
            }
            threads.clear();
            CHECK(winners == 1);
            CHECK(receipts[0].starts_with("by "));
            for (const std::string& receipt : receipts) {
                CHECK(receipt == receipts[0]);
            }
        }
        CHECK(records_in(*store) == (store.keeps_versions() ? 20 : 10));
    });
}

TEST_CASE("threads: takeovers race, and each lease has one new holder") {
    // Guards against two workers that both take over from the same dead one.
    on_each_store([](TestStore& store) {
        constexpr std::size_t kThreads = 8;
        Cache cache(*store);
        must_claim(cache, "k", with_lease(1s));
        for (std::uint32_t round = 2; round < 12; ++round) {
            store.clock.advance(1'001);
            std::atomic<int> winners = 0;
            std::atomic<std::uint32_t> attempt = 0;
            std::vector<std::jthread> threads;
            for (std::size_t t = 0; t < kThreads; ++t) {
                threads.emplace_back([&] {
                    const auto outcome = cache.claim("k", with_lease(1s));
                    if (outcome && std::holds_alternative<Claimed>(*outcome)) {
                        ++winners;
                        attempt = std::get<Claimed>(*outcome).claim.attempt;
                    }
                });
            }
            threads.clear();
            CHECK(winners == 1);
            CHECK(attempt == round);
        }
    });
}

}  // namespace
}  // namespace dedup::test
