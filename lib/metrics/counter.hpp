// Counters that many threads bump and anybody reads. All orders are relaxed: a number is exact in
// the end, and says nothing about the others at a moment.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "dedup/metrics.hpp"

namespace dedup {

class Counter {
  public:
    void add(std::uint64_t more) { value_.fetch_add(more, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

class CountedHistogram {
  public:
    void add(std::uint64_t value) {
        buckets_[Histogram::bucket_of(value)].add(1);
        sum_.add(value);
    }

    [[nodiscard]] Histogram snapshot() const {
        Histogram histogram;
        for (std::size_t i = 0; i < Histogram::kBuckets; ++i) {
            histogram.buckets[i] = buckets_[i].value();
        }
        histogram.sum = sum_.value();
        return histogram;
    }

  private:
    std::array<Counter, Histogram::kBuckets> buckets_;
    Counter sum_;
};

[[nodiscard]] inline std::uint64_t nanoseconds_since(std::chrono::steady_clock::time_point start) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::steady_clock::now() - start)
                                          .count());
}

[[nodiscard]] inline std::uint64_t microseconds_since(std::chrono::steady_clock::time_point start) {
    return nanoseconds_since(start) / 1000;
}

}  // namespace dedup
