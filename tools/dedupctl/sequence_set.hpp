// A set of sequences that takes little room where many follow one another.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace dedupctl {

class SequenceSet {
  public:
    void insert(std::uint64_t sequence) {
        if (contains(sequence)) {
            return;
        }
        std::uint64_t last = sequence;
        if (const auto next = runs_.find(sequence + 1); next != runs_.end()) {
            last = next->second;
            runs_.erase(next);
        }
        const auto after = runs_.lower_bound(sequence);
        if (after != runs_.begin() && std::prev(after)->second == sequence - 1) {
            std::prev(after)->second = last;
        } else {
            runs_.emplace_hint(after, sequence, last);
        }
    }

    [[nodiscard]] bool contains(std::uint64_t sequence) const {
        const auto after = runs_.upper_bound(sequence);
        return after != runs_.begin() && std::prev(after)->second >= sequence;
    }

  private:
    std::map<std::uint64_t, std::uint64_t> runs_;  // first to last
};

}  // namespace dedupctl
