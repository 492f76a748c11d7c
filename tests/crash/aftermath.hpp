// Going on after a crash.
#pragma once

#include <string>

#include "crash/ledger.hpp"

namespace dedup::test {

// Uses a store after a recovery; says what is wrong, if anything is. What is in flight is still its
// claimer's, what is held can be decided, what was forgotten can be claimed, and no sequence that
// somebody knows comes again. `ledger` is the one that `store` keeps.
[[nodiscard]] std::string use(LedgerStore& store, const Ledger& ledger);

// A record, after a step of the clock of more than a day, that no noted jump comes before; empty if
// there is none. For a store whose clock goes on by less than a day at a time, or by more at once.
[[nodiscard]] std::string hidden_jump(StreamStore& store);

}  // namespace dedup::test
