// Jumps and resets of the clock in a log: that crashes, lost catalogs, readers and repair agree.
#include <doctest/doctest.h>

#include <mutex>
#include <string>

#include "dedup/cache.hpp"
#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

constexpr std::int64_t kDayMs = 24 * 3'600 * 1'000;
constexpr std::int64_t kRightMs = 1'800'000'000'000;
constexpr std::int64_t kWrongMs = kRightMs + 3'650 * kDayMs;

// Options of a store that believes its clock no more than it should.
OpenOptions wary(const ManualClock& clock) {
    OpenOptions options = small_segments(clock.clock());
    options.trust_clock = false;
    return options;
}

// A store with receipts and claims from before a jump of ten years, and some from behind it.
struct Jumped {
    Jumped() {
        store = must_open(path, options);
        Cache cache(*store, {.ttl = 720h});
        REQUIRE(cache.remember("receipt", "paid").has_value());
        before = must_claim(cache, "before", {.lease = 30s, .ttl = kForever});
        long_lease = must_claim(cache, "long lease", {.lease = 1000h});
        clock.set(kWrongMs);
        during = must_claim(cache, "during", {.lease = 30s});
        REQUIRE(cache.remember("done during", "paid later").has_value());
        REQUIRE(cache.renew(before, 30s).has_value());
    }

    static Claim must_claim(Cache& cache, std::string_view key, const ClaimOptions& with) {
        const auto outcome = cache.claim(key, with);
        REQUIRE((outcome && std::holds_alternative<Claimed>(*outcome)));
        return std::get<Claimed>(*outcome).claim;
    }

    void reset_at(std::int64_t time_ms) {
        REQUIRE(store->close());
        store.reset();
        clock.set(time_ms);
        const auto reset = reset_clock(path, options);
        REQUIRE_MESSAGE(reset, (reset ? "" : reset.error().message));
        REQUIRE(reset->has_value());
        CHECK((*reset)->from_ms == kWrongMs);
        CHECK((*reset)->to_ms == time_ms);
        CHECK((*reset)->finished);
        store = must_open(path, options);
    }

    TempDir dir;
    std::filesystem::path path = dir.path() / "store";
    ManualClock clock{kRightMs};
    OpenOptions options = wary(clock);
    std::unique_ptr<StreamStore> store;
    Claim before;
    Claim long_lease;
    Claim during;
};

void check_withheld(StreamStore& store, std::int64_t from_ms, std::int64_t to_ms) {
    const auto report = store.sweep();
    REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
    CHECK(report->removed.total() == 0);
    REQUIRE(report->withheld.has_value());
    CHECK(report->withheld->jump_from_ms == from_ms);
    CHECK(report->withheld->since_ms == to_ms);
}

void check_sound(const std::filesystem::path& path) {
    const auto report = verify(path);
    REQUIRE(report);
    CHECK(report->problems == std::vector<std::string>());
}

TEST_CASE("a jump is known after kill -9, and when the catalog is lost") {
    Jumped jumped;
    const auto copy = jumped.dir.path() / "copy";
    crash_copy(jumped.path, copy);
    for (const bool lost : {false, true}) {
        if (lost) {
            std::filesystem::remove_all(copy / "catalog");
        }
        const auto store = must_open(copy, jumped.options);
        check_withheld(*store, kRightMs, kWrongMs);
        CHECK(store->stats()->streams() == 5);
        REQUIRE(store->stats()->clock.jumps.size() == 1);
        CHECK(store->stats()->clock.jumps[0].sequence == 3);
        REQUIRE(store->close());
    }
}

