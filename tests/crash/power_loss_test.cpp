// Power that fails at any moment.
//
// A workload of claims, completions, releases, renewals, batches and seals runs once. Before each
// call that changes something on the disk the power is cut, several times over, each time with
// another part of the unflushed data left. Every such wreck has to open; to have every
// acknowledged append and no half of any other; and to be usable, cut off again in its turn.
#include <doctest/doctest.h>

#include <cstdlib>

#include "crash/explore.hpp"

namespace dedup::test {
namespace {

// What was explored, for the log; and that it was not a walk around the block.
void expect_all_right(const Explored& explored, const Plan& plan) {
    MESSAGE(explored.states << " crash states at " << explored.moments << " calls; "
                            << explored.in_part << " kept unacknowledged appends, "
                            << explored.rebuilt << " had their catalog rebuilt, " << explored.sealed
                            << " segments sealed before");
    CHECK(explored.wrong == "");
    if (std::getenv("DEDUP_CRASH_ONLY") == nullptr) {
        CHECK(explored.states >= plan.states_min);
        CHECK(explored.in_part > explored.states / 50);
        CHECK(explored.rebuilt > 0);
        CHECK(explored.sealed > 1);
    }
}

TEST_CASE("power loss at every call: what was acknowledged stays, nothing else is half there") {
    Plan plan;
    plan.states_min = 8000;
    plan = from_environment(plan);
    expect_all_right(explore(plan), plan);
}

TEST_CASE("power loss on a disk that reserves no room and shows old blocks") {
    Plan plan;
    plan.seed = 1000;
    plan.can_reserve = false;
    plan.shows_old_blocks = true;
    plan.states_min = 3000;
    plan = from_environment(plan);
    expect_all_right(explore(plan), plan);
}

TEST_CASE("power loss during recovery and after it") {
    Plan plan;
    plan.seed = 2000;
    plan.wrecks_per_moment = 2;
    plan.catalog_lost = true;
    plan.recoveries_cut = 8;
    plan.states_min = 6000;
    plan = from_environment(plan);
    expect_all_right(explore(plan), plan);
}

TEST_CASE("power loss with async durability: what was flushed stays, in order, no sequence twice") {
    Plan plan;
    plan.seed = 3000;
    plan.durability = Durability::async;
    plan.recoveries_cut = 1;
    plan.states_min = 6000;
    plan = from_environment(plan);
    expect_all_right(explore(plan), plan);
}

}  // namespace
}  // namespace dedup::test
