// What is measured, one function a kind of work; the same for every store.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "adapter.hpp"
#include "common/bench_keys.hpp"
#include "histogram.hpp"

namespace bench {

using std::chrono::milliseconds;

struct Measured {
    std::uint64_t operations = 0;  // keys claimed, completed, found, removed or loaded
    double seconds = 0;            // in the store; making keys is not counted
    Histogram latency;             // of a group, in nanoseconds

    void add(const Measured& other) {
        operations += other.operations;
        seconds += other.seconds;
        latency.add(other.latency);
    }
};

// Which loaded keys are looked up: all of them equally likely; by Zipf's law; or those of the last
// kRecentKeys, as when messages come twice within a short time.
enum class Draw : std::uint8_t { uniform, zipf, recent };
inline constexpr std::uint64_t kRecentKeys = 10'000;

class Work {
  public:
    // So many keys of this seed have been loaded and claimed before.
    Work(Adapter& adapter, std::uint64_t seed, std::uint64_t loaded, std::uint64_t claimed);

    // Loads keys until there are `until`, or for `budget`; then flushes.
    Measured load(std::uint64_t until, milliseconds budget, std::size_t receipt_bytes,
                  std::int64_t ttl_ms);
    // As load, but each key is claimed and then completed, with an empty receipt, by the calls that
    // a program uses.
    Measured load_claimed(std::uint64_t until);

    // Claims new keys, `group` at a time.
    Measured claims(std::size_t group, milliseconds time);
    // Claims new keys in `threads` threads, one key at a time.
    Measured claims_by_threads(unsigned threads, milliseconds time);
    // Claims `group` keys of which a tenth are duplicates, and completes the rest. An operation is
    // a key of the group.
    Measured cycles(std::size_t group, milliseconds time);
    // Reads receipts of loaded keys, `together` by one call.
    Measured lookups(unsigned threads, Draw draw, std::size_t together, milliseconds time);

    Measured sweep(std::int64_t ahead_ms);
    // Claims `group` at a time while another thread sweeps; stops when that is done.
    Measured claims_beside_sweep(std::size_t group, std::int64_t ahead_ms, Measured& swept);

    [[nodiscard]] std::uint64_t loaded() const { return loaded_; }
    [[nodiscard]] std::uint64_t claimed() const;
    [[nodiscard]] Adapter& adapter() { return adapter_; }

    // Throws if a key that was loaded cannot be found; any will do.
    void probe();

  private:
    Session& session(std::size_t index);
    Measured claims_while(std::size_t group, const std::function<bool()>& go_on);
    // Runs `work` in threads, each with its session, until the time is over.
    Measured in_threads(
        unsigned threads, milliseconds time,
        const std::function<void(unsigned, const std::function<bool()>&, Measured&)>& work);

    Adapter& adapter_;
    dedupctl::BenchKeys keys_;
    std::uint64_t loaded_;
    std::uint64_t next_;       // the first key that has not been claimed
    std::uint64_t draws_ = 0;  // how many random series have been begun
    std::vector<std::unique_ptr<Session>> sessions_;
};

}  // namespace bench
