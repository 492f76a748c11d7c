// The keys that are measured with, here and in tools/bench.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace dedupctl {

// SplitMix64, by Sebastiano Vigna (public domain): a bijection that looks random.
[[nodiscard]] std::uint64_t mix(std::uint64_t x);

// Keys that look like random UUIDs: number `index` of an endless sequence, without a table of
// them. Different seeds give different sequences.
class BenchKeys {
  public:
    explicit BenchKeys(std::uint64_t seed) : seed_(seed) {}

    static constexpr std::size_t kKeyBytes = 36;
    void write(std::uint64_t index, char* out) const;
    [[nodiscard]] std::string at(std::uint64_t index) const;

  private:
    std::uint64_t seed_;
};

}  // namespace dedupctl
