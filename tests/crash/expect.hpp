// What the tests of power loss say at their end.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>

#include "crash/explore.hpp"

namespace dedup::test {

// What was explored, for the log; and that it was not a walk around the block.
inline void expect_all_right(const Plan& plan) {
    const Explored explored = explore(plan);
    MESSAGE(explored.states << " crash states at " << explored.moments << " calls; "
                            << explored.in_part << " kept unacknowledged appends, "
                            << explored.rebuilt << " had their catalog rebuilt, " << explored.sealed
                            << " segments sealed before");
    MESSAGE("sweeps removed " << explored.swept.total() << " streams, dropped " << explored.dropped
                              << " segments and compacted " << explored.compacted << "; "
                              << explored.interrupted << " states were cut within one");
    MESSAGE("keys in these states: " << explored.standing.held << " held, "
                                     << explored.standing.resolved << " resolved, "
                                     << explored.standing.forgotten << " forgotten");
    if (plan.process_dies) {
        MESSAGE("the process died " << explored.deaths << " times");
    }
    CHECK(explored.wrong == "");
    if (std::getenv("DEDUP_CRASH_ONLY") == nullptr) {
        CHECK(explored.states >= plan.states_min);
    }
    // Fewer may be those of a single life, in which not everything happens.
    if (explored.states >= 2000) {
        CHECK(explored.in_part > explored.states / 50);
        CHECK(explored.rebuilt > 0);
        CHECK(explored.sealed > 0);
        CHECK(explored.standing.held > 0);
        CHECK(explored.standing.resolved > 0);
        CHECK(explored.standing.forgotten > 0);
        CHECK(explored.swept.in_flight > 0);
        CHECK(explored.swept.completed > 0);
        CHECK(explored.dropped > 0);
        CHECK(explored.compacted > 0);
        CHECK(explored.interrupted > 0);
    }
}

}  // namespace dedup::test
