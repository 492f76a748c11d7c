// Every value is in the bucket whose bounds it lies between, and quantiles err upwards only.

#include <doctest/doctest.h>

#include <cstdint>

#include "dedup/metrics.hpp"

using namespace dedup;

TEST_CASE("a bucket has the values up to its bound and above the bound before") {
    CHECK(Histogram::bucket_of(0) == 0);
    CHECK(Histogram::bucket_max(0) == 0);
    for (std::size_t i = 1; i + 1 < Histogram::kBuckets; ++i) {
        const std::uint64_t max = Histogram::bucket_max(i);
        CHECK(Histogram::bucket_of(max) == i);
        CHECK(Histogram::bucket_of(max + 1) == i + 1);
        CHECK(Histogram::bucket_of(max / 2 + 1) == i);
    }
    CHECK(Histogram::bucket_of(UINT64_MAX) == Histogram::kBuckets - 1);
}

TEST_CASE("a quantile is the upper bound of the bucket with that rank") {
    CHECK(Histogram().quantile(0.5) == 0);
    // 1, 2, ..., 1000
    Histogram histogram;
    for (std::uint64_t value = 1; value <= 1000; ++value) {
        ++histogram.buckets[Histogram::bucket_of(value)];
        histogram.sum += value;
    }
    CHECK(histogram.count() == 1000);
    CHECK(histogram.quantile(0) == 1);
    CHECK(histogram.quantile(0.001) == 1);
    CHECK(histogram.quantile(0.5) == 511);    // the 500th value is 500
    CHECK(histogram.quantile(0.511) == 511);  // the last one of its bucket
    CHECK(histogram.quantile(0.512) == 1023);
    CHECK(histogram.quantile(1) == 1023);
}

TEST_CASE("numbers add up field by field") {
    Histogram histogram;
    histogram.buckets[3] = 4;
    histogram.sum = 20;
    Histogram twice = histogram;
    twice += histogram;
    CHECK(twice.buckets[3] == 8);
    CHECK(twice.sum == 40);

    CacheCounts counts{.claimed = 1, .errors = 5};
    counts += {.claimed = 2, .renewed = 3};
    CHECK(counts == CacheCounts{.claimed = 3, .renewed = 3, .errors = 5});

    StoreMetrics store{.appended = 1, .group_records = histogram};
    store += store;
    CHECK(store.appended == 2);
    CHECK(store.group_records == twice);
}
