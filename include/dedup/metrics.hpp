// What a process has done with a store since it opened it: counters, and histograms of sizes and
// times. They cost a lookup and a claim less than a fiftieth, so they are always on.
//
// A snapshot is taken while others count: each number was right at some moment of the call, but
// not all at the same one. Numbers begin at 0 with each process; what is in the store itself says
// StoreStats.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "dedup/error.hpp"
#include "dedup/export.hpp"

namespace dedup {

struct StoreStats;
class StreamStore;

// How often which values came. A value is known to a factor of two: bucket 0 has the zeros, and
// bucket i the values from 2^(i-1) to 2^i - 1, as in the log2 histograms of bpftrace and of Linux'
// block layer. The last one also has whatever is larger.
struct Histogram {
    static constexpr std::size_t kBuckets = 44;  // 2^43 ns are more than two hours

    std::array<std::uint64_t, kBuckets> buckets{};
    std::uint64_t sum = 0;  // of the values themselves

    [[nodiscard]] static constexpr std::size_t bucket_of(std::uint64_t value) {
        const auto width = static_cast<std::size_t>(std::bit_width(value));
        return width < kBuckets ? width : kBuckets - 1;
    }
    // The largest value of bucket `i`, except that the last bucket has no largest one.
    [[nodiscard]] static constexpr std::uint64_t bucket_max(std::size_t i) {
        return (std::uint64_t{1} << i) - 1;
    }

    [[nodiscard]] std::uint64_t count() const {
        return std::accumulate(buckets.begin(), buckets.end(), std::uint64_t{0});
    }
    // The upper end of the bucket that the value of rank share * count() is in; 0 if there are no
    // values. `share` from 0 to 1: 0.5 is the median.
    [[nodiscard]] DEDUP_API std::uint64_t quantile(double share) const;

    DEDUP_API Histogram& operator+=(const Histogram& more);
    bool operator==(const Histogram&) const = default;
};

// What a store has done for everybody in the process. See StreamStore::metrics().
struct StoreMetrics {
    std::uint64_t appended = 0;       // records; those that a sweep moved are not among them
    std::uint64_t conflicts = 0;      // items that got sequence_conflict
    std::uint64_t refused = 0;        // items that got another error
    std::uint64_t bytes_written = 0;  // to the log, by appends and sweeps; zeros ahead of it not
    std::uint64_t flushes = 0;        // of the log's newest segment: one fdatasync each
    std::uint64_t sweeps = 0;         // without dry runs
    std::uint64_t sweeps_failed = 0;
    std::uint64_t streams_removed = 0;  // by sweeps

    Histogram group_records = {};  // records that were written and flushed together
    Histogram flush_ns = {};       // one fdatasync
    Histogram sweep_us = {};       // one sweep

    DEDUP_API StoreMetrics& operator+=(const StoreMetrics& more);
};

// How the calls of caches have ended. Each key of a span counts.
struct CacheCounts {
    // claim and remember:
    std::uint64_t claimed = 0;     // nobody held the key
    std::uint64_t taken_over = 0;  // claimed from a holder whose lease or time had run out
    std::uint64_t remembered = 0;  // claimed and completed in one append
    std::uint64_t duplicates = 0;  // answered Completed
    std::uint64_t in_flight = 0;   // answered InFlight
    std::uint64_t mismatches = 0;  // answered Mismatch
    std::uint64_t held = 0;        // answered Held
    // complete, release, renew:
    std::uint64_t completed = 0;
    std::uint64_t completed_again = 0;  // with equal bytes, or resolved likewise: a no-op
    std::uint64_t released = 0;
    std::uint64_t released_nothing = 0;  // there was nothing to release, or to forget
    std::uint64_t renewed = 0;
    // note, hold, resolve, forget:
    std::uint64_t noted = 0;
    std::uint64_t put_on_hold = 0;
    std::uint64_t resolved = 0;
    std::uint64_t forgotten = 0;
    // Offsets:
    std::uint64_t offsets_committed = 0;
    std::uint64_t offsets_repeated = 0;  // the position was the one asked for
    std::uint64_t offsets_behind = 0;    // answered Behind
    // lookup, and each look of wait:
    std::uint64_t lookups_absent = 0;
    std::uint64_t lookups_completed = 0;
    std::uint64_t lookups_in_flight = 0;
    // all of them:
    std::uint64_t races_lost = 0;  // appends that lost a race and were decided anew
    std::uint64_t stale = 0;       // calls that got stale_claim
    std::uint64_t errors = 0;      // calls that got another error

    DEDUP_API CacheCounts& operator+=(const CacheCounts& more);
    bool operator==(const CacheCounts&) const = default;
};

// What one cache has done, or one Guard, Reservations, Offsets, or part of a Registry, each of
// which counts as the cache that it stands on. See Cache::metrics().
struct CacheMetrics {
    std::string ns = {};
    CacheCounts counts = {};
    // How long calls took, a span counting as one call. Those that appended nothing are not timed.
    Histogram claim_ns = {};     // claim, remember
    Histogram complete_ns = {};  // complete, release, renew
    // From a claim to its completion, of claims that this cache has completed and that knew when
    // they were made (Claim::since_ms).
    Histogram work_ms = {};
    // One in 64 calls of lookup and lookup_many, chosen without regard to what they look up.
    Histogram lookup_ns = {};
};

// A namespace's claims that are in flight and have not expired.
struct OpenClaims {
    std::string ns = {};
    std::uint64_t count = 0;
    std::uint64_t past_lease = 0;  // of these: their lease has run out
    std::uint64_t held = 0;        // of these: they wait for a decision
    std::int64_t oldest_ms = 0;    // when the one that has been in flight longest was claimed

    bool operator==(const OpenClaims&) const = default;
};

// The open claims of all namespaces that have any, by name. Reads the head of every key, which
// takes a second for a million or so: for a look each minute, not for each request.
// Errors: those of StreamStore::scan.
[[nodiscard]] DEDUP_API Result<std::vector<OpenClaims>> open_claims(StreamStore& store);

// The text format of Prometheus (version 0.0.4), with HELP and TYPE, names that begin with
// `dedup_`, and times in seconds. An embedding program serves what it has, one after the other:
//
//     prometheus_text(*store->stats()) + prometheus_text(store->metrics()) +
//         prometheus_text({&cache_metrics, 1})
//
// Each may be in a page once. Of caches, all belong into one call; those of one
// namespace are added up.
[[nodiscard]] DEDUP_API std::string prometheus_text(const StoreStats& stats);
[[nodiscard]] DEDUP_API std::string prometheus_text(const StoreMetrics& metrics);
[[nodiscard]] DEDUP_API std::string prometheus_text(std::span<const CacheMetrics> caches);
[[nodiscard]] DEDUP_API std::string prometheus_text(std::span<const OpenClaims> claims);

}  // namespace dedup