TEST_CASE("a jump that only a restart saw is noted by its first write, however it ends") {
    // Guards against a first write behind a rest that makes the rest unseen.
    TempDir dir;
    ManualClock clock(kRightMs);
    OpenOptions options = wary(clock);
    const auto path = dir.path() / "store";
    auto store = must_open(path, options);
    Cache(*store, {.ttl = 1h}).claim("k").value();
    REQUIRE(store->close());
    clock.advance(7 * kDayMs);
    store = must_open(path, options);
    Cache(*store, {.ttl = 1h}).claim("later").value();
    crash_copy(path, dir.path() / "copy");
    const auto copy = must_open(dir.path() / "copy", options);
    check_withheld(*copy, kRightMs, kRightMs + 7 * kDayMs);
    // Nor does a close without a write.
    REQUIRE(store->close());
    clock.advance(7 * kDayMs);
    store = must_open(path, options);
    (void)store->now_ms();
    REQUIRE(store->close());
    store = must_open(path, options);
    check_withheld(*store, kRightMs + 7 * kDayMs, kRightMs + 14 * kDayMs);
}

TEST_CASE("a jump stays known when sweeps drop the segment that it was noted in") {
    TempDir dir;
    ManualClock clock(kRightMs);
    OpenOptions options = wary(clock);
    const auto path = dir.path() / "store";
    auto store = must_open(path, options);
    fill(*store, "before", 300, kRightMs, kRightMs + 50 * kDayMs);
    clock.advance(10 * kDayMs);
    fill(*store, "behind", 2000, clock.now_ms(), clock.now_ms() + kDayMs / 2);
    wait_until_sealed(*store);
    // Not withheld any more, and yet within a day of the last: by trust.
    SweepOptions trusting;
    trusting.trust_clock = true;
    trusting.now_ms = clock.now_ms() + kDayMs - 1;
    const auto report = store->sweep(trusting);
    REQUIRE(report);
    CHECK(report->segments_dropped > 0);
    REQUIRE(store->close());
    store = must_open(path, options);
    REQUIRE(store->stats()->clock.jumps.size() == 1);
    CHECK(store->stats()->clock.jumps[0].settled);
}

TEST_CASE("a reader beside the writer knows its jumps, and what a writer would note") {
    Jumped jumped;
    OpenOptions reading = jumped.options;
    reading.read_only = true;
    const auto reader = must_open(jumped.path, reading);
    SweepOptions dry;
    dry.dry_run = true;
    CHECK(reader->sweep(dry)->withheld == jumped.store->stats()->withheld);
    CHECK(reader->stats()->clock == jumped.store->stats()->clock);
    SweepOptions trusting;
    trusting.trust_clock = true;
    REQUIRE(jumped.store->sweep(trusting).has_value());
    CHECK(!reader->sweep(dry)->withheld);
    REQUIRE(jumped.store->close());
    jumped.clock.advance(2 * kDayMs);
    CHECK(reader->sweep(dry)->withheld.has_value());
}

