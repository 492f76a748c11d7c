// What `bench` measures, one function a kind of row.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "common/bench_keys.hpp"
#include "dedup/cache.hpp"

namespace dedupctl {

// Throws to end a measurement early; called between any two groups.
using CheckStop = std::function<void()>;

class Bench {
  public:
    // `directory` is on the disk to measure; `cache` is on a store in it.
    Bench(std::string directory, dedup::Cache& cache, CheckStop check_stop);

    // Makes `keys` keys known, as completed ones with an empty receipt.
    void load(std::uint64_t keys);

    // Each runs for about `time` and gives operations a second.

    // What the disk alone can do: a record's worth of bytes written and flushed, one after the
    // other (see disk_limit.hpp).
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
