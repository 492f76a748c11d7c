// Counts of durations, exact to a sixty-fourth of each.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace bench {

class Histogram {
  public:
    void add(std::uint64_t ns) {
        ++counts_[bucket(ns)];
        ++total_;
        max_ = std::max(max_, ns);
    }

    void add(const Histogram& other) {
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            counts_[i] += other.counts_[i];
        }
        total_ += other.total_;
        max_ = std::max(max_, other.max_);
    }

    // The duration that `share` of all are at most; 0 if there are none. `share` is 0 to 1.
    [[nodiscard]] std::uint64_t quantile(double share) const {
        const auto rank = static_cast<std::uint64_t>(share * static_cast<double>(total_));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            seen += counts_[i];
            if (counts_[i] != 0 && seen >= rank) {
                return std::min(upper(i), max_);
            }
        }
        return max_;
    }
    [[nodiscard]] std::uint64_t max() const { return max_; }
    [[nodiscard]] std::uint64_t total() const { return total_; }

  private:
    // Durations below 2^7 have a bucket each; every doubling above that has 64.
    static constexpr unsigned kBits = 6;
    static constexpr std::size_t kBuckets = (64 - kBits) << kBits;

    static std::size_t bucket(std::uint64_t ns) {
        const unsigned width = static_cast<unsigned>(std::bit_width(ns));
        if (width <= kBits + 1) {
            return ns;
        }
        const unsigned shift = width - kBits - 1;
        return (std::size_t{shift} << kBits) + (ns >> shift);
    }
    static std::uint64_t upper(std::size_t bucket) {
        if (bucket < (std::size_t{2} << kBits)) {
            return bucket;
        }
        const std::size_t shift = (bucket >> kBits) - 1;
        const std::uint64_t top = bucket - (shift << kBits);
        return ((top + 1) << shift) - 1;
    }

    std::array<std::uint64_t, kBuckets> counts_{};
    std::uint64_t total_ = 0;
    std::uint64_t max_ = 0;
};

}  // namespace bench
