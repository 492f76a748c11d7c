#include "dedup/metrics.hpp"

#include <algorithm>
#include <cmath>

namespace dedup {
namespace {

template <class Numbers>
void add(Numbers& to, const Numbers& more) {
    constexpr std::size_t kNumbers = sizeof(Numbers) / sizeof(std::uint64_t);
    using Array = std::array<std::uint64_t, kNumbers>;
    auto sums = std::bit_cast<Array>(to);
    const auto others = std::bit_cast<Array>(more);
    std::ranges::transform(sums, others, sums.begin(), std::plus<>());
    to = std::bit_cast<Numbers>(sums);
}

}  // namespace

std::uint64_t Histogram::quantile(double share) const {
    const auto wanted = static_cast<std::uint64_t>(
        std::ceil(std::clamp(share, 0.0, 1.0) * static_cast<double>(count())));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
        seen += buckets[i];
        if (buckets[i] != 0 && seen >= wanted) {
            return bucket_max(i);
        }
    }
    return 0;
}

// All of these consist of 64-bit numbers and nothing else.
Histogram& Histogram::operator+=(const Histogram& more) {
    add(*this, more);
    return *this;
}

StoreMetrics& StoreMetrics::operator+=(const StoreMetrics& more) {
    add(*this, more);
    return *this;
}

CacheCounts& CacheCounts::operator+=(const CacheCounts& more) {
    add(*this, more);
    return *this;
}

}  // namespace dedup
