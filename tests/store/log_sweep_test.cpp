// What a sweep does to the files of a log store, beyond what the contract says of all stores.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "dedup/cache.hpp"
#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

struct SweptStore {
    SweptStore() { open(); }

    void open() {
        cache.reset();
        store.reset();
        OpenOptions options = small_segments(clock.clock());
        options.grace = 0ms;
        store = must_open(path, options, env);
        cache.emplace(*store, CacheOptions{.ns = "test", .ttl = 24h * 30});
    }
    void fill_segment(const std::string& key, std::chrono::milliseconds ttl = 24h * 365) {
        REQUIRE(cache->remember(key, std::string(66'000, 'x'), {.ttl = ttl}));
    }

    ManualClock clock{1'700'000'000'000};
    HookedEnv env;
    TempDir dir;
    const Path path = dir.path() / "store";
    std::unique_ptr<StreamStore> store;
    std::optional<Cache> cache;
};

TEST_CASE("catalog made anew: a removed receipt goes on hiding a claim that expires later") {
    // Guards against a rebuild that takes superseded records for removed ones: the segment with the
    // receipt is dropped, the claim shows again, and its dead fence completes.
    SweptStore swept;
    auto claim = std::get<Claimed>(*swept.cache->claim("X", {.lease = 1h, .ttl = 24h * 365})).claim;
    const Claim first = claim;
    swept.fill_segment("Y");
    claim = *swept.cache->renew(claim, 2h);
    swept.fill_segment("F1", 1s);
    REQUIRE(swept.cache->complete(claim, "receipt", {.ttl = 10s}));
    swept.fill_segment("F2", 10s);
    REQUIRE(swept.cache->remember("Z", "z", {.ttl = 24h * 365}));
    swept.clock.advance(2'000);
    REQUIRE(swept.store->sweep({})->segments_compacted == 1);
    REQUIRE(swept.store->close());
    std::filesystem::remove_all(swept.path / "catalog");
    swept.open();
    CHECK(swept.store->stats()->catalog_rebuilt);
    CHECK(verify(swept.path)->problems.empty());
    swept.clock.advance(20'000);
    CHECK(swept.store->sweep({})->removed.completed == 2);
    CHECK_FALSE(swept.store->head({"test", "X"})->has_value());
    CHECK_FALSE(swept.cache->complete(first, "another receipt"));
    CHECK(swept.store->stats()->in_flight == 0);
    CHECK(std::holds_alternative<Claimed>(*swept.cache->claim("X")));
}

TEST_CASE("history: after a move it has what is still stored") {
    SweptStore swept;
    const auto claim = std::get<Claimed>(*swept.cache->claim("X")).claim;
    swept.fill_segment("F0");
    REQUIRE(swept.cache->complete(claim, "receipt"));
    swept.fill_segment("F1", 1s);
    REQUIRE(swept.cache->remember("F2", "x"));
    REQUIRE(swept.store->history({"test", "X"})->size() == 2);
    swept.clock.advance(10'000);
    REQUIRE(swept.store->sweep({})->segments_compacted == 1);
    const auto history = swept.store->history({"test", "X"});
    REQUIRE(history);
    REQUIRE(history->size() == 2);
    CHECK(history->front().record.state() == State::in_flight);
}

TEST_CASE("sweep: the records dropped by several limited sweeps add up") {
    // Guards against records that an earlier sweep moved and that count as dropped.
    for (const bool reopens : {false, true}) {
        CAPTURE(reopens);
        SweptStore swept;
        for (int i = 0; i < 600; ++i) {
            REQUIRE(swept.cache->remember("k" + std::to_string(i), std::string(100, 'x'),
                                          {.ttl = i % 2 == 0 ? 1s : 24h * 365}));
        }
        wait_until_sealed(*swept.store);
        const std::uint64_t before = swept.store->stats()->records;
        swept.clock.advance(10'000);
        std::uint64_t dropped = 0;
        for (bool finished = false; !finished;) {
            const auto report = swept.store->sweep({.records_max = 70});
            REQUIRE(report);
            finished = report->finished;
            dropped += report->records_dropped;
            if (reopens) {
                REQUIRE(swept.store->close());
                swept.open();
            }
        }
        CHECK(dropped > 0);
        CHECK(swept.store->stats()->records == before - dropped);
    }
}

TEST_CASE("sweep: of an idle store it writes nothing") {
    // Guards against a manifest and a flush a minute in a store that nobody uses.
    SweptStore swept;
    for (int i = 0; i < 200; ++i) {
        REQUIRE(swept.cache->remember("k" + std::to_string(i), std::string(100, 'x'),
                                      {.ttl = i % 10 == 0 ? 1s : 24h}));
    }
    swept.fill_segment("last");
    REQUIRE(swept.cache->remember("short", "x", {.ttl = 1s}));
    for (int i = 0; i < 3; ++i) {
        swept.clock.advance(10'000);
        REQUIRE(swept.store->sweep({}));
    }
    std::vector<std::string> calls;
    swept.env.hook = [&](std::string_view action, const Path& path) {
        calls.push_back(std::string(action) + " " + path.string());
        return 0;
    };
    const Path data = swept.path / "catalog" / "data.mdb";
    const std::string catalog = read_file(data);
    for (int i = 0; i < 3; ++i) {
        swept.clock.advance(10'000);
        const auto report = swept.store->sweep({});
        REQUIRE(report);
        CHECK(report->removed.total() == 0);
        CHECK(swept.store->stats()->last_sweep_ms == report->now_ms);
    }
    CHECK((calls.empty() ? "" : calls.front()) == "");
    CHECK((read_file(data) == catalog));
}

}  // namespace
}  // namespace dedup::test
