// Who works under a lease: it is kept while the work goes on, and who lost it changes nothing.
#include <doctest/doctest.h>

#include <array>
#include <string>
#include <thread>
#include <utility>

#include "dedup/lease.hpp"
#include "guard/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

TEST_CASE("guard: a dead consumer's events are free when the lease has run out") {
    on_each_store([](TestStore& store) {
        Cache dead(*store, {.ns = "events"});
        const Claim claim = must_claim(dead, "e", with_lease(30s));
        const auto guard = guard_on(*store);
        as<InFlight>(guard->process_if_new("e", gives("r")));
        store.clock.advance(30'001);
        as<Success>(guard->process_if_new("e", [](const Attempt& attempt) -> Handled {
            CHECK(attempt.number == 2);
            return "r";
        }));
        check_error(dead.complete(claim, "from the grave"), Code::stale_claim);
    });
}

TEST_CASE("guard: a heartbeat keeps long work's lease, of every event of a batch") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.lease = 300ms});
        const auto rival = guard_on(*store, {.ns = "events", .owner = "rival"});
        const std::array<std::string_view, 2> events = {"a", "b"};
        const auto lease_until = [&](std::string_view event) {
            return head_of(*store, event, "events").lease_until_ms;
        };
        const auto outcomes = guard->process_batch(events, [&](const Attempt&) -> Handled {
            for (int i = 0; i < 3; ++i) {
                // More than the lease has passed when this has come round.
                store.clock.advance(200);
                for (const std::string_view event : events) {
                    const std::int64_t renewed_ms = store.clock.now_ms() + 300;
                    for (int polls = 0; polls < 30'000 && lease_until(event) < renewed_ms;
                         ++polls) {
                        std::this_thread::sleep_for(1ms);
                    }
                    REQUIRE(lease_until(event) >= renewed_ms);
                    as<InFlight>(rival->process_if_new(event, gives("stolen")));
                }
            }
            return "r";
        });
        as<Success>(outcomes[0]);
        as<Success>(outcomes[1]);
    });
}

TEST_CASE("guard: what is claimed beats while the store is unavailable for the rest of the batch") {
    // Guards against claims that others take over before any work begins.
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        bool available = false;
        hooked.fail_append = [&](const Append& item) {
            return item.record.key == "late" && !available ? std::optional(Code::unavailable)
                                                           : std::nullopt;
        };
        const auto sleep = [&](milliseconds) {
            store.clock.advance(250);
            const std::int64_t renewed_ms = store.clock.now_ms() + 300;
            const auto is_renewed = [&] {
                return head_of(*store, "early", "events").lease_until_ms >= renewed_ms;
            };
            for (int polls = 0; polls < 30'000 && !is_renewed(); ++polls) {
                std::this_thread::sleep_for(1ms);
            }
            CHECK(is_renewed());
            available = true;
        };
        const auto guard = guard_on(hooked, {.lease = 300ms, .retry = {.sleep = sleep}});
        const std::array<std::string_view, 2> events = {"early", "late"};
        const auto outcomes = guard->process_batch(events, gives("r"));
        as<Success>(outcomes[0]);
        as<Success>(outcomes[1]);
        CHECK(available);
    });
}

TEST_CASE("guard: a consumer that lost its lease is told so, and changes nothing") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        hooked.fail_append = [](const Append& item) {  // the heartbeat's renewals never land
            const bool renewal = !item.record.receipt && item.record.claim_sequence != 0;
            return renewal ? std::optional(Code::io) : std::nullopt;
        };
        const auto slow = guard_on(hooked, {.lease = 300ms});
        const auto fast = guard_on(*store);
        check_error(slow->process_if_new("e",
                                         [&](const Attempt&) -> Handled {
                                             store.clock.advance(301);
                                             as<Success>(fast->process_if_new("e", gives("fast")));
                                             return "slow";
                                         }),
                    Code::stale_claim);
        CHECK(as<AlreadyProcessed>(fast->process_if_new("e", gives("x"))).result == "fast");
    });
}

TEST_CASE("lease: gives its key back at the end of its scope, but holds what it has noted") {
    // Guards against a key that stays claimed behind a return, and against one that is free
    // although its effect may have begun.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const auto leases = must(Leases::start(cache, 1h));
        const auto claim = [&](std::string_view key) {
            return as<Lease>(leases->claim(key, {.owner = "w"}));
        };
        { const Lease lease = claim("left"); }
        CHECK(claim("left").claim().attempt == 2);
        {
            Lease lease = claim("noted");
            must(lease.note("calls the bank"));
            as<InFlight>(leases->claim("noted"));
        }
        CHECK(as<Held>(leases->claim("noted")).previous.note == "calls the bank");
        {
            Lease lease = claim("done");
            Lease moved = std::move(lease);
            must(moved.complete("r"));
            check_error(moved.complete("r"), Code::stale_claim, "ended already");
            check_error(moved.release(), Code::stale_claim);
            check_error(lease.note("moved from"), Code::stale_claim);
        }
        CHECK(as<Completed>(leases->claim("done")).receipt == "r");
        {
            Lease lease = claim("too long");
            check_error(lease.complete(std::string(kReceiptBytesMax + 1, 'r')),
                        Code::invalid_argument);
            // Its work is done, so it must not be free.
        }
        as<Held>(leases->claim("too long"));
        const Claim kept = claim("kept").leave();
        as<InFlight>(leases->claim("kept"));
        CHECK(must(must(leases->keep(kept)).release()));
        Lease lost = claim("lost");
        CHECK(must(cache.release_current("lost")));
        Lease other = claim("lost");
        check_error(lost.complete("r"), Code::stale_claim, "replaced");
        lost = std::move(other);
        must(lost.complete("of the other"));
        check_error(Leases::start(cache, 2ms), Code::invalid_argument, "at least 3");
    });
}

