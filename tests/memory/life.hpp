// A store whose memory runs out, and what has to hold then.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dedup/log_store.hpp"
#include "memory/allocations.hpp"
#include "store/log_store.hpp"
#include "support/manual_clock.hpp"

namespace dedup::test {

// Ends the process with a message on stderr if it does not hold. (These run in children.)
void expect(bool holds, const std::string& what);

inline constexpr int kFirstKeys = 200;  // that a store has before memory runs out
inline constexpr std::int64_t kStartMs = 1'700'000'000'000;
// Of the first keys, those with odd numbers have expired by then.
inline constexpr std::int64_t kExpiredMs = kStartMs + 60'000;

class Life {
  public:
    explicit Life(std::filesystem::path path, const OpenOptions& options = {});

    // With the first keys, in a store that is then closed.
    void begin();

    // Opens the store; says whether that was an answer with a store.
    bool open();
    // Appends to empty streams, and notes what came of it. Any thread.
    bool append(std::vector<std::string> keys, Batch mode = Batch::each,
                std::size_t receipt_bytes = 300);
    bool sweep(const SweepOptions& options = {});
    void close();

    [[nodiscard]] StreamStore& store() { return *store_; }
    [[nodiscard]] bool is_open() const { return store_ != nullptr; }
    [[nodiscard]] OpenOptions& options() { return options_; }
    [[nodiscard]] LogStoreInternals& internals() { return internals_; }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] ManualClock& clock() { return clock_; }
    void may_be_evicted() { evicts_ = true; }
    void is_closed() { closed_ = true; }
    void first_keys_are_swept() { swept_ = true; }

    // With memory again: calls get answers, and either the store goes on or it refuses writes; what
    // was acknowledged is there when it is opened again, and verify finds nothing.
    void check();

  private:
    enum class Fate : std::uint8_t { acknowledged, refused, unknown };
    // Of an atomic batch: all of them are there, or none.
    struct Appended {
        std::vector<std::string> keys;
        std::vector<Fate> fates;
        bool atomic = false;
    };

    [[nodiscard]] bool there(const std::string& key);
    void check_that_it_answers();
    void check_atomic(const Appended& appended);
    void check_that_it_goes_on();
    void check_contents();
    void check_closing_twice();

    const std::filesystem::path path_;
    ManualClock clock_{kStartMs};
    OpenOptions options_;
    LogStoreInternals internals_;
    std::unique_ptr<StreamStore> store_;
    std::mutex mutex_;
    std::vector<Appended> appended_;
    std::atomic<bool> swept_{false};
    bool has_first_keys_;
    bool evicts_ = false;
    bool closed_ = false;
};

}  // namespace dedup::test
