// Claiming, leases, fences, expiry and fingerprints, against every store. Time starts at 1,000 ms.
#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "cache/helpers.hpp"

namespace dedup::test {
namespace {

TEST_CASE("an outcome can be asked what it is") {
    const ClaimOutcome claimed = Claimed{};
    CHECK(claimed.claimed() == &std::get<Claimed>(claimed));
    CHECK((!claimed.in_flight() && !claimed.completed() && !claimed.mismatch() && !claimed.held()));
    const LookupOutcome absent = Absent{};
    CHECK((absent.absent() && !absent.in_flight() && !absent.completed()));
    const RememberOutcome fresh = New{7};
    CHECK(fresh.is_new()->claim_sequence == 7);
    CHECK((!fresh.in_flight() && !fresh.completed() && !fresh.mismatch() && !fresh.held()));
}

TEST_CASE("claim: the first caller gets the key, and the record says all of it") {
    // Guards against an option that is accepted and then forgotten.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ns = "orders", .ttl = 60s});
        ClaimOptions options;
        options.owner = "worker-1";
        options.fingerprint = "fp";
        options.event_id = "evt";
        options.metadata = "meta";
        const Claim claim = must_claim(cache, "k", options);
        CHECK(claim.ns == "orders");
        CHECK(claim.key == "k");
        CHECK(claim.attempt == 1);
        CHECK(claim.deadline_ms == 61'000);

        const Record head = head_of(*store, "k", "orders");
        CHECK(claim.claim_sequence == head.sequence);
        CHECK(head.claim_sequence == head.sequence);
        CHECK(head.state() == State::in_flight);
        CHECK(head.timestamp_ms == 1'000);
        CHECK(head.expires_at_ms == 61'000);
        CHECK(head.ttl_ms == 60'000);
        CHECK(head.lease_until_ms == 0);
        CHECK(head.owner == "worker-1");
        CHECK(head.fingerprint == "fp");
        CHECK(head.event_id == "evt");
        CHECK(head.metadata == "meta");
    });
}

TEST_CASE("claim: a duplicate of a claim in flight learns who works on it, at no append") {
    // Guards against two workers on one key, and against duplicates that fill the log.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        ClaimOptions options = with_lease(5s);
        options.owner = "worker-1";
        options.event_id = "evt";
        const Claim claim = must_claim(cache, "k", options);
        store.clock.set(2'000);
        options.owner = "worker-2";
        const InFlight found = as<InFlight>(cache.claim("k", options));
        CHECK(found.owner == "worker-1");
        CHECK(found.since_ms == 1'000);
        CHECK(found.lease_until_ms == 6'000);
        CHECK(found.expires_at_ms == 61'000);
        CHECK(found.claim_sequence == claim.claim_sequence);
        CHECK(found.attempt == 1);
        CHECK(found.event_id == "evt");
        CHECK(records_in(*store) == 1);
    });
}

TEST_CASE("claim: a duplicate of a completed key gets the receipt, at no append") {
    // Guards against work that is done twice, the one thing that this library is for.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        ClaimOptions options;
        options.event_id = "original";
        options.metadata = "meta";
        const Claim claim = must_claim(cache, "k", options);
        store.clock.set(3'000);
        must(cache.complete(claim, "receipt"));
        store.clock.set(4'000);
        options.event_id = "redelivery";
        const Completed found = as<Completed>(cache.claim("k", options));
        CHECK(found.receipt == "receipt");
        CHECK(found.completed_at_ms == 3'000);
        CHECK(found.claim_sequence == claim.claim_sequence);
        CHECK(found.event_id == "original");
        CHECK(found.metadata == "meta");
        CHECK(records_in(*store) == (store.keeps_versions() ? 2 : 1));
    });
}

TEST_CASE("claim: the same key in another namespace is another key") {
    // Guards against one service that swallows another's events.
    on_each_store([](TestStore& store) {
        Cache one(*store, {.ns = "one"});
        Cache two(*store, {.ns = "two"});
        must(one.complete(must_claim(one, "k"), "1"));
        CHECK(as<Claimed>(two.claim("k")).claim.ns == "two");
    });
}

TEST_CASE("lease: honoured up to its last millisecond, then taken over") {
    // Guards against a crashed worker that blocks its key, and against a live one that is robbed.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim first = must_claim(cache, "k", with_lease(5s));
        CHECK(first.deadline_ms == 6'000);
        store.clock.set(6'000);
        as<InFlight>(cache.claim("k"));
        store.clock.set(6'001);
        const Claim second = must_claim(cache, "k", with_lease(5s));
        CHECK(second.attempt == 2);
        CHECK(second.claim_sequence > first.claim_sequence);
        CHECK(head_of(*store, "k").timestamp_ms == 6'001);
        CHECK(head_of(*store, "k").expires_at_ms == 66'001);
        store.clock.set(20'000);
        CHECK(must_claim(cache, "k").attempt == 3);
    });
}

TEST_CASE("lease: without one a claim holds until its time to live ends") {
    // Guards against a takeover that nobody agreed to.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        must_claim(cache, "k");
        store.clock.set(62'000);
        as<InFlight>(cache.claim("k"));
        store.clock.set(62'001);
        CHECK(must_claim(cache, "k").attempt == 2);
    });
}

TEST_CASE("lease: a claim whose lease runs does not expire, however short its time to live") {
    // Guards against a live worker whose key somebody else claims as if it were new.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 10ms});
        const Claim claim = must_claim(cache, "k", with_lease(60s));
        CHECK(claim.deadline_ms == 61'000);
        store.clock.set(61'000);
        as<InFlight>(cache.claim("k"));
        const Claim renewed = must(cache.renew(claim, 60s));
        store.clock.set(121'000);
        as<InFlight>(cache.claim("k"));
        must(cache.complete(renewed, "r"));
        CHECK(head_of(*store, "k").expires_at_ms == 121'010);  // the receipt has the ttl asked for

        ClaimOptions absolute = with_lease(60s);
        absolute.expires_at_ms = 121'001;
        must_claim(cache, "absolute", absolute);
        CHECK(head_of(*store, "absolute").expires_at_ms == 181'000);
    });
}

TEST_CASE("fence: a claim that was taken over can do nothing to the newer one") {
    // Guards against the worker that slept through its lease and wakes up to overwrite the result.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim old = must_claim(cache, "k", with_lease(5s));
        store.clock.set(10'000);
        ClaimOptions options = with_lease(5s);
        options.owner = "worker-2";
        const Claim current = must_claim(cache, "k", options);
        const std::string fence = std::to_string(current.claim_sequence);

        const auto check_stale = [&] {
            check_error(cache.complete(old, "old"), Code::stale_claim, fence);
            check_error(cache.renew(old, 5s), Code::stale_claim, fence);
            CHECK(head_of(*store, "k").claim_sequence == current.claim_sequence);
        };
        check_stale();
        check_error(cache.complete(old, "old"), Code::stale_claim, "worker-2");
        check_error(cache.release(old), Code::stale_claim, "worker-2");
        CHECK(records_in(*store) == (store.keeps_versions() ? 2 : 1));

        must(cache.complete(current, "new"));
        check_stale();
        check_error(cache.complete(old, "new"), Code::stale_claim);  // the fence comes before bytes
        CHECK(!must(cache.release(old)));
        CHECK(as<Completed>(cache.lookup("k")).receipt == "new");
    });
}

TEST_CASE("fence: a claim that was released or has expired stays dead") {
    // Guards against a fence that comes to life again because the key looks the same (ABA).
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim released = must_claim(cache, "k");
        CHECK(must(cache.release(released)));
        check_error(cache.complete(released, "r"), Code::stale_claim, "released");
        check_error(cache.renew(released, 1s), Code::stale_claim, "released");

        const Claim again = must_claim(cache, "k");
        CHECK(again.claim_sequence > released.claim_sequence);
        CHECK(again.attempt == 2);
        check_error(cache.complete(released, "r"), Code::stale_claim);
        check_error(cache.release(released), Code::stale_claim);

        store.clock.set(62'001);
        check_error(cache.complete(again, "r"), Code::stale_claim, "expired");
        check_error(cache.renew(again, 1s), Code::stale_claim, "expired");
        CHECK(!must(cache.release(again)));
        must_claim(cache, "k");
        check_error(cache.complete(again, "r"), Code::stale_claim);

        Claim invented = again;
        invented.key = "never claimed";
        check_error(cache.complete(invented, "r"), Code::stale_claim, "claim the key again");
        invented.key = "k";
        invented.claim_sequence = 0;
        check_error(cache.complete(invented, "r"), Code::stale_claim);
    });
}

TEST_CASE("renew: moves the deadline and keeps the fence") {
    // Guards against a worker that loses its claim by keeping it alive.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim claim = must_claim(cache, "k", with_lease(5s));
        store.clock.set(5'000);
        const Claim renewed = must(cache.renew(claim, 10s));
        CHECK(renewed.claim_sequence == claim.claim_sequence);
        CHECK(renewed.attempt == 1);
        CHECK(renewed.deadline_ms == 15'000);
        const Record head = head_of(*store, "k");
        CHECK(head.sequence > claim.claim_sequence);
        CHECK(head.timestamp_ms == 1'000);
        CHECK(head.expires_at_ms == 61'000);

        store.clock.set(15'000);
        as<InFlight>(cache.claim("k"));
        must(cache.complete(claim, "r"));  // the handle from before is as good
        check_error(cache.renew(claim, 1s), Code::stale_claim, "completed");
    });
}

TEST_CASE("renew: works after the lease ran out if nobody took over, and gives a lease") {
    // Guards against work that is thrown away although nobody else has begun it.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim late = must_claim(cache, "late", with_lease(5s));
        store.clock.set(30'000);
        CHECK(must(cache.renew(late, 5s)).deadline_ms == 35'000);
        as<InFlight>(cache.claim("late"));

        const Claim unleased = must_claim(cache, "unleased");
        CHECK(must(cache.renew(unleased, 1s)).deadline_ms == 31'000);
        store.clock.set(31'001);
        CHECK(must_claim(cache, "unleased").attempt == 2);
        check_error(cache.renew(unleased, 1s), Code::stale_claim);
    });
}

TEST_CASE("expiry: a claim goes when its time and the grace are over, and not before") {
    // Guards against a receipt or a claim that is dropped a millisecond early, or never.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim claim = must_claim(cache, "claimed");
        must_claim(cache, "claimed-only");
        store.clock.set(60'999);
        as<InFlight>(cache.lookup("claimed-only"));
        store.clock.set(62'000);
        as<InFlight>(cache.lookup("claimed-only"));
        must(cache.complete(claim, "r"));  // the completion starts the clock again
        store.clock.set(62'001);
        as<Absent>(cache.lookup("claimed-only"));
        store.clock.set(122'999);
        as<Completed>(cache.lookup("claimed"));
        store.clock.set(123'000);
        as<Completed>(cache.lookup("claimed"));
        as<Completed>(cache.claim("claimed"));
        store.clock.set(123'001);
        as<Absent>(cache.lookup("claimed"));
        const Claim next = must_claim(cache, "claimed");
        CHECK(next.attempt == 1);
        CHECK(next.claim_sequence > claim.claim_sequence);
    });
}

TEST_CASE("expiry: a claim that nobody answered is taken over, not begun again") {
    // Guards against a second worker who is told that nobody was there before him.
    on_each_store([](TestStore& store) {
        std::vector<Change> seen;
        Cache cache(*store, {.ttl = 60s, .observer = [&](const Transition& transition) {
                                 seen.push_back(transition.change);
                             }});
        const Claim dead = must_claim(cache, "claimed");
        must_claim(cache, "leased", with_lease(1s));
        must_claim(cache, "remembered");
        CHECK(must(cache.release(must_claim(cache, "released"))));
        as<New>(cache.remember("completed", "r"));
        seen.clear();

        store.clock.advance(120'000);
        as<Absent>(cache.lookup("claimed"));  // it has expired all the same
        const Claim next = must_claim(cache, "claimed");
        CHECK(next.attempt == 2);
        CHECK(must_claim(cache, "leased").attempt == 2);
        as<New>(cache.remember("remembered", "r"));
        CHECK(head_of(*store, "remembered").attempt == 2);
        // What was answered is forgotten when its time is over.
        CHECK(must_claim(cache, "released").attempt == 1);
        CHECK(must_claim(cache, "completed").attempt == 1);
        CHECK(seen == std::vector{Change::taken_over, Change::taken_over, Change::remembered,
                                  Change::claimed, Change::claimed});
        CHECK(cache.metrics().counts.taken_over == 2);
        check_error(cache.complete(dead, "r"), Code::stale_claim, "replaced");

        // It goes on counting, whatever the attempts' ends, until one is answered or swept.
        store.clock.advance(120'000);
        CHECK(must_claim(cache, "claimed").attempt == 3);
        CHECK(must(store->history({"default", "claimed"})).size() ==
              (store.keeps_versions() ? 3 : 1));
        store.clock.advance(120'000);
        must(store->sweep());
        CHECK(must_claim(cache, "claimed").attempt == 1);
    });
}

TEST_CASE("outcomes made by default let nobody work") {
    // Guards against an answer that was never filled in and reads as "go ahead".
    CHECK(std::holds_alternative<InFlight>(*Result<ClaimOutcome>()));
    CHECK(std::holds_alternative<InFlight>(*Result<LookupOutcome>()));
    CHECK(std::holds_alternative<InFlight>(*Result<RememberOutcome>()));
    // Nor does a claim made by default complete or free anything.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        must_claim(cache, "k");
        check_error(cache.complete(Claim{}, "r"), Code::invalid_argument);
        check_error(cache.complete({.ns = "default", .key = "k"}, "r"), Code::stale_claim);
        check_error(cache.release({.ns = "default", .key = "k"}), Code::stale_claim);
    });
}

TEST_CASE("expiry: absolute, by option, and never") {
    // Guards against a receipt that outlives the day it was meant for, or does not last.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim absolute = must_claim(cache, "absolute", with_expiry(10'000));
        CHECK(absolute.deadline_ms == 10'000);
        store.clock.set(9'000);
        must(cache.complete(absolute, "r"));  // does not move it
        store.clock.set(11'000);
        as<Completed>(cache.lookup("absolute"));
        store.clock.set(11'001);
        as<Absent>(cache.lookup("absolute"));

        CHECK(must_claim(cache, "short", with_ttl(1ms)).deadline_ms == 11'002);
        const Claim forever = must_claim(cache, "forever", with_ttl(kForever));
        CHECK(forever.deadline_ms == 0);
        must_claim(cache, "forever-leased", with_lease(1s));
        store.clock.set(std::numeric_limits<std::int64_t>::max() - 1);
        as<InFlight>(cache.claim("forever"));
        must(cache.complete(forever, "r"));
        CHECK(head_of(*store, "forever").expires_at_ms == 0);

        // Later than the end of time is the end of time.
        CHECK(must_claim(cache, "end", with_ttl(kForever - 1ms)).deadline_ms ==
              std::numeric_limits<std::int64_t>::max());
        const Claim leased = must_claim(cache, "leased", with_lease(milliseconds::max()));
        CHECK(must(cache.renew(leased, milliseconds::max())).deadline_ms ==
              std::numeric_limits<std::int64_t>::max());
        must(cache.complete(leased, "r"));
    });
}

TEST_CASE("clock: set back, it neither extends nor brings back anything") {
    // Guards against a machine whose clock jumps, and a receipt that reappears after it expired.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        must_claim(cache, "expired");
        store.clock.set(50'000);
        must_claim(cache, "leased", with_lease(20s));
        store.clock.set(62'001);
        as<Absent>(cache.lookup("expired"));

        store.clock.set(2'000);
        as<Absent>(cache.lookup("expired"));
        must_claim(cache, "new");
        CHECK(head_of(*store, "new").timestamp_ms == 62'001);
        CHECK(head_of(*store, "new").expires_at_ms == 122'001);
        if (store.durable()) {
            store.reopen();
            Cache reopened(*store, {.ttl = 60s});
            as<Absent>(reopened.lookup("expired"));
        }
        store.clock.set(70'001);
        Cache later(*store, {.ttl = 60s});
        CHECK(must_claim(later, "leased").attempt == 2);
    });
}

TEST_CASE("mismatch: answered, counted while in flight, and nothing else about the key changes") {
    // Guards against a key that is reused for another payload and silently gets the wrong receipt.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim claim = must_claim(cache, "k", with_fingerprint("one"));
        store.clock.set(2'000);
        const Mismatch found = as<Mismatch>(cache.claim("k", with_fingerprint("two")));
        CHECK(found.fingerprint == "one");
        CHECK(found.state == State::in_flight);
        CHECK(found.since_ms == 1'000);
        CHECK(found.conflicts == 1);
        as<InFlight>(cache.claim("k", with_fingerprint("one")));
        as<InFlight>(cache.claim("k"));  // no fingerprint: not compared

        must(cache.complete(claim, "receipt"));  // the fence still holds
        const Record completed = head_of(*store, "k");
        CHECK(completed.conflict.count == 1);
        store.clock.set(30'000);
        const Mismatch after = as<Mismatch>(cache.remember("k", "x", with_fingerprint("three")));
        CHECK(after.fingerprint == "one");
        CHECK(after.state == State::completed);
        CHECK(after.since_ms == 2'000);
        CHECK(after.conflicts == 1);
        CHECK(head_of(*store, "k") == completed);
        CHECK(as<Completed>(cache.claim("k", with_fingerprint("one"))).receipt == "receipt");
    });
}

TEST_CASE("mismatch: wrong requests never keep a key alive") {
    // Guards against a client that retries the wrong request and so blocks the key forever.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        must_claim(cache, "k", with_fingerprint("one"));
        for (const std::int64_t now_ms : {20'000, 40'000, 60'000, 62'000}) {
            store.clock.set(now_ms);
            as<Mismatch>(cache.claim("k", with_fingerprint("two")));
            CHECK(head_of(*store, "k").expires_at_ms == 61'000);
        }
        CHECK(head_of(*store, "k").conflict.fingerprints.size() == 1);
        store.clock.set(62'001);
        CHECK(must_claim(cache, "k", with_fingerprint("two")).attempt == 2);
        CHECK(head_of(*store, "k").conflict.count == 0);
    });
}

TEST_CASE("mismatch: of a completed key is not written, and does not put off its eviction") {
    // Guards against a stranger who makes the log grow, or decides which receipts are forgotten.
    on_each_factory([](const StoreFactory& factory) {
        TestStore store = factory.make({.keys_max = 3, .evict_oldest = true});
        Cache cache(*store);
        for (const char* key : {"first", "second", "third"}) {
            as<New>(cache.remember(key, "r", with_fingerprint("right")));
        }
        const StoreStats before = must(store->stats());
        for (int i = 0; i < 20; ++i) {
            CHECK(as<Mismatch>(cache.claim("first", with_fingerprint("wrong"))).conflicts == 0);
            as<Mismatch>(cache.remember("first", "x", with_fingerprint("worse")));
        }
        const StoreStats after = must(store->stats());
        CHECK(after.records == before.records);
        CHECK(after.log_bytes == before.log_bytes);
        CHECK(after.last_sequence == before.last_sequence);
        CHECK(cache.metrics().counts.mismatches == 40);

        must_claim(cache, "new");
        as<Absent>(cache.lookup("first"));
        as<Completed>(cache.lookup("second"));
        as<Completed>(cache.lookup("third"));
    });
}

TEST_CASE("mismatch: a lease that ran out makes no difference, a release does") {
    // Guards against a takeover by another request than the one that was begun.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim claim = must_claim(cache, "k", [] {
            ClaimOptions options = with_lease(1s);
            options.fingerprint = "one";
            return options;
        }());
        store.clock.set(10'000);
        as<Mismatch>(cache.claim("k", with_fingerprint("two")));
        CHECK(must(cache.release(claim)));
        CHECK(head_of(*store, "k").conflict == Conflict{});
        CHECK(must_claim(cache, "k", with_fingerprint("two")).attempt == 2);
    });
}

TEST_CASE("mismatch: the first eight fingerprints are kept, all requests are counted") {
    // Guards against a conflict record that grows without bound.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        must_claim(cache, "k", with_fingerprint("right"));
        for (std::uint64_t i = 1; i <= 20; ++i) {
            const auto wrong = with_fingerprint("wrong-" + std::to_string(i % 10));
            CHECK(as<Mismatch>(cache.claim("k", wrong)).conflicts == i);
        }
        const Conflict conflict = head_of(*store, "k").conflict;
        CHECK(conflict.count == 20);
        REQUIRE(conflict.fingerprints.size() == kConflictFingerprintsMax);
        CHECK(conflict.fingerprints.front() == "wrong-1");
        CHECK(conflict.fingerprints.back() == "wrong-8");
    });
}

TEST_CASE("bad requests are refused by field, and append nothing") {
    // Guards against an error that leaves the caller guessing, and a limit that crashes.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const auto refuse = [&](std::string_view words, const auto& spoil) {
            ClaimOptions options;
            spoil(options);
            check_error(cache.claim("k", options), Code::invalid_argument, words);
        };
        refuse("lease is 0 ms", [](auto& o) { o.lease = 0ms; });
        refuse("lease is -5 ms", [](auto& o) { o.lease = -5ms; });
        refuse("lease", [](auto& o) { o.lease = milliseconds::min(); });
        refuse("ttl is 0 ms", [](auto& o) { o.ttl = 0ms; });
        refuse("ttl", [](auto& o) { o.ttl = milliseconds::min(); });
        refuse("ttl and expires_at_ms", [](auto& o) {
            o.ttl = 1s;
            o.expires_at_ms = 100'000;
        });
        refuse("expires_at_ms is 1000", [](auto& o) { o.expires_at_ms = 1'000; });
        refuse("expires_at_ms", [](auto& o) { o.expires_at_ms = 0; });
        refuse("expires_at_ms", [](auto& o) { o.expires_at_ms = -1; });
        refuse("owner is 1,025 bytes", [](auto& o) { o.owner.assign(1025, 'o'); });
        refuse("fingerprint is 1,025 bytes", [](auto& o) { o.fingerprint.assign(1025, 'o'); });
        refuse("event_id is 1,025 bytes", [](auto& o) { o.event_id.assign(1025, 'o'); });
        refuse("metadata is 65,537 bytes", [](auto& o) { o.metadata.assign(65'537, 'o'); });

        check_error(cache.claim(""), Code::invalid_argument, "key");
        check_error(cache.claim(std::string(1025, 'k')), Code::invalid_argument, "1,025");
        check_error(cache.lookup(""), Code::invalid_argument, "key");
        check_error(cache.wait("", 1s), Code::invalid_argument, "key");
        check_error(cache.release_current(""), Code::invalid_argument, "key");
        check_error(cache.complete_current("", "r"), Code::invalid_argument, "key");
        check_error(cache.remember("", "r"), Code::invalid_argument, "key");
        check_error(cache.remember("k", "r", with_lease(1s)), Code::invalid_argument, "lease");
        const std::string large(kReceiptBytesMax + 1, 'r');
        check_error(cache.remember("k", large), Code::invalid_argument, "receipt is 16,777,217");
        CHECK(records_in(*store) == 0);

        const Claim claim = must_claim(cache, "k");
        check_error(cache.complete(claim, large), Code::invalid_argument, "receipt is 16,777,217");
        check_error(cache.complete(claim, "", {.ttl = 0ms, .metadata = {}}), Code::invalid_argument,
                    "ttl");
        check_error(cache.complete(claim, "", {.ttl = {}, .metadata = std::string(65'537, 'm')}),
                    Code::invalid_argument, "metadata is 65,537");
        check_error(cache.renew(claim, 0ms), Code::invalid_argument, "lease is 0 ms");
        CHECK(records_in(*store) == 1);
    });
}

TEST_CASE("bad requests: a claim of another namespace, and a cache made wrong") {
    // Guards against a handle that completes a key of the same name elsewhere.
    on_each_store([](TestStore& store) {
        Cache one(*store, {.ns = "one"});
        Cache two(*store, {.ns = "two"});
        const Claim claim = must_claim(one, "k");
        must_claim(two, "k");
        check_error(two.complete(claim, "r"), Code::invalid_argument, "one");
        check_error(two.release(claim), Code::invalid_argument, "one");
        check_error(two.renew(claim, 1s), Code::invalid_argument, "one");

        Cache no_ns(*store, {.ns = ""});
        check_error(no_ns.claim("k"), Code::invalid_argument, "namespace");
        check_error(no_ns.lookup("k"), Code::invalid_argument, "namespace");
        Cache no_ttl(*store, {.ttl = 0ms});
        check_error(no_ttl.claim("k"), Code::invalid_argument, "ttl");
        const ClaimRequest requests[] = {{"a", {}}, {"b", {}}, {"c", {}}};
        const auto answers = no_ttl.claim_many(requests);
        REQUIRE(answers.size() == 3);
        check_error(answers[2], Code::invalid_argument, "ttl");
    });
}

}  // namespace
}  // namespace dedup::test
