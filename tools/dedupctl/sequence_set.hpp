// A set of sequences that takes little room where many lie near one another.
#pragma once

#include <bitset>
#include <cstdint>
#include <unordered_map>

namespace dedupctl {

class SequenceSet {
  public:
    void insert(std::uint64_t sequence) { blocks_[sequence / kBlock].set(sequence % kBlock); }

    [[nodiscard]] bool contains(std::uint64_t sequence) const {
        const auto block = blocks_.find(sequence / kBlock);
        return block != blocks_.end() && block->second.test(sequence % kBlock);
    }

  private:
    static constexpr std::uint64_t kBlock = 1024;

    std::unordered_map<std::uint64_t, std::bitset<kBlock>> blocks_;
};

}  // namespace dedupctl
