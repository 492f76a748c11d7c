// The contract of StreamStore: what a clock that jumps must not destroy.
#include <doctest/doctest.h>

#include <string>

#include "contract/contract_sweep.hpp"
#include "dedup/cache.hpp"

namespace dedup::test {
namespace {

constexpr std::int64_t kDayMs = 24 * 3'600 * 1'000;

// On a store that believes its clock no more than it should.
void on_each_wary_store(const std::function<void(TestStore&)>& test,
                        const Capacity& capacity = {}) {
    on_each_factory([&](const StoreFactory& factory) {
        TestStore store = factory.make(capacity, false);
        test(store);
    });
}

SweepOptions trusting() {
    SweepOptions options;
    options.trust_clock = true;
    return options;
}

// Of claims for a minute, made now.
void claim_each(TestStore& store, const std::string& prefix, int count) {
    Cache cache(*store, {.ns = std::string(kNs), .ttl = std::chrono::minutes(1)});
    for (int i = 0; i < count; ++i) {
        REQUIRE(cache.claim(prefix + std::to_string(i)).has_value());
    }
}

TEST_CASE("clock: after a jump of more than a day no sweep removes anything, and it says why") {
    // Guards against one wrong reading of the clock that empties the store.
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(kDayMs + 1);
        now_and_after_reopen(store, [&] {
            const SweepReport report = must_sweep(*store);
            CHECK(report.removed == StateCounts{});
            CHECK(report.retained == StateCounts{.in_flight = 3});
            REQUIRE(report.withheld.has_value());
            CHECK(*report.withheld == SweepWithheld{1'000, kDayMs + 1'001, 2 * kDayMs + 1'001});
            SweepOptions dry;
            dry.dry_run = true;
            CHECK(must_sweep(*store, dry).withheld == report.withheld);
            CHECK(stats_of(*store).withheld == report.withheld);
        });
        // Believed for leases and expiry all the same.
        Cache cache(*store, {.ns = std::string(kNs)});
        CHECK(std::holds_alternative<Claimed>(*cache.claim("k0")));
    });
}

TEST_CASE("clock: a day is no jump") {
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(kDayMs);
        const SweepReport report = must_sweep(*store);
        CHECK(!report.withheld);
        CHECK(report.removed == StateCounts{.in_flight = 3});
    });
}

TEST_CASE("clock: a write behind the jump does not hide it, nor does a restart") {
    // Guards against a jump that counts for what was written since.
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(10 * kDayMs);
        claim_each(store, "later", 2);
        now_and_after_reopen(store, [&] {
            CHECK(must_sweep(*store).withheld.has_value());
            REQUIRE(stats_of(*store).clock.jumps.size() == 1);
            CHECK(stats_of(*store).clock.jumps[0].from_ms == 1'000);
            CHECK(stats_of(*store).clock.jumps[0].to_ms == 10 * kDayMs + 1'000);
        });
        CHECK(stats_of(*store).streams() == 5);
    });
}

TEST_CASE("clock: a record from the future is a jump, too") {
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 1);
        Record record = completed("future", "receipt");
        record.timestamp_ms = 30 * kDayMs;
        must_append(*store, 0, record);
        now_and_after_reopen(store, [&] { CHECK(must_sweep(*store).withheld.has_value()); });
        CHECK(head_of(*store, "k0").has_value());
    });
}

TEST_CASE("clock: a sweep as of a far time is a jump, too") {
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 1);
        SweepOptions later;
        later.now_ms = 30 * kDayMs;
        later.dry_run = true;
        CHECK(must_sweep(*store, later).withheld.has_value());
        CHECK(stats_of(*store).clock.jumps.empty());
        later.dry_run = false;
        CHECK(must_sweep(*store, later).withheld.has_value());
        CHECK(head_of(*store, "k0").has_value());
        later.trust_clock = true;
        CHECK(must_sweep(*store, later).removed.total() == 1);
    });
}

TEST_CASE("clock: a day without another jump ends it") {
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(10 * kDayMs);
        CHECK(must_sweep(*store).withheld.has_value());
        store.clock.advance(kDayMs - 1);
        CHECK(must_sweep(*store).withheld.has_value());
        store.clock.advance(1);
        const SweepReport report = must_sweep(*store);
        CHECK(!report.withheld);
        CHECK(report.removed.total() == 3);
    });
}