TEST_CASE("lease: holds what was noted since it was claimed, whoever noted it, and nothing else") {
    // Guards against a payment that is made again because its note was written in another place.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const auto leases = must(Leases::start(cache, 1h));
        const auto claim = [&](std::string_view key, ClaimOptions options = {}) {
            return as<Lease>(leases->claim(key, std::move(options)));
        };
        {
            Lease noted = claim("kept");
            must(noted.note("calls the bank"));
            const Lease kept = must(leases->keep(noted.leave()));
        }
        CHECK(as<Held>(leases->claim("kept")).previous.note == "calls the bank");
        {
            const Lease lease = claim("past it");
            must(cache.note(lease.claim(), "calls the bank"));
        }
        as<Held>(leases->claim("past it"));
        { const Lease lease = claim("said before", {.metadata = "from the queue"}); }
        CHECK(claim("said before").claim().attempt == 2);
        // A note of the attempt before says nothing of this one.
        for (const bool notes : {false, true}) {
            CAPTURE(notes);
            const std::string key = notes ? "again" : "inherited";
            Cache dead(*store);
            must(dead.note(must_claim(dead, key, with_lease(1s)), "calls the bank"));
            store.clock.advance(1'001);
            {
                Lease next = claim(key, {.unanswered = Unanswered::hold});
                if (notes) {
                    must(cache.note(next.claim(), "calls the bank"));  // in the same words
                }
            }
            CHECK((must(leases->claim(key)).held() != nullptr) == notes);
        }
    });
}

TEST_CASE("lease: what is left at its last attempt is held") {
    // Guards against work that fails for ever.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.attempts_max = 2});
        const auto leases = must(Leases::start(cache, 1h));
        for (int i = 0; i < 2; ++i) {
            const Lease lease = as<Lease>(leases->claim("of the cache"));
        }
        const Previous previous = as<Held>(leases->claim("of the cache")).previous;
        CHECK(previous.reason.find("last attempt") != std::string::npos);
        { const Lease lease = as<Lease>(leases->claim("of the claim", {.attempts_max = 1})); }
        as<Held>(leases->claim("of the claim"));
        as<Lease>(leases->claim("kept"));
        {
            const Claim left = as<Lease>(leases->claim("kept")).leave();
            const Lease lease = must(leases->keep(Claim{left.ns, left.key, left.claim_sequence}));
        }
        as<Held>(leases->claim("kept"));
    });
}

TEST_CASE("lease: who keeps a claim renews it at once, or hears why not") {
    // Guards against a claim that runs out because its first renewal comes too late, or never.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const auto leases = must(Leases::start(cache, 1h));
        const Claim claim = must_claim(cache, "k", with_lease(30s));
        const Lease kept = must(leases->keep(claim));
        CHECK(kept.claim().deadline_ms == store.clock.now_ms() + 3'600'000);
        CHECK(as<InFlight>(cache.lookup("k")).lease_until_ms == kept.claim().deadline_ms);
        Cache other(*store, {.ns = "other"});
        check_error(leases->keep(must_claim(other, "k")), Code::invalid_argument, "other");
        const Claim lost = must_claim(cache, "lost");
        CHECK(must(cache.release(lost)));
        check_error(leases->keep(lost), Code::stale_claim);
    });
}

TEST_CASE("lease: an outcome can be asked what it is") {
    TestStore store = store_factories().front().make();
    Cache cache(*store);
    const auto leases = must(Leases::start(cache, 1h));
    LeaseOutcome mine = must(leases->claim("k"));
    REQUIRE(mine.lease() != nullptr);
    CHECK(std::as_const(mine).lease() == mine.lease());
    CHECK((!mine.in_flight() && !mine.completed() && !mine.mismatch() && !mine.held()));
    const LeaseOutcome others = must(leases->claim("k"));
    CHECK(others.in_flight() != nullptr);
    CHECK(others.lease() == nullptr);
    must(mine.lease()->complete("r"));
    CHECK(must(leases->claim("k")).completed()->receipt == "r");
    CHECK(LeaseOutcome(Mismatch{.fingerprint = "f"}).mismatch()->fingerprint == "f");
    CHECK(LeaseOutcome(Held()).held() != nullptr);
    CHECK(LeaseOutcome().in_flight() != nullptr);
}

TEST_CASE("lease: is renewed while it lives") {
    TestStore store = store_factories().front().make();
    Cache cache(*store);
    const auto leases = must(Leases::start(cache, 30ms));
    const auto until_ms = [&] { return as<InFlight>(cache.lookup("k")).lease_until_ms; };
    const Lease lease = as<Lease>(leases->claim("k"));
    const std::int64_t before_ms = until_ms();
    store.clock.advance(20);
    while (until_ms() == before_ms) {
        std::this_thread::yield();
    }
    CHECK(until_ms() == before_ms + 20);
}

TEST_CASE("lease: a claim that two keep is renewed until both have left it") {
    TestStore store = store_factories().front().make();
    Cache cache(*store);
    const auto leases = must(Leases::start(cache, 30ms));
    const auto until_ms = [&] { return as<InFlight>(cache.lookup("k")).lease_until_ms; };
    Lease lease = as<Lease>(leases->claim("k"));
    must(leases->keep(lease.claim())).leave();
    store.clock.advance(20);
    const std::int64_t renewed_ms = store.clock.now_ms() + 30;
    for (int polls = 0; polls < 30'000 && until_ms() < renewed_ms; ++polls) {
        std::this_thread::sleep_for(1ms);
    }
    CHECK(until_ms() == renewed_ms);
}

}  // namespace
}  // namespace dedup::test
