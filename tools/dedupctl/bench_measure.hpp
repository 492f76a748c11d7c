// What `bench` measures, one function a kind of row.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "dedup/cache.hpp"

namespace dedupctl {

// Throws to end a measurement early; called between any two groups.
using CheckStop = std::function<void()>;

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

class Bench {
  public:
    // `directory` is on the disk to measure; `cache` is on a store in it.
    Bench(std::string directory, dedup::Cache& cache, CheckStop check_stop);

    // Makes `keys` keys known, as completed ones with an empty receipt.
    void load(std::uint64_t keys);

    // Each runs for about `time` and gives operations a second.

    // What the disk alone can do: a record's worth of bytes written and flushed, one after the
    // other, into a file whose blocks are allocated beforehand.
    [[nodiscard]] double disk_flushes(std::chrono::milliseconds time);
    // Claims of new keys, `group` of them a call.
    [[nodiscard]] double claims(std::size_t group, std::chrono::milliseconds time);
    // Claims of new keys by threads that each claim one at a time.
    [[nodiscard]] double claims_by_threads(unsigned threads, std::chrono::milliseconds time);
    // Lookups of loaded keys, chosen at random, one a call.
    [[nodiscard]] double lookups(unsigned threads, std::chrono::milliseconds time);

  private:
    std::string directory_;
    dedup::Cache& cache_;
    CheckStop check_stop_;
    BenchKeys keys_;
    std::uint64_t loaded_ = 0;
    std::uint64_t next_ = 0;  // the first key that nobody has claimed
    std::uint64_t disk_files_ = 0;
};

// The process's own memory, without that of mapped files; 0 if it cannot be told.
[[nodiscard]] std::uint64_t anonymous_memory_bytes();

}  // namespace dedupctl
