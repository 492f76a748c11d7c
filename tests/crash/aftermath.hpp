// Going on after a crash.
#pragma once

#include <string>

#include "crash/ledger.hpp"

namespace dedup::test {

// Uses a store after a recovery; says what is wrong, if anything is. What is in flight is still its
// claimer's, and no sequence that somebody knows comes again.
[[nodiscard]] std::string use(LedgerStore& store, const Ledger& ledger);

}  // namespace dedup::test
