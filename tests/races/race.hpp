// Threads that do all that callers do, on a few keys of one store at the same time, and a note of
// what each was told and when.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "dedup/cache.hpp"
#include "races/linearizable.hpp"

namespace dedup::test {

// Stands still until somebody advances it. Who reads it may be held up before or after, which is
// between reading a head and appending.
class RaceClock {
  public:
    [[nodiscard]] Clock clock();
    // Gives the new time, which is no other advance's.
    std::int64_t advance(std::int64_t by_ms) { return now_ms_ += by_ms; }
    [[nodiscard]] std::int64_t now_ms() const { return now_ms_; }

  private:
    std::atomic<std::int64_t> now_ms_{1'000'000};
};

struct RacePlan {
    std::uint64_t seed = 1;
    std::size_t threads = 6;
    std::size_t keys = 2;
    int steps = 8;        // a thread
    bool closes = false;  // one thread closes the store somewhere on its way
};

// How often each outcome was met: "claimed", "stale_claim", "absent", ...
using Outcomes = std::map<std::string, std::uint64_t>;

class Race {
  public:
    // Keys are in namespaces of their own, so that reports of sweeps tell them apart.
    Race(RaceClock& clock, const RacePlan& plan);

    // Runs the threads and waits for them.
    void run(StreamStore& store);
    // Reads every key: what has been acknowledged must be there. After a race that closed its
    // store that needs another one, on the same files.
    void read_all(StreamStore& store);

    // What is wrong with what the threads were told; empty if nothing is.
    [[nodiscard]] std::string wrong();
    void count(Outcomes& outcomes) const;

  private:
    class Worker;

    struct Advance {
        std::int64_t now_ms = 0;  // from then on
        std::uint64_t invoked = 0;
        std::uint64_t returned = 0;
    };
    struct Noted {
        std::optional<std::size_t> key;  // none: it concerns all of them
        Operation operation;
        // Of a sweep: its time, and by namespace the state in which a key was removed.
        std::int64_t swept_at_ms = 0;
        std::map<std::string, std::string> swept = {};
        std::uint64_t segments_given_up = 0;
    };

    [[nodiscard]] std::uint64_t moment();
    [[nodiscard]] std::string ns(std::size_t key) const;
    [[nodiscard]] std::vector<std::int64_t> times_seen(const Operation& operation) const;
    [[nodiscard]] std::string wrong_beside_close() const;
    [[nodiscard]] std::vector<Operation> history_of(std::size_t key) const;

    RaceClock& clock_;
    const RacePlan plan_;
    std::atomic<std::uint64_t> moments_{0};
    std::vector<Advance> advances_;
    std::mutex mutex_;  // guards what follows while threads run
    std::vector<Noted> noted_;
    std::optional<Operation> close_;
};

}  // namespace dedup::test
