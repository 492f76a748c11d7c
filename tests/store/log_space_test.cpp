// What sweeps do for the size of the log: how much of it they leave as garbage.

#include <doctest/doctest.h>

#include <string>

#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kTwice = 2000;

// Every key in two records, of which the first is garbage; both mostly in one segment.
void put_twice(StreamStore& store, std::string_view prefix, int keys,
               std::int64_t expires_at_ms = 0) {
    constexpr int kBatch = 20;
    for (int i = 0; i < keys; i += kBatch) {
        std::vector<Append> batch;
        for (int j = i; j < i + kBatch; ++j) {
            const std::string key = std::string(prefix) + std::to_string(j);
            batch.push_back({0, completed_record(key, "receipt-" + std::to_string(j))});
            batch.back().record.timestamp_ms = 1;
            batch.back().record.expires_at_ms = expires_at_ms;
        }
        const auto landed = store.append(batch);
        for (std::size_t j = 0; j < batch.size(); ++j) {
            REQUIRE(landed[j]);
            batch[j].expected_sequence = *landed[j];
        }
        for (const auto& again : store.append(batch)) {
            REQUIRE(again);
        }
    }
}

std::uint64_t log_bytes(StreamStore& store) {
    return store.stats()->log_bytes;
}

TEST_CASE("a compacting sweep leaves no garbage, and nothing to replay") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    auto store = must_open(path, small_segments());
    put_twice(*store, "key-", kTwice);
    const std::uint64_t with_garbage = log_bytes(*store);
    REQUIRE(store->sweep());
    const std::uint64_t swept = log_bytes(*store);
    CHECK(swept < with_garbage * 6 / 10 + kSegmentBytesMin);

    SweepOptions compact;
    compact.compact = true;
    const auto report = store->sweep(compact);
    REQUIRE(report);
    CHECK(report->finished);
    CHECK(log_bytes(*store) < with_garbage * 53 / 100);
    check_filled(*store, kTwice);
    CHECK(store->stats()->records == kTwice);
    const auto again = store->sweep(compact);
    REQUIRE(again);
    CHECK(again->records_moved == 0);
    CHECK(again->segments_compacted == 0);

    REQUIRE(store->close());
    store = must_open(path, small_segments());
    CHECK(store->stats()->tail_bytes < kSegmentBytesMin / 4);
    check_filled(*store, kTwice);
    REQUIRE(store->close());
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("sweeps that compact again and again do not leave ever more small segments") {
    const TempDir dir;
    const auto store = must_open(dir.path() / "store", small_segments());
    put_twice(*store, "key-", kTwice);
    SweepOptions compact;
    compact.compact = true;
    REQUIRE(store->sweep(compact));
    const std::uint64_t segments = store->stats()->segments_sealed;
    for (int i = 0; i < 60; ++i) {
        Append item{0, completed_record("more-" + std::to_string(i), std::string(17'000, 'r'))};
        REQUIRE(store->append({&item, 1})[0]);
        REQUIRE(store->sweep(compact));
    }
    CHECK(store->stats()->segments_sealed < segments + 60 * 17'000 / kSegmentBytesMin + 12);
    check_filled(*store, kTwice);
}

TEST_CASE("what is about to expire is not moved") {
    const TempDir dir;
    ManualClock clock(1'764'000'000'000);
    const auto store = must_open(dir.path() / "store", small_segments(clock.clock()));
    constexpr int kSoon = kTwice / 4;
    put_twice(*store, "soon-", kSoon, clock.now_ms() + 10'000);
    put_twice(*store, "late-", kTwice, clock.now_ms() + 10'000'000);
    wait_until_sealed(*store);
    const auto report = store->sweep();
    REQUIRE(report);
    // Half of both is garbage, and moving what lives of the later ones is enough.
    CHECK(report->records_moved > kTwice / 2);
    clock.advance(12'000);
    const auto after = store->sweep();
    REQUIRE(after);
    CHECK(after->removed.completed == kSoon);
    CHECK(report->records_moved + after->records_moved < kTwice * 11 / 10);  // one has both
}

TEST_CASE("a store that is swept has small segments, and another one large ones") {
    const TempDir dir;
    ManualClock clock;
    OpenOptions options;
    options.clock = clock.clock();
    const auto store = must_open(dir.path() / "store", options);
    Append item{0, completed_record("", std::string(1024 * 1024, 'r'))};
    const auto put = [&](const std::string& key) {
        item.record.key = key;
        item.record.timestamp_ms = clock.now_ms();
        item.record.expires_at_ms = clock.now_ms() + 1'000;
        REQUIRE(store->append({&item, 1})[0]);
    };
    for (int i = 0; i < 5; ++i) {
        put("before-" + std::to_string(i));
    }
    CHECK(store->stats()->segments_sealed + store->stats()->segments_unsealed == 1);
    clock.advance(5'000);
    REQUIRE(store->sweep());
    for (int i = 0; i < 7; ++i) {
        put("after-" + std::to_string(i));
    }
    wait_until_sealed(*store);
    CHECK(store->stats()->segments_sealed >= 2);
}

}  // namespace
}  // namespace dedup::test
