// Completing, releasing, remembering and looking up, against every store. Time starts at 1,000 ms.
#include <doctest/doctest.h>

#include <string>

#include "cache/helpers.hpp"

namespace dedup::test {
namespace {

TEST_CASE("complete: stores the receipt and keeps what the claim said") {
    // Guards against a completed record that no longer tells who did it and for which event.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        ClaimOptions options = with_lease(5s);
        options.owner = "worker";
        options.fingerprint = "fp";
        options.event_id = "evt";
        options.metadata = "from the claim";
        const Claim claim = must_claim(cache, "k", options);
        store.clock.set(4'000);
        must(cache.complete(claim, "receipt\0 with all bytes"s));
        const Record head = head_of(*store, "k");
        CHECK(head.state() == State::completed);
        CHECK(head.receipt == "receipt\0 with all bytes"s);
        CHECK(head.claim_sequence == claim.claim_sequence);
        CHECK(head.timestamp_ms == 4'000);
        CHECK(head.expires_at_ms == 64'000);
        CHECK(head.ttl_ms == 0);
        CHECK(head.lease_until_ms == 0);
        CHECK(head.attempt == 1);
        CHECK(head.owner == "worker");
        CHECK(head.fingerprint == "fp");
        CHECK(head.event_id == "evt");
        CHECK(head.metadata == "from the claim");
    });
}

TEST_CASE("complete: a time to live and metadata of its own") {
    // Guards against completion options that have no effect.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        must(cache.complete(must_claim(cache, "ttl"), "r", {.ttl = 5s, .metadata = "new"}));
        CHECK(head_of(*store, "ttl").expires_at_ms == 6'000);
        CHECK(head_of(*store, "ttl").metadata == "new");
        must(cache.complete(must_claim(cache, "forever"), "r", {.ttl = kForever, .metadata = ""}));
        CHECK(head_of(*store, "forever").expires_at_ms == 0);
        must(cache.complete(must_claim(cache, "absolute", with_expiry(10'000)), "r",
                            {.ttl = 1s, .metadata = {}}));
        CHECK(head_of(*store, "absolute").expires_at_ms == 2'000);
        must(cache.complete(must_claim(cache, "own", with_ttl(7s)), "r"));
        CHECK(head_of(*store, "own").expires_at_ms == 8'000);
    });
}

TEST_CASE("complete: again with equal bytes is a no-op, with others an error") {
    // Guards against a receipt that changes after somebody has acted on it.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim claim = must_claim(cache, "k");
        must(cache.complete(claim, ""));  // an empty receipt is a receipt
        store.clock.set(9'000);
        must(cache.complete(claim, ""));
        must(cache.complete_current("k", ""));
        check_error(cache.complete(claim, "other"), Code::receipt_mismatch, "\"k\"");
        check_error(cache.complete_current("k", "other"), Code::receipt_mismatch);
        CHECK(records_in(*store) == (store.keeps_versions() ? 2 : 1));
        CHECK(as<Completed>(cache.lookup("k")).receipt.empty());
        CHECK(as<Completed>(cache.lookup("k")).completed_at_ms == 1'000);
    });
}

TEST_CASE("complete: after the lease ran out, as long as nobody has taken over") {
    // Guards against work that is thrown away although nobody else has begun it.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim claim = must_claim(cache, "k", with_lease(1s));
        store.clock.set(30'000);
        must(cache.complete(claim, "late"));
        CHECK(as<Completed>(cache.claim("k")).receipt == "late");
    });
}

TEST_CASE("complete by key: whatever claim is current, and none is an error") {
    // Guards against a receipt for work that nobody claimed.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        check_error(cache.complete_current("k", "r"), Code::not_claimed, "\"k\"");
        const Claim claim = must_claim(cache, "k");
        must(cache.complete_current("k", "r"));
        CHECK(head_of(*store, "k").claim_sequence == claim.claim_sequence);
        must(cache.complete(claim, "r"));

        must_claim(cache, "released");
        CHECK(must(cache.release_current("released")));
        check_error(cache.complete_current("released", "r"), Code::not_claimed);
        must_claim(cache, "expired");
        store.clock.set(62'001);
        check_error(cache.complete_current("expired", "r"), Code::not_claimed);
        check_error(cache.complete_current("k", "r"), Code::not_claimed);
    });
}

TEST_CASE("release: lets somebody else try, and says whether there was anything to release") {
    // Guards against a key that stays blocked after its worker gave up.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        CHECK(!must(cache.release_current("k")));
        ClaimOptions options = with_lease(5s);
        options.owner = "worker";
        options.fingerprint = "fp";
        options.metadata = "meta";
        const Claim claim = must_claim(cache, "k", options);
        store.clock.set(2'000);
        CHECK(must(cache.release(claim)));

        const Record head = head_of(*store, "k");
        CHECK(head.state() == State::released);
        CHECK(head.claim_sequence == claim.claim_sequence);
        CHECK(head.timestamp_ms == 2'000);
        CHECK(head.expires_at_ms == 62'000);
        CHECK(head.attempt == 1);
        CHECK(head.owner == "worker");
        CHECK(head.fingerprint.empty());
        CHECK(head.metadata == "meta");  // for the next one, as the note
        CHECK(head.began_ms == 1'000);

        as<Absent>(cache.lookup("k"));
        CHECK(!must(cache.release(claim)));
        CHECK(!must(cache.release_current("k")));
        CHECK(records_in(*store) == (store.keeps_versions() ? 2 : 1));
        CHECK(must_claim(cache, "k").attempt == 2);
    });
}

TEST_CASE("release: never touches a completed key") {
    // Guards against a clean-up path that deletes a receipt.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim claim = must_claim(cache, "k");
        must(cache.complete(claim, "r"));
        CHECK(!must(cache.release(claim)));
        CHECK(!must(cache.release_current("k")));
        CHECK(as<Completed>(cache.claim("k")).receipt == "r");
        CHECK(records_in(*store) == (store.keeps_versions() ? 2 : 1));
    });
}

TEST_CASE("release: tombstones expire by themselves, even where nothing else does") {
    // Guards against a store that fills with what was given up.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        must_claim(cache, "own", with_ttl(5s));
        must_claim(cache, "absolute", with_expiry(2'000));
        CHECK(must(cache.release_current("own")));
        CHECK(must(cache.release_current("absolute")));
        CHECK(head_of(*store, "own").expires_at_ms == 6'000);
        CHECK(head_of(*store, "absolute").expires_at_ms == 61'000);
        store.clock.set(7'001);
        CHECK(must_claim(cache, "own").attempt == 1);  // forgotten
        CHECK(must_claim(cache, "absolute").attempt == 2);

        Cache forever(*store, {.ns = "forever", .ttl = kForever});
        must_claim(forever, "k");
        CHECK(must(forever.release_current("k")));
        CHECK(head_of(*store, "k", "forever").expires_at_ms == 7'001 + 86'400'000);
    });
}

TEST_CASE("remember: new once, a duplicate ever after") {
    // Guards against a filter that lets a line through twice.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        ClaimOptions options;
        options.owner = "filter";
        options.event_id = "evt";
        options.metadata = "meta";
        const New made = as<New>(cache.remember("k", "receipt", options));
        const Record head = head_of(*store, "k");
        CHECK(made.claim_sequence == head.sequence);
        CHECK(head.state() == State::completed);
        CHECK(head.claim_sequence == head.sequence);
        CHECK(head.timestamp_ms == 1'000);
        CHECK(head.expires_at_ms == 61'000);
        CHECK(head.ttl_ms == 0);
        CHECK(head.owner == "filter");

        const Completed found = as<Completed>(cache.remember("k", "other"));
        CHECK(found.receipt == "receipt");
        CHECK(found.event_id == "evt");
        CHECK(found.metadata == "meta");
        as<Completed>(cache.claim("k"));
        CHECK(records_in(*store) == 1);

        store.clock.set(62'001);
        as<New>(cache.remember("k", "second"));
        CHECK(as<Completed>(cache.lookup("k")).receipt == "second");
        as<New>(cache.remember("absolute", "", with_expiry(70'000)));
        CHECK(head_of(*store, "absolute").expires_at_ms == 70'000);
        as<New>(cache.remember("forever", "", with_ttl(kForever)));
        CHECK(head_of(*store, "forever").expires_at_ms == 0);
    });
}

TEST_CASE("remember: waits for no claim, but respects one that is held") {
    // Guards against a receipt that appears while somebody else does the work.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        must_claim(cache, "held");
        as<InFlight>(cache.remember("held", "r"));
        const Claim leased = must_claim(cache, "leased", with_lease(1s));
        store.clock.set(2'000);
        as<InFlight>(cache.remember("leased", "r"));
        store.clock.set(2'001);
        as<New>(cache.remember("leased", "r"));
        CHECK(head_of(*store, "leased").attempt == 2);
        check_error(cache.complete(leased, "r"), Code::stale_claim);

        must_claim(cache, "released");
        CHECK(must(cache.release_current("released")));
        as<New>(cache.remember("released", "r"));
    });
}

TEST_CASE("lookup: tells the state and leaves no trace") {
    // Guards against a monitor that keeps keys alive by looking at them.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        as<Absent>(cache.lookup("k"));
        const Claim claim = must_claim(cache, "k", with_lease(1s));
        CHECK(as<InFlight>(cache.lookup("k")).claim_sequence == claim.claim_sequence);
        store.clock.set(5'000);
        CHECK(as<InFlight>(cache.lookup("k")).lease_until_ms == 2'000);  // run out, not taken over
        must(cache.complete(claim, "r"));
        CHECK(as<Completed>(cache.lookup("k")).receipt == "r");
        CHECK(records_in(*store) == (store.keeps_versions() ? 2 : 1));
        CHECK(head_of(*store, "k").expires_at_ms == 65'000);
    });
}

TEST_CASE("messages show keys with any bytes as printable text") {
    // Guards against a key that garbles a terminal or a log line.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        check_error(cache.complete_current("a\n\"\x1b\xff", "r"), Code::not_claimed,
                    R"("a\x0a\x22\x1b\xff")");
        const auto error = cache.complete_current(std::string(1024, 'k'), "r");
        check_error(error, Code::not_claimed, "kkk\"...");
        CHECK(error.error().message.size() < 200);
    });
}

}  // namespace
}  // namespace dedup::test
