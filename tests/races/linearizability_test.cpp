// Many threads on few keys: whatever they are told, one order explains it.
//
// Threads claim, complete, release, renew, remember, look, sweep and let time pass, all at once, on
// a store whose segments are as small as they can be. Every history is checked: no key has two
// winners, nothing acknowledged is lost, no receipt changes, no fence comes back to life, and no
// sweep takes what is alive or is passed over by a late append.
#include <doctest/doctest.h>

#include <string>

#include "cache/helpers.hpp"
#include "races/race.hpp"
#include "support/environment.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

OpenOptions racing_options(RaceClock& clock) {
    OpenOptions options;
    options.clock = clock.clock();
    options.trust_clock = true;  // by which days go in one step
    options.segment_bytes = 64 * 1024;
    return options;
}

RacePlan plan_of(std::uint64_t seed) {
    return {.seed = seed,
            .threads = 4 + seed % 5,
            .keys = 1 + seed % 3,
            .steps = 6 + static_cast<int>(seed % 5)};
}

std::string show(const Outcomes& outcomes) {
    std::string text;
    for (const auto& [kind, count] : outcomes) {
        text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + kind;
    }
    return text;
}

// All of them, so that no rule of the protocol goes unseen.
void check_met(const Outcomes& outcomes) {
    for (const char* kind : {"claimed", "completed", "in flight", "mismatch", "new", "held", "busy",
                             "ok", "stale_claim", "not_claimed", "receipt_mismatch", "released",
                             "nothing to release", "absent", "swept", "removed by a sweep"}) {
        CHECK_MESSAGE(outcomes.contains(kind), kind);
    }
}

TEST_CASE("linearizable: what threads are told is what one after another could be told") {
    const auto histories = number_from_environment("DEDUP_RACE_HISTORIES", 4'000);
    const TempDir dir(fast_directory());
    RaceClock clock;
    auto store = must(open(dir.path() / "store", racing_options(clock)));
    Outcomes outcomes;
    const auto first = number_from_environment("DEDUP_RACE_SEED", 1);
    for (std::uint64_t seed = first; seed < first + histories; ++seed) {
        Race race(clock, plan_of(seed));
        race.run(*store);
        race.read_all(*store);
        REQUIRE(race.wrong() == "");
        race.count(outcomes);
    }
    const auto stats = must(store->stats());
    MESSAGE(histories << " histories: " << show(outcomes));
    CHECK(stats.background_error == "");
    CHECK(stats.sweep_error == "");
    must(store->close());
    if (histories >= 100) {
        check_met(outcomes);
    }
    CHECK(must(verify(dir.path() / "store")).problems.empty());
}

TEST_CASE("close among callers: a right answer or closed, and what was acknowledged stays") {
    const auto rounds = number_from_environment("DEDUP_RACE_HISTORIES", 4'000) / 10;
    const TempDir dir(fast_directory());
    RaceClock clock;
    Outcomes outcomes;
    for (std::uint64_t seed = 1; seed <= rounds; ++seed) {
        RacePlan plan = plan_of(seed);
        plan.closes = true;
        Race race(clock, plan);
        race.run(*must(open(dir.path() / "store", racing_options(clock))));
        race.read_all(*must(open(dir.path() / "store", racing_options(clock))));
        REQUIRE(race.wrong() == "");
        race.count(outcomes);
    }
    MESSAGE(rounds << " histories: " << show(outcomes));
    if (rounds >= 10) {
        CHECK(outcomes["closed"] > 0);
    }
    CHECK(must(verify(dir.path() / "store")).problems.empty());
}

}  // namespace
}  // namespace dedup::test
