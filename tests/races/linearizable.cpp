#include "races/linearizable.hpp"

#include <algorithm>
#include <bitset>
#include <numeric>
#include <set>
#include <utility>

namespace dedup::test {
namespace {

using Done = std::bitset<kOperationsMax>;

class Search {
  public:
    explicit Search(std::span<const Operation> history) : history_(history) {}

    // Whether the operations that are not `done` can follow on `state`.
    bool follows(const Done& done, const KeyModel& state) {
        if (done.count() >= furthest_.count()) {
            furthest_ = done;
        }
        if (done.count() == history_.size()) {
            return true;
        }
        if (!tried_.emplace(done.to_string(), state).second) {
            return false;
        }
        const std::uint64_t end = first_return(done);
        for (std::size_t i = 0; i < history_.size(); ++i) {
            if (!done[i] && history_[i].invoked < end && is_next(done, state, i)) {
                return true;
            }
        }
        return false;
    }

    [[nodiscard]] const Done& furthest() const { return furthest_; }

  private:
    // No operation that was invoked after this moment can be the next.
    [[nodiscard]] std::uint64_t first_return(const Done& done) const {
        std::uint64_t first = UINT64_MAX;
        for (std::size_t i = 0; i < history_.size(); ++i) {
            first = done[i] ? first : std::min(first, history_[i].returned);
        }
        return first;
    }

    // Whether operation `i` can come next, at one of its times, and the others after it.
    bool is_next(const Done& done, const KeyModel& state, std::size_t i) {
        Done next = done;
        next.set(i);
        for (const std::int64_t now_ms : history_[i].times_ms) {
            KeyModel after = state;
            if (history_[i].apply(after, now_ms) == history_[i].outcome &&
                after.fence() >= state.fence() && follows(next, after)) {
                return true;
            }
        }
        return false;
    }

    std::span<const Operation> history_;
    std::set<std::pair<std::string, KeyModel>> tried_;
    Done furthest_;
};

std::string show(std::span<const Operation> history, const Done& done) {
    std::vector<std::size_t> order(history.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return history[i].invoked; });
    std::string text = "no order explains this (* are those of the longest that does):\n";
    for (const std::size_t i : order) {
        const Operation& operation = history[i];
        text += (done[i] ? " * " : "   ") + std::to_string(operation.invoked) + "-" +
                std::to_string(operation.returned) + " " + operation.what + ": " +
                operation.outcome + " (at";
        for (const std::int64_t now_ms : operation.times_ms) {
            text += " " + std::to_string(now_ms);
        }
        text += ")\n";
    }
    return text;
}

}  // namespace

std::string why_not_linearizable(const KeyModel& start, std::span<const Operation> history) {
    if (history.size() > kOperationsMax) {
        return "a history of " + std::to_string(history.size()) + " operations is too long";
    }
    Search search(history);
    return search.follows({}, start) ? "" : show(history, search.furthest());
}

}  // namespace dedup::test
