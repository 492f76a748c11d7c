// What `dedupctl serve` has to show to people: how it went over the last hour, and what the store
// holds.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "dedup/server.hpp"
#include "dedup/store.hpp"
#include "report.hpp"

namespace dedupctl {

// How it went between two looks.
struct Sample {
    std::int64_t at_ms = 0;
    double requests = 0;  // a second
    double records = 0;   // appended, a second
    double flush_median_ms = 0;
    double flush_p99_ms = 0;
    double group_mean = 0;  // records that were flushed together
    double group_p99 = 0;
    double in_flight = 0;  // keys
    double connections = 0;
};

// Has a thread that looks every ten seconds, which costs a call of stats(). It reads all keys only
// when somebody asks, and not for more than a twentieth of the time. Any thread may call this.
class ServeWatch {
  public:
    static constexpr std::chrono::seconds kEvery{10};
    static constexpr std::size_t kSamples = 360;  // an hour
    // Somebody who asks waits so long for a count that runs.
    static constexpr std::chrono::seconds kCountPatience{2};
    static constexpr int kShareOfTime = 20;

    explicit ServeWatch(dedup::StreamStore& store);
    ~ServeWatch();
    ServeWatch(const ServeWatch&) = delete;
    ServeWatch& operator=(const ServeWatch&) = delete;

    // Whose numbers are shown; it must outlive this, or be told nullptr.
    void watch(const dedup::Server* server);

    [[nodiscard]] std::deque<Sample> samples() const;
    // All keys, counted lately. Null: the first count takes longer than one can wait.
    [[nodiscard]] std::shared_ptr<const Report> keys();
    // The same without waiting: whatever there is.
    [[nodiscard]] std::shared_ptr<const Report> known_keys();
    // Why the last count failed; empty if it did not.
    [[nodiscard]] std::string count_error() const;
    [[nodiscard]] dedup::StreamStore& store() const { return store_; }
    // Of the commands of the server that is watched.
    [[nodiscard]] std::vector<dedup::CommandTime> command_times() const;

  private:
    using Steady = std::chrono::steady_clock;

    void run();
    void look();
    void count(std::unique_lock<std::mutex>& lock);
    [[nodiscard]] dedup::Result<std::shared_ptr<Report>> read_keys();
    [[nodiscard]] bool is_fresh() const;

    dedup::StreamStore& store_;

    mutable std::mutex mutex_;  // guards all below
    std::condition_variable changed_;
    bool stop_ = false;
    const dedup::Server* server_ = nullptr;
    std::deque<Sample> samples_;
    bool wanted_ = false;    // a count
    bool counting_ = false;  // one runs, since
    Steady::time_point count_began_;
    Steady::duration count_took_{};
    std::shared_ptr<const Report> keys_;
    std::uint64_t counts_ = 0;  // that have ended
    std::string count_error_;

    // Of the thread alone.
    dedup::StoreMetrics last_metrics_;
    std::uint64_t last_requests_ = 0;
    Steady::time_point last_look_;

    std::thread thread_;
};

}  // namespace dedupctl
