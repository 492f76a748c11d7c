// Each call is counted once, as what it came to; on every store, alone, in spans and from many
// threads at once.

#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "cache/helpers.hpp"
#include "support/hooked_store.hpp"
#include "support/stores.hpp"

using namespace dedup;
using namespace dedup::test;

namespace {

// Checks what a cache has counted since the last check.
class Counted {
  public:
    explicit Counted(const Cache& cache) : cache_(cache) {}

    void check(const CacheCounts& since, const char* what) {
        INFO(what);
        total_ += since;
        const CacheCounts counts = cache_.metrics().counts;
        CHECK(counts == total_);
        total_ = counts;
    }

  private:
    const Cache& cache_;
    CacheCounts total_;
};

}  // namespace

TEST_CASE("claims are counted by their outcome") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        Counted counted(cache);
        const Claim held = must_claim(cache, "k", with_lease(10s));
        counted.check({.claimed = 1}, "first claim");
        as<InFlight>(cache.claim("k"));
        counted.check({.in_flight = 1}, "while it is in flight");
        store.clock.advance(11'000);
        const Claim taken = must_claim(cache, "k", with_fingerprint("f"));
        counted.check({.taken_over = 1}, "after the lease");
        as<Mismatch>(cache.claim("k", with_fingerprint("g")));
        counted.check({.mismatches = 1}, "another request");
        check_error(cache.complete(held, "r"), Code::stale_claim);
        check_error(cache.renew(held, 1s), Code::stale_claim);
        counted.check({.stale = 2}, "with the old fence");
        must(cache.renew(taken, 20s));
        counted.check({.renewed = 1}, "renew");
        must(cache.complete(taken, "r"));
        must(cache.complete(taken, "r"));
        counted.check({.completed = 1, .completed_again = 1}, "complete, twice");
        as<Completed>(cache.claim("k"));
        as<Completed>(cache.remember("k", "other"));
        counted.check({.duplicates = 2}, "duplicates");
        as<New>(cache.remember("n", "r"));
        counted.check({.remembered = 1}, "remember");
        must_claim(cache, "again");
        CHECK(must(cache.release_current("again")));
        CHECK(!must(cache.release_current("again")));
        must_claim(cache, "again");
        counted.check({.claimed = 2, .released = 1, .released_nothing = 1}, "release");
        check_error(cache.claim(""), Code::invalid_argument);
        check_error(cache.lookup(""), Code::invalid_argument);
        check_error(cache.complete_current("none", ""), Code::not_claimed);
        counted.check({.errors = 3}, "errors");
    });
}

TEST_CASE("notes, holds and decisions are counted by what they did") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        Counted counted(cache);
        const Claim claim = must_claim(cache, "k");
        must(cache.note(claim, "about to pay"));
        must(cache.hold(claim, "timeout"));
        counted.check({.claimed = 1, .noted = 1, .put_on_hold = 1}, "note and hold");
        as<Held>(cache.claim("k"));
        const Resolution paid{.receipt = "r", .reason = "in the statement"};
        must(cache.resolve("k", claim.claim_sequence, paid));
        must(cache.resolve("k", claim.claim_sequence, paid));
        counted.check({.held = 1, .completed_again = 1, .resolved = 1}, "resolve, twice");
        check_error(cache.forget("k", claim.claim_sequence + 1'000, "why"), Code::stale_claim);
        check_error(cache.forget("k", 0, ""), Code::invalid_argument);
        CHECK(must(cache.forget("k", 0, "paid back")));
        CHECK(!must(cache.forget("k", 0, "paid back")));
        counted.check({.released_nothing = 1, .forgotten = 1, .stale = 1, .errors = 1},
                      "forget, twice");
        const CacheMetrics metrics = cache.metrics();
        const std::string page = prometheus_text({&metrics, 1});
        CHECK(page.find("dedup_evidence_total{namespace=\"default\",outcome=\"forgotten\"} 1\n") !=
              std::string::npos);
    });
}

TEST_CASE("lookups are counted by what they found, alone and in spans") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        must_claim(cache, "held");
        as<New>(cache.remember("done", "r"));
        Counted counted(cache);
        counted.check({.claimed = 1, .remembered = 1}, "before");
        as<Absent>(cache.lookup("none"));
        as<InFlight>(cache.lookup("held"));
        as<Completed>(cache.lookup("done"));
        counted.check({.lookups_absent = 1, .lookups_completed = 1, .lookups_in_flight = 1},
                      "alone");
        const std::vector<std::string_view> keys{"none", "held", "held", "done", "done", "done"};
        for (const auto& outcome : cache.lookup_many(keys)) {
            must(outcome);
        }
        counted.check({.lookups_absent = 1, .lookups_completed = 3, .lookups_in_flight = 2},
                      "in a span");
        for (int i = 0; i < 64 * 10 - 4; ++i) {
            as<Absent>(cache.lookup("none"));
        }
        // Which of this thread's lookups was the first one is not known, hence 9 to 11 in 64 * 10.
        const std::uint64_t timed = cache.metrics().lookup_ns.count();
        CHECK(timed >= 9);
        CHECK(timed <= 11);
    });
}

