// Power that fails after a restart.
//
// A process dies, and the next one sees all that was written, flushed or not: a manifest that gives
// segments up, the last records, the name of a new segment. Or a flush has failed, and what is read
// is on no disk and never will be, unless it is written again. A recovery that acts on such things
// before they are durable, or shows them, loses acknowledged appends once the power goes. So here
// it goes at each call of these recoveries and of what is done after them.
#include "crash/expect.hpp"

namespace dedup::test {
namespace {

TEST_CASE(
    "power loss during a recovery and after it, of a process that died with bytes unflushed") {
    Plan plan;
    plan.seed = 5000;
    plan.steps = 102;
    plan.wrecks_per_moment = 0;
    plan.process_dies = true;
    plan.states_min = 3400;
    expect_all_right(from_environment(plan));
}

}  // namespace
}  // namespace dedup::test