TEST_CASE("clock: another jump begins another day") {
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(10 * kDayMs);
        CHECK(must_sweep(*store).withheld.has_value());
        store.clock.advance(kDayMs + 1);
        now_and_after_reopen(store, [&] {
            const SweepReport report = must_sweep(*store);
            REQUIRE(report.withheld.has_value());
            CHECK(report.withheld->since_ms == 11 * kDayMs + 1'001);
        });
        CHECK(stats_of(*store).clock.jumps.size() == 2);
    });
}

TEST_CASE("clock: who trusts it sweeps at once, and until the next jump") {
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(10 * kDayMs);
        SweepOptions dry = trusting();
        dry.dry_run = true;
        CHECK(must_sweep(*store, dry).removed.total() == 3);
        CHECK(must_sweep(*store).withheld.has_value());  // a dry run says nothing to others
        const SweepReport report = must_sweep(*store, trusting());
        CHECK(!report.withheld);
        CHECK(report.removed == StateCounts{.in_flight = 3});
        claim_each(store, "more", 2);
        store.clock.advance(kDayMs);
        now_and_after_reopen(store, [&] { CHECK(!must_sweep(*store).withheld); });
        CHECK(stats_of(*store).streams() == 0);
        CHECK(stats_of(*store).clock.jumps.at(0).settled);
        store.clock.advance(2 * kDayMs);
        CHECK(must_sweep(*store).withheld.has_value());
    });
}

TEST_CASE("clock: a store that trusts its clock notes jumps and sweeps") {
    on_each_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(10 * kDayMs);
        CHECK(must_sweep(*store).removed.total() == 3);
        REQUIRE(stats_of(*store).clock.jumps.size() == 1);
        CHECK(stats_of(*store).clock.jumps[0].settled);
    });
}

TEST_CASE("clock: set back after a jump, it stands still and nothing is removed") {
    on_each_wary_store([](TestStore& store) {
        claim_each(store, "k", 3);
        store.clock.advance(3'650 * kDayMs);
        (void)(*store).now_ms();
        store.clock.set(2'000);
        for (int day = 0; day < 5; ++day) {
            store.clock.advance(kDayMs);
            CHECK(must_sweep(*store).withheld.has_value());
        }
        const StoreStats stats = stats_of(*store);
        CHECK(stats.streams() == 3);
        CHECK(stats.time_high_ms == 3'650 * kDayMs + 1'000);
        CHECK(stats.clock_ms == 2'000 + 5 * kDayMs);
    });
}

TEST_CASE("clock: making room removes nothing that a jump has let expire") {
    // Guards against an append that sweeps for itself and believes the clock.
    on_each_wary_store(
        [](TestStore& store) {
            claim_each(store, "k", 100);
            store.clock.advance(3'650 * kDayMs);
            const auto refused = append_one(*store, 0, in_flight("one more"));
            REQUIRE(!refused.has_value());
            CHECK(refused.error().code == Code::out_of_space);
            CHECK(stats_of(*store).streams() == 100);
            // Evicting goes by the order of completions, not by the time.
            Record done = completed("k7", "receipt");
            must_append(*store, head_sequence(*store, "k7"), done);
            must_append(*store, 0, in_flight("one more"));
            CHECK(!head_of(*store, "k7"));
            CHECK(stats_of(*store).streams() == 100);
            CHECK(stats_of(*store).evicted == 1);
        },
        {.keys_max = 100, .evict_oldest = true});
}

TEST_CASE("clock: what had been removed before a jump gives its space back behind it") {
    on_each_factory([](const StoreFactory& factory) {
        TestStore store = factory.make({}, false);
        append_many(*store, "gone", 200, 5'000);
        append_many(*store, "kept", 5, 20 * kDayMs);
        SweepOptions stopped;  // removes, and gives nothing back
        stopped.bytes_max = 1;
        store.clock.set(10'000);
        CHECK(must_sweep(*store, stopped).removed.total() == 200);
        wait_until_sealed(*store);
        store.clock.advance(30 * kDayMs);
        const SweepReport report = must_sweep(*store);
        CHECK(report.withheld.has_value());
        CHECK(report.removed == StateCounts{});
        CHECK(report.retained == StateCounts{.completed = 5});
        CHECK((!store.has_segments() || report.bytes_reclaimed() > 0));
    });
}

}  // namespace
}  // namespace dedup::test