TEST_CASE("a span counts each key, and a race within it") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        Counted counted(cache);
        const std::vector<ClaimRequest> requests{{"a", {}}, {"b", {}}, {"a", {}}, {"", {}}};
        (void)cache.claim_many(requests);
        // Where no head was read no race was lost.
        const std::uint64_t lost = store->reads_are_remote() ? 0 : 1;
        counted.check({.claimed = 2, .in_flight = 1, .races_lost = lost, .errors = 1},
                      "claim_many");
        CHECK(cache.metrics().claim_ns.count() == 1);
        (void)cache.claim_many(requests);
        counted.check({.in_flight = 3, .errors = 1}, "again");
        CHECK_MESSAGE(cache.metrics().claim_ns.count() == 1, "nothing was appended");
    });
}

TEST_CASE("what the store refuses is an error of the cache") {
    TestStore store = store_factories().front().make();
    HookedStore hooked(*store);
    Cache cache(hooked);
    Counted counted(cache);
    hooked.fail_append = [](const Append&) { return std::optional(Code::io); };
    check_error(cache.claim("k"), Code::io);
    hooked.fail_append = nullptr;
    hooked.fail_heads = true;
    check_error(cache.claim("k"), Code::io);
    counted.check({.errors = 2}, "io");
    Cache bad(hooked, {.ns = ""});
    check_error(bad.claim("k"), Code::invalid_argument);
    check_error(bad.lookup("k"), Code::invalid_argument);
    CHECK(bad.metrics().counts == CacheCounts{.errors = 2});
}

TEST_CASE("threads do not lose each other's counts") {
    on_each_store([](TestStore& store) {
        constexpr int kThreads = 12;  // more than there are sets of counters
        constexpr int kRounds = 200;
        Cache cache(*store);
        {
            std::vector<std::jthread> threads;
            for (int thread = 0; thread < kThreads; ++thread) {
                threads.emplace_back([&] {
                    for (int round = 0; round < kRounds; ++round) {
                        (void)cache.lookup("none");
                        (void)cache.remember("key " + std::to_string(round % 20), "r");
                    }
                });
            }
        }
        const CacheCounts counts = cache.metrics().counts;
        CHECK(counts.lookups_absent == kThreads * kRounds);
        CHECK(counts.remembered == 20);
        CHECK(counts.duplicates == kThreads * kRounds - 20);
        CHECK(counts.errors == 0);
        const StoreMetrics metrics = store->metrics();
        CHECK(metrics.appended == 20);
        CHECK(metrics.conflicts >= counts.races_lost);
        CHECK((store->reads_are_remote() || metrics.conflicts == counts.races_lost));
        CHECK(metrics.group_records.sum == 20);
    });
}

TEST_CASE("a store counts records, conflicts, refusals and sweeps") {
    on_each_factory([](const StoreFactory& factory) {
        TestStore store = factory.make({.keys_max = 3});
        Cache cache(*store, {.ttl = 10s});
        must_claim(cache, "a");
        const std::vector<ClaimRequest> requests{{"b", {}}, {"c", {}}};
        (void)cache.claim_many(requests);
        StoreMetrics metrics = store->metrics();
        CHECK(metrics.appended == 3);
        CHECK(metrics.group_records.count() == 2);
        CHECK(metrics.group_records.sum == 3);
        check_error(cache.claim("d"), Code::out_of_space);
        Append stale{.expected_sequence = 77, .record = head_of(*store, "a")};
        CHECK(store->append({&stale, 1}).front().error().code == Code::sequence_conflict);
        metrics = store->metrics();
        // Where nothing was read first, it was refused and then asked for knowingly.
        CHECK(metrics.refused == (store->reads_are_remote() ? 2 : 1));
        CHECK(metrics.conflicts == 1);
        store.clock.advance(12'000);
        must(store->sweep({.dry_run = true}));
        CHECK(store->metrics().sweeps == 0);
        must(store->sweep());
        metrics = store->metrics();
        CHECK(metrics.sweeps == 1);
        CHECK(metrics.sweeps_failed == 0);
        CHECK(metrics.streams_removed == 3);
        CHECK(metrics.sweep_us.count() == 1);
        must(store->close());
        CHECK_MESSAGE(store->metrics().appended == 3, "also after close");
    });
}

TEST_CASE("a log store counts its flushes and the bytes of its log") {
    const TempDir dir;
    {
        const auto store = must(open(dir.path() / "store"));
        Cache cache(*store);
        must_claim(cache, "a");
        must_claim(cache, "b");
        as<InFlight>(cache.claim("a"));
        const StoreMetrics metrics = store->metrics();
        CHECK(metrics.flushes == 2);
        CHECK(metrics.flush_ns.count() == 2);
        CHECK(metrics.flush_ns.sum > 0);
        // All that is in the log but what the segment begins with.
        const std::uint64_t log_bytes = must(store->stats()).log_bytes;
        CHECK(metrics.bytes_written > 100);
        CHECK(metrics.bytes_written < log_bytes);
        must_claim(cache, "c");
        CHECK(store->metrics().bytes_written - metrics.bytes_written ==
              must(store->stats()).log_bytes - log_bytes);
    }
    OpenOptions options;
    options.durability = Durability::async;
    options.flush_interval = std::chrono::minutes{1};
    const auto store = must(open(dir.path() / "store", options));
    Cache cache(*store);
    must_claim(cache, "d");
    const std::uint64_t flushes = store->metrics().flushes;
    must_claim(cache, "e");
    CHECK_MESSAGE(store->metrics().flushes == flushes, "acknowledged without a flush");
    must(store->flush());
    CHECK(store->metrics().flushes == flushes + 1);
    must(store->flush());
    CHECK_MESSAGE(store->metrics().flushes == flushes + 1, "there was nothing to flush");
}
