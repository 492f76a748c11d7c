// Power that fails again while a store recovers, and just after it.
//
// A recovery cuts the torn tail, writes again what is not proven to have been flushed, and rebuilds
// a catalog that is gone. Cut off at any of these calls it must leave a store that recovers the
// next time; and what it has shown once stays, and what it has not shown stays away.
#include "crash/expect.hpp"

namespace dedup::test {
namespace {

TEST_CASE("power loss during recovery and after it") {
    Plan plan;
    plan.seed = 2100;
    plan.steps = 110;
    plan.wrecks_per_moment = 2;
    plan.recoveries_cut = 6;
    plan.catalog_lost = true;
    plan.states_min = 4500;
    expect_all_right(from_environment(plan));
}

}  // namespace
}  // namespace dedup::test
