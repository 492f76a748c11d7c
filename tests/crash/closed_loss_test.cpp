// Power that fails in the life that follows a clean close.
//
// The mark of a clean close is never flushed: as long as nothing follows it, it may be lost. Here
// the first thing that the next process does is to begin a segment, whose header says how long the
// one before it is. The power is cut at each call of that, and afterwards.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "crash/explore.hpp"
#include "dedup/cache.hpp"
#include "log/segment.hpp"
#include "repair/verify.hpp"

namespace dedup::test {
namespace {

constexpr int kKeys = 30;

std::string key_of(int number) {
    return "key-" + std::to_string(number);
}

// Nothing is damaged, all keys are there, and the store takes more.
void check(Life& after) {
    REQUIRE(after.open());
    {
        Cache cache(after.log_store());
        for (int i = 0; i < kKeys; ++i) {
            const auto found = cache.lookup(key_of(i));
            REQUIRE_MESSAGE(found.has_value(), found.error().message);
            CHECK(std::holds_alternative<Completed>(*found));
        }
        CHECK(cache.remember("another", ""));
    }
    const auto report = verify(after.log_store());
    REQUIRE_MESSAGE(report.has_value(), report.error().message);
    CHECK_MESSAGE(report->problems.empty(),
                  (report->problems.empty() ? std::string() : report->problems.front()));
    REQUIRE(after.close());
}

void cut_power_in(const std::function<void(LogStore&)>& first) {
    const TempDir live_dir{fast_directory()};
    const TempDir wreck_dir{fast_directory()};
    ManualClock clock{1'700'000'000'000};
    const OpenOptions options{.clock = clock.clock(), .segment_bytes = kSegmentBytesMin};
    Life closed(live_dir.path(), {}, options, 1);
    REQUIRE(closed.open());
    for (int i = 0; i < kKeys; ++i) {
        Cache cache(closed.log_store());
        const auto claimed = cache.claim(key_of(i));
        REQUIRE(claimed);
        REQUIRE(cache.complete(std::get<Claimed>(*claimed).claim, ""));
    }
    REQUIRE(closed.close());

    Life next(closed, false, 2);
    const auto ledger = std::make_shared<Ledger>();
    next.record(ledger);
    REQUIRE(next.open());
    const std::size_t opening = next.moments.size();
    first(next.log_store());
    next.settle();
    next.record_end();
    REQUIRE(next.moments.size() > opening + 3);  // it did begin a segment
    for (std::size_t m = 0; m < next.moments.size(); ++m) {
        for (int s = 0; s < kSurvivals; ++s) {
            CAPTURE(m);
            CAPTURE(s);
            Random random(m * 101 + static_cast<std::uint64_t>(s));
            const Moment& moment = next.moments[m];
            const Wreck wreck{lose_power(moment.disk, static_cast<Survival>(s), random),
                              moment.catalogs.back()};
            Life after(wreck_dir.path(), wreck, options, random());
            check(after);
        }
    }
}

TEST_CASE("power loss when what follows a clean close is a compacting sweep") {
    cut_power_in([](LogStore& store) {
        const auto report = store.sweep({.compact = true});
        REQUIRE_MESSAGE(report.has_value(), report.error().message);
        CHECK(report->segments_compacted == 1);
    });
}

TEST_CASE("power loss when what follows a clean close fills the segment") {
    cut_power_in([](LogStore& store) {
        const std::string receipt(kSegmentBytesMin, 'r');
        REQUIRE(Cache(store).remember("large", receipt));
    });
}

}  // namespace
}  // namespace dedup::test
