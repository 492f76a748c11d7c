// Power that fails at any moment.
//
// A workload of claims, completions, releases, renewals, batches and seals runs once. Before each
// call that changes something on the disk the power is cut, several times over, each time with
// another part of the unflushed data left. Every such wreck has to open; to have every
// acknowledged append and no half of any other; and to be usable.
#include "crash/expect.hpp"

namespace dedup::test {
namespace {

TEST_CASE("power loss at every call: what was acknowledged stays, nothing else is half there") {
    Plan plan;
    plan.states_min = 6000;
    expect_all_right(from_environment(plan));
}

}  // namespace
}  // namespace dedup::test
