// The answers that those know who come from a dedup cache on an event stream: claim_or_get,
// complete_receipt, release_claim, lookup, key_hash, and a sweeper that counts. Each case of the
// protocol gives the same here, without what such a cache costs.
#include <doctest/doctest.h>

#include <string>

#include "cache/helpers.hpp"
#include "dedup/sweep.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

// Two keys with one FNV-1a hash.
constexpr std::string_view kCollidingA = "5mc4mmqtgfpga";
constexpr std::string_view kCollidingB = "obvhalzhbrwfn";

ClaimOptions by(std::string event_id) {
    return {.event_id = std::move(event_id)};
}

TEST_CASE("stream cache: claim_or_get in each state of a key") {
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 10s});
        as<Claimed>(cache.claim("k", by("e-1")));
        CHECK(as<InFlight>(cache.claim("k", by("e-2"))).event_id == "e-1");
        CHECK(must(cache.release_current("k")));
        CHECK(as<Claimed>(cache.claim("k", by("e-3"))).claim.attempt == 2);
        must(cache.complete_current("k", "receipt"));
        const auto done = as<Completed>(cache.claim("k", by("e-4")));
        CHECK(done.receipt == "receipt");
        CHECK(done.event_id == "e-3");
        store.clock.advance(11'001);
        CHECK(as<Claimed>(cache.claim("k", by("e-5"))).claim.attempt == 1);
        store.clock.advance(11'001);  // in flight all the time: expired, too
        as<Claimed>(cache.claim("k", by("e-6")));
    });
}

TEST_CASE("stream cache: complete_receipt in each state of a key") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        check_error(cache.complete_current("k", "r"), Code::not_claimed);
        const Claim claim = must_claim(cache, "k");
        must(cache.complete(claim, "r"));
        must(cache.complete(claim, "r"));
        must(cache.complete_current("k", "r"));
        check_error(cache.complete(claim, "other"), Code::receipt_mismatch);
        CHECK(as<Completed>(cache.lookup("k")).receipt == "r");
        const Claim released = must_claim(cache, "gone");
        CHECK(must(cache.release(released)));
        check_error(cache.complete(released, "r"), Code::stale_claim);
        check_error(cache.complete_current("gone", "r"), Code::not_claimed);
    });
}

TEST_CASE("stream cache: release_claim in each state of a key") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        CHECK_FALSE(must(cache.release_current("k")));
        const Claim claim = must_claim(cache, "k");
        CHECK(must(cache.release(claim)));
        CHECK_FALSE(must(cache.release(claim)));
        must_claim(cache, "k");
        check_error(cache.release(claim), Code::stale_claim);
        must(cache.complete_current("k", "r"));
        CHECK_FALSE(must(cache.release_current("k")));
        CHECK(as<Completed>(cache.lookup("k")).receipt == "r");
    });
}

TEST_CASE("stream cache: a lookup appends nothing and refreshes nothing") {
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 10s});
        as<Absent>(cache.lookup("k"));
        must_claim(cache, "k");
        const std::uint64_t records = records_in(*store);
        store.clock.advance(9'000);
        as<InFlight>(cache.lookup("k"));
        store.clock.advance(2'001);
        as<Absent>(cache.lookup("k"));
        CHECK(records_in(*store) == records);
    });
}

TEST_CASE("stream cache: key_hash names the stream, and colliding keys are two keys") {
    on_each_store([](TestStore& store) {
        // The published test vectors of FNV-1a.
        CHECK(stream_name("ns", "a") == "ns:af63dc4c8601ec8c");
        CHECK(stream_name("ns", "foobar") == "ns:85944171f73967e8");

        Cache cache(*store);
        REQUIRE(stream_name("default", kCollidingA) == stream_name("default", kCollidingB));
        must_claim(cache, kCollidingA);
        as<Absent>(cache.lookup(kCollidingB));
        must_claim(cache, kCollidingB);
        must(cache.complete_current(kCollidingA, "a"));
        must(cache.complete_current(kCollidingB, "b"));
        CHECK(as<Completed>(cache.claim(kCollidingA)).receipt == "a");
        CHECK(as<Completed>(cache.claim(kCollidingB)).receipt == "b");
    });
}

TEST_CASE("stream cache: a slow claimer cannot complete over its successor") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim slow = must_claim(cache, "k", with_lease(1s));
        store.clock.advance(1'001);
        const Claim fast = must_claim(cache, "k", with_lease(1s));
        check_error(cache.complete(slow, "slow"), Code::stale_claim);
        must(cache.complete(fast, "fast"));
    });
}

TEST_CASE("stream cache: no call reads a key's whole history, or the whole store") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        Cache cache(hooked);
        for (int i = 0; i < 500; ++i) {
            must_claim(cache, "k");
            CHECK(must(cache.release_current("k")));
        }
        must_claim(cache, "k");
        must(cache.complete_current("k", "r"));
        as<Completed>(cache.claim("k"));
        as<Completed>(cache.lookup("k"));
        CHECK(hooked.walks == 0);
        CHECK(hooked.items == 1'002);  // the versions are there, and nobody reads them
    });
}

TEST_CASE("stream cache: a sweep counts what it scanned, what had expired and what stays") {
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 10s});
        const std::string receipt(2'000, 'r');
        for (int i = 0; i < 200; ++i) {
            const std::string key = "brief-" + std::to_string(i);
            must_claim(cache, key);
            if (i % 4 == 1) {
                CHECK(must(cache.release_current(key)));
            } else if (i % 4 != 0) {
                must(cache.complete_current(key, receipt));
            }
        }
        for (int i = 0; i < 30; ++i) {
            as<New>(cache.remember("long-" + std::to_string(i), "r", with_ttl(1h)));
        }
        store.clock.advance(11'001);
        const auto report = must(store->sweep());
        CHECK(report.removed.total() + report.retained.total() == 230);  // scanned
        CHECK(report.removed.total() == 200);                            // expired
        CHECK(report.removed.in_flight == 50);
        CHECK(report.removed.released == 50);
        CHECK(report.removed.completed == 100);
        CHECK(report.retained.total() == 30);
        CHECK(must(store->stats()).streams() == 30);
        if (store.has_segments()) {
            // Of 200 KB in segments of 64 KiB, all that were full are given back.
            CHECK(report.segments_dropped + report.segments_compacted > 0);
            CHECK(report.bytes_reclaimed() > 100'000);
        }
        const auto again = must(store->sweep());
        CHECK(again.removed.total() == 0);
        CHECK(again.retained.total() == 30);
        CHECK(as<Completed>(cache.lookup("long-7")).receipt == "r");
        as<Absent>(cache.lookup("brief-7"));
    });
}

}  // namespace
}  // namespace dedup::test
