// Sweeps a store in the background.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "dedup/store.hpp"
#include "dedup/sweep.hpp"

namespace dedup {

struct SweeperOptions {
    std::chrono::milliseconds interval{std::chrono::minutes{1}};  // at least 1 ms
    // Each wait is longer or shorter by up to this part of the interval, so that many processes
    // that started together do not sweep together. 0 to 1.
    double jitter = 0.1;
    SweepOptions sweep = {};  // for each sweep; its `stop` is ignored
    // Gets the outcome of every sweep, on the thread that swept. Must not throw.
    std::function<void(const Result<SweepReport>&)> observer = {};
};

// Owns a thread that sweeps at intervals, the first time when one has passed. A sweep that fails is
// tried again at the next interval; its error goes to the observer and to StoreStats::sweep_error.
// In a forked child there is no thread: sweep_once gives `closed`, and stopping does nothing.
// After a jump of the clock its sweeps remove nothing for a day, as anybody's (dedup/clock.hpp);
// their reports say so, and a sweep with SweepOptions::trust_clock ends that.
class DEDUP_API Sweeper {
  public:
    // Starts the thread. `store` must outlive the sweeper.
    // Errors: invalid_argument (an option out of range), io (no thread).
    [[nodiscard]] static Result<std::unique_ptr<Sweeper>> start(StreamStore& store,
                                                                SweeperOptions options = {});
    virtual ~Sweeper() = default;  // stops
    Sweeper(const Sweeper&) = delete;
    Sweeper& operator=(const Sweeper&) = delete;

    // Sweeps on the calling thread, after one that is running; as of `now_ms` if that is given (see
    // SweepOptions::now_ms). The observer gets this too. Errors: those of StreamStore::sweep,
    // closed after stop(), and busy from within the progress of a sweep of this sweeper's.
    [[nodiscard]] virtual Result<SweepReport> sweep_once(
        std::optional<std::int64_t> now_ms = std::nullopt) = 0;

    // Ends a sweep that is running at its next step, and the thread; returns when both are over.
    // Any thread; again is a no-op. Called back by this sweeper, from the observer or the progress
    // of a sweep, it only asks for that and returns.
    virtual void stop() = 0;

  protected:
    Sweeper() = default;
};

}  // namespace dedup
