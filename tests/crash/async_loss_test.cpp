// Power loss with Durability::async: only what a flush was asked for has to survive. The rest may
// be lost from the end, but never from the middle, and no sequence that a caller has been told
// comes again, even if its record is gone.
#include "crash/expect.hpp"

namespace dedup::test {
namespace {

TEST_CASE("power loss with async durability: what was flushed stays, in order, no sequence twice") {
    Plan plan;
    plan.seed = 3000;
    plan.durability = Durability::async;
    plan.recoveries_cut = 1;
    plan.states_min = 4500;
    expect_all_right(from_environment(plan));
}

}  // namespace
}  // namespace dedup::test
