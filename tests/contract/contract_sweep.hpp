// What the parts of the contract suite that sweep share.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "contract/contract.hpp"
#include "support/sweep_text.hpp"

namespace dedup::test {

inline constexpr std::int64_t kNever = 0;

inline SweepReport must_sweep(StreamStore& store, const SweepOptions& options = {}) {
    const auto report = store.sweep(options);
    REQUIRE_MESSAGE(report.has_value(), report.error().message);
    return *report;
}

inline SweepReport sweep_at(TestStore& store, std::int64_t now_ms) {
    store.clock.set(now_ms);
    return must_sweep(*store);
}

inline StoreStats stats_of(StreamStore& store) {
    const auto stats = store.stats();
    REQUIRE_MESSAGE(stats.has_value(), stats.error().message);
    return *stats;
}

inline std::vector<SweepReport> sweeps_of(StreamStore& store) {
    const auto reports = store.sweep_history();
    REQUIRE_MESSAGE(reports.has_value(), reports.error().message);
    return *reports;
}

inline Record expiring(Record record, std::int64_t expires_at_ms) {
    record.expires_at_ms = expires_at_ms;
    record.ttl_ms = 0;
    return record;
}

inline Record released(std::string_view key, std::string_view ns = kNs) {
    Record record = in_flight(key, ns);
    record.kind = Kind::tombstone;
    record.ttl_ms = 0;
    return record;
}

// Completes `count` keys "<prefix>0"... with receipts so large that a few dozen of them fill one of
// the segments that these tests have.
inline void append_many(StreamStore& store, const std::string& prefix, int count,
                        std::int64_t expires_at_ms) {
    std::vector<Append> batch;
    for (int i = 0; i < count; ++i) {
        const Record record = completed(prefix + std::to_string(i), std::string(2'000, 'r'));
        batch.push_back({0, expiring(record, expires_at_ms)});
    }
    for (const auto& result : store.append(batch)) {
        REQUIRE_MESSAGE(result.has_value(), result.error().message);
    }
}

// Waits until what is done in the background is done, so that a sweep finds sealed segments.
inline void wait_until_sealed(StreamStore& store) {
    for (StoreStats stats = stats_of(store); stats.segments_unsealed > 1; stats = stats_of(store)) {
        REQUIRE(stats.background_error == "");
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

// Runs `check` on the store, and again after it has been opened anew.
template <class Check>
void now_and_after_reopen(TestStore& store, const Check& check) {
    check();
    if (store.durable()) {
        store.reopen();
        check();
    }
}

}  // namespace dedup::test
