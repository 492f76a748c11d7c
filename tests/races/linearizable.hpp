// Whether what concurrent callers were told of one key could have been told to callers that came
// one after another.
//
// A history is linearizable if its operations can be put in an order in which each comes after all
// that had returned before it was invoked, and in which the sequential model gives every one the
// outcome that it had (Herlihy and Wing, "Linearizability", 1990). Keys do not depend on each
// other, so each has a history of its own. The search is that of Wing and Gong (1993), which tries
// every operation that may come next, with the memory of Lowe ("Testing for linearizability",
// 2017): the same operations done and the same state reached need not be tried twice.
//
// Time is an input of each operation and not a part of the state: one that overlaps an advance of
// the clock may have seen the time before or after it, wherever it takes its place in the order.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "support/claim_model.hpp"

namespace dedup::test {

struct Operation {
    std::string what;  // for people
    // What the model makes of it at a time; changes the model.
    std::function<std::string(KeyModel&, std::int64_t now_ms)> apply;
    std::string outcome;
    // Two moments in an order that all operations share; no two are equal.
    std::uint64_t invoked = 0;
    std::uint64_t returned = 0;
    std::vector<std::int64_t> times_ms;  // those that it may have seen
};

inline constexpr std::size_t kOperationsMax = 128;  // in one history

// Empty if `history` is linearizable from `start`; else the history, and how far it is. Beside the
// outcomes, fences must grow. Precondition: at most kOperationsMax operations.
[[nodiscard]] std::string why_not_linearizable(const KeyModel& start,
                                               std::span<const Operation> history);

}  // namespace dedup::test
