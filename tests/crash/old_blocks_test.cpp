// Power loss on a poorer disk: the file system can reserve no room, and where a file has become
// longer and its data was not written, old blocks show. A frame is bound to its store, segment and
// offset, so that none of them may pass for one.
#include "crash/expect.hpp"

namespace dedup::test {
namespace {

TEST_CASE("power loss on a disk that reserves no room and shows old blocks") {
    Plan plan;
    plan.seed = 1000;
    plan.can_reserve = false;
    plan.shows_old_blocks = true;
    plan.states_min = 3000;
    expect_all_right(from_environment(plan));
}

}  // namespace
}  // namespace dedup::test