TEST_CASE("a reset sets the time back, and what was not swept is valid again") {
    Jumped jumped;
    SUBCASE("as the store was left") {
        jumped.reset_at(kRightMs + 60'000);
    }
    SUBCASE("after kill -9, with the catalog lost") {
        const auto copy = jumped.dir.path() / "copy";
        crash_copy(jumped.path, copy);
        std::filesystem::remove_all(copy / "catalog");
        jumped.path = copy;
        jumped.reset_at(kRightMs + 60'000);
    }
    const std::int64_t now_ms = kRightMs + 60'000;
    for (const bool again : {false, true}) {
        if (again) {
            REQUIRE(jumped.store->close());
            jumped.store.reset();
            std::filesystem::remove_all(jumped.path / "catalog");
            jumped.store = must_open(jumped.path, jumped.options);
        }
        StreamStore& store = *jumped.store;
        CHECK(store.now_ms() == now_ms);
        Cache cache(store, {.ttl = 720h});
        const auto receipt = cache.claim("receipt");
        REQUIRE((receipt && std::holds_alternative<Completed>(*receipt)));
        const auto head = [&](std::string_view key) { return **store.head({"default", key}); };
        // As if written now, with the fence that it had.
        CHECK(head("during").timestamp_ms == now_ms);
        CHECK(head("during").lease_until_ms == now_ms + 30'000);
        CHECK(head("during").expires_at_ms == now_ms + 720 * 3'600'000LL);
        CHECK(head("during").claim_sequence == jumped.during.claim_sequence);
        CHECK(head("done during").receipt == "paid later");
        CHECK(head("done during").timestamp_ms == now_ms);
        // Renewed by the wrong time; and not.
        CHECK(head("before").timestamp_ms == kRightMs);
        CHECK(head("before").lease_until_ms == now_ms + 30'000);
        CHECK(head("before").expires_at_ms == 0);
        CHECK(head("long lease").lease_until_ms == kRightMs + 1000 * 3'600'000LL);
        const StoreStats stats = *store.stats();
        CHECK(stats.time_high_ms == now_ms);
        CHECK(!stats.withheld);
        REQUIRE(stats.clock.resets.size() == 1);
        CHECK(stats.clock.resets[0].from_ms == kWrongMs);
        CHECK(stats.clock.jumps.at(0).settled);
        const auto swept = store.sweep();
        REQUIRE(swept);
        CHECK(!swept->withheld);
        CHECK(swept->removed.total() == 0);
        check_sound(jumped.path);
    }
    CHECK(Cache(*jumped.store).complete(jumped.during, "done").has_value());
    CHECK(Cache(*jumped.store).complete(jumped.before, "done").has_value());
}

TEST_CASE("a reset leaves nothing that began, or was held, later than now") {
    // Guards against a claim that is told of one before it that begins in ten years.
    const TempDir dir;
    const auto path = dir.path() / "store";
    ManualClock clock(kWrongMs);
    const OpenOptions options = wary(clock);
    {
        const auto store = must_open(path, options);
        Cache cache(*store);
        const Claim given_up = Jumped::must_claim(cache, "given up", {});
        const Claim unsure = Jumped::must_claim(cache, "unsure", {});
        clock.advance(5'000);
        REQUIRE(cache.release(given_up).has_value());
        REQUIRE(cache.hold(unsure, "timeout").has_value());
        REQUIRE(store->close());
    }
    clock.set(kRightMs);
    REQUIRE(reset_clock(path, options).value().has_value());
    const auto store = must_open(path, options);
    Cache cache(*store);
    const auto next = cache.claim("given up");
    REQUIRE((next && next->claimed() != nullptr));
    CHECK(next->claimed()->previous->began_ms == kRightMs);
    CHECK(next->claimed()->previous->ended_ms == kRightMs);
    const auto held = cache.claim("unsure");
    REQUIRE((held && held->held() != nullptr));
    CHECK(held->held()->previous.began_ms == kRightMs);
    CHECK(held->held()->previous.ended_ms == kRightMs);
    CHECK((*store->head({"default", "unsure"}))->lease_until_ms == kRightMs);
}

TEST_CASE("a reset that was cut short is finished by the next opening") {
    // Guards against receipts that are written again by a time that has not been set.
    Jumped jumped;
    REQUIRE(jumped.store->close());
    jumped.store.reset();
    jumped.clock.set(kRightMs + 60'000);
    int cuts = 0;
    std::mutex mutex;  // of the reset, which writes to the log, and the sealer
    const auto cut_short = [&] {
        const std::lock_guard lock(mutex);
        const auto copy = jumped.dir.path() / ("cut-" + std::to_string(cuts++));
        crash_copy(jumped.path, copy);
    };
    LogStoreInternals internals;
    internals.ignore_jumps = true;
    // After each change of the catalog, and before the sealer: the files as they are.
    internals.pause = cut_short;
    HookedEnv env;
    auto resetting = LogStore::open(env, jumped.path, jumped.options, internals);
    REQUIRE(resetting);
    env.hook = [&](std::string_view action, const Path&) {
        if (action == "write") {
            cut_short();
        }
        return 0;
    };
    crash_copy(jumped.path, jumped.dir.path() / "cut-first");
    REQUIRE((*resetting)->reset_clock());
    cut_short();
    REQUIRE((*resetting)->close());
    int unfinished = 0;
    for (int cut = 0; cut < cuts; ++cut) {
        CAPTURE(cut);
        const auto path = jumped.dir.path() / ("cut-" + std::to_string(cut));
        {
            OpenOptions reading = jumped.options;
            reading.read_only = true;
            const auto before = must_open(path, reading)->stats();
            REQUIRE(before);
            unfinished += !before->clock.resets.empty() && !before->clock.resets[0].finished;
        }
        const auto store = must_open(path, jumped.options);
        const auto stats = store->stats();
        REQUIRE(stats);
        CHECK(stats->streams() == 5);
        const auto head = store->head({"default", "during"});
        if (stats->clock.resets.empty()) {
            CHECK((*head)->timestamp_ms == kWrongMs);
        } else {
            CHECK(stats->clock.resets[0].finished);
            CHECK((*head)->timestamp_ms == kRightMs + 60'000);
        }
    }
    CHECK(unfinished > 0);
}

TEST_CASE("a store whose time is not ahead is not reset") {
    TempDir dir;
    ManualClock clock(kRightMs);
    OpenOptions options = wary(clock);
    auto store = must_open(dir.path() / "store", options);
    Cache(*store).claim("k").value();
    REQUIRE(store->close());
    const auto reset = reset_clock(dir.path() / "store", options);
    REQUIRE(reset);
    CHECK(!reset->has_value());
    clock.set(0);
    CHECK(reset_clock(dir.path() / "store", options).error().code == Code::invalid_argument);
    CHECK(reset_clock(dir.path() / "none", options).error().code == Code::invalid_argument);
}

TEST_CASE("what a sweep removed by a wrong time stays gone after a reset, and new keys live") {
    Jumped jumped;
    SweepOptions trusting;
    trusting.trust_clock = true;
    jumped.clock.advance(kDayMs);
    const auto wrong = jumped.store->sweep(trusting);
    REQUIRE(wrong);
    CHECK(wrong->removed.total() > 0);
    const std::uint64_t left = jumped.store->stats()->streams();
    REQUIRE(jumped.store->close());
    jumped.store.reset();
    jumped.clock.set(kRightMs);
    REQUIRE(reset_clock(jumped.path, jumped.options).value().has_value());
    jumped.store = must_open(jumped.path, jumped.options);
    Cache cache(*jumped.store, {.ttl = 1h});
    CHECK(std::holds_alternative<Claimed>(*cache.claim("receipt")));
    for (int i = 0; i < 2; ++i) {
        const auto report = jumped.store->sweep();
        REQUIRE(report);
        REQUIRE(report->withheld.has_value());
        CHECK(report->withheld->by_reset);
        CHECK(jumped.store->stats()->streams() == left + 1);
        CHECK(jumped.store->stats()->withheld == report->withheld);
    }
    CHECK(std::holds_alternative<InFlight>(*cache.claim("receipt")));
}

TEST_CASE("a reader follows a reset") {
    Jumped jumped;
    OpenOptions reading = jumped.options;
    reading.read_only = true;
    const auto reader = must_open(jumped.path, reading);
    CHECK(reader->now_ms() == kWrongMs);
    jumped.reset_at(kRightMs + 60'000);
    CHECK(reader->stats()->clock.resets.size() == 1);
    CHECK(reader->stats()->time_high_ms == kRightMs + 60'000);
    CHECK(reader->now_ms() == kRightMs + 60'000);
    CHECK(std::holds_alternative<Completed>(*Cache(*reader).lookup("receipt")));
}

TEST_CASE("repair keeps what was known of the clock") {
    Jumped jumped;
    SUBCASE("a jump") {}
    SUBCASE("a reset") {
        jumped.reset_at(kRightMs + 60'000);
    }
    const ClockHistory clock = jumped.store->stats()->clock;
    REQUIRE(jumped.store->close());
    const auto target = jumped.dir.path() / "repaired";
    REQUIRE(repair(jumped.path, target).has_value());
    const auto store = must_open(target, jumped.options);
    const auto stats = store->stats();
    REQUIRE(stats);
    REQUIRE(stats->clock.resets.size() == clock.resets.size());
    REQUIRE(!stats->clock.jumps.empty());
    CHECK(stats->clock.jumps[0] == clock.jumps[0]);
    check_sound(target);
}

}  // namespace
}  // namespace dedup::test
