// What a cache has done, counted by all of its callers at once.
//
// One set of counters would be a cache line that all threads write, and lookups on two cores would
// wait for it. So each thread has one of several sets, and a reader adds them up. (Known from
// Linux' per-CPU counters; Corbet, "per-CPU variables", LWN 2001.)
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "dedup/cache.hpp"
#include "metrics/counter.hpp"

namespace dedup {

class Cache::Counters {
  public:
    CountedHistogram claim_ns;
    CountedHistogram complete_ns;
    CountedHistogram lookup_ns;
    CountedHistogram work_ms;
    std::atomic<bool> mostly_new{true};  // the keys that were claimed last

    // Once a call, however many keys that has.
    void add(const CacheCounts& counts) {
        Set& set = sets_[thread().set];
        const auto numbers = std::bit_cast<Numbers>(counts);
        for (std::size_t i = 0; i < kNumbers; ++i) {
            if (numbers[i] != 0) {
                set.counters[i].add(numbers[i]);
            }
        }
    }

    // The same for one lookup of one key.
    void add_lookup(const LookupOutcome& outcome) {
        static constexpr std::array<std::size_t, 3> kPlaces{
            offsetof(CacheCounts, lookups_in_flight) / sizeof(std::uint64_t),
            offsetof(CacheCounts, lookups_absent) / sizeof(std::uint64_t),
            offsetof(CacheCounts, lookups_completed) / sizeof(std::uint64_t)};
        static_assert(std::is_base_of_v<std::variant<InFlight, Absent, Completed>, LookupOutcome>);
        sets_[thread().set].counters[kPlaces[outcome.index()]].add(1);
    }

    // Whether this lookup is one of those that are timed: reading the clock twice would take a
    // thirtieth of it.
    [[nodiscard]] static bool times_lookup() { return ++thread().lookups % kLookupsPerTimed == 0; }

    [[nodiscard]] CacheCounts sum() const {
        Numbers numbers{};
        for (const Set& set : sets_) {
            for (std::size_t i = 0; i < kNumbers; ++i) {
                numbers[i] += set.counters[i].value();
            }
        }
        return std::bit_cast<CacheCounts>(numbers);
    }

  private:
    static constexpr std::size_t kSets = 8;
    static constexpr std::size_t kCacheLineBytes = 64;
    static constexpr std::uint32_t kLookupsPerTimed = 64;
    static constexpr std::size_t kNumbers = sizeof(CacheCounts) / sizeof(std::uint64_t);
    using Numbers = std::array<std::uint64_t, kNumbers>;

    struct alignas(kCacheLineBytes) Set {
        std::array<Counter, kNumbers> counters;
    };
    struct Thread {
        std::uint32_t set;
        std::uint32_t lookups;
    };

    [[nodiscard]] static Thread& thread() {
        static std::atomic<std::uint32_t> threads{0};
        thread_local Thread thread{static_cast<std::uint32_t>(threads++ % kSets), 0};
        return thread;
    }

    std::array<Set, kSets> sets_;
};

}  // namespace dedup
