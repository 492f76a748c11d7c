#include "dedup/sweeper.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <stop_token>
#include <system_error>
#include <thread>
#include <utility>

#include "env/owned_mutex.hpp"
#include "env/process.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;

// Longer ones would overflow where a deadline is computed.
constexpr milliseconds kWaitMax = std::chrono::hours{24 * 365};

std::unexpected<Error> failure(Code code, std::string message, int os_error = 0) {
    return std::unexpected(
        Error{.code = code, .message = std::move(message), .os_error = os_error});
}

Result<void> check_options(const SweeperOptions& options) {
    if (options.interval < milliseconds{1}) {
        return failure(Code::invalid_argument, "the sweeper's interval is less than 1 ms");
    }
    if (!(options.jitter >= 0 && options.jitter <= 1)) {  // in this form NaN fails, too
        return failure(Code::invalid_argument,
                       fmt::format("the sweeper's jitter is {}, not 0 to 1", options.jitter));
    }
    return {};
}

class SweeperThread final : public Sweeper {
  public:
    SweeperThread(StreamStore& store, SweeperOptions options)
        : store_(store),
          options_(std::move(options)),
          thread_(start_thread("dedup-sweeper", [this] { run(); })) {}

    ~SweeperThread() override { stop_and_join(); }

    // In a forked child there is no thread to stop.
    static void operator delete(SweeperThread* sweeper, std::destroying_delete_t) {
        delete_unless_inherited(sweeper, sweeper->mark_);
    }

    Result<SweepReport> sweep_once(std::optional<std::int64_t> now_ms) override {
        Result<SweepReport> outcome =
            mark_.inherited() ? std::unexpected(mark_.inherited_error("the sweeper's store"))
                              : sweep(now_ms);
        observe(outcome);
        return outcome;
    }

    void stop() override { stop_and_join(); }

  private:
    // Not virtual, so that the destructor may call it.
    void stop_and_join() {
        if (mark_.inherited()) {
            return;
        }
        const NoCancel no_cancel;
        stop_.request_stop();
        if (sweep_mutex_.is_mine() || own_thread_ == std::this_thread::get_id()) {
            return;  // called back: it ends when this returns
        }
        std::call_once(joined_, [this] { thread_.join(); });
    }

    void run() {
        own_thread_ = std::this_thread::get_id();
        // Not from the system's randomness, which can fail; apart from each other is enough.
        std::minstd_rand random(
            static_cast<unsigned>(std::chrono::steady_clock::now().time_since_epoch().count()));
        std::uniform_real_distribution<double> around(1 - options_.jitter, 1 + options_.jitter);
        while (wait(around(random))) {
            // Memory that runs out ends no process: the next sweep may have some.
            try {
                observe(sweep(std::nullopt));
            } catch (const std::bad_alloc&) {
                report_out_of_memory();
            }
        }
    }

    void report_out_of_memory() const noexcept {
        try {
            // The message is so short that it needs no memory of its own.
            observe(failure(Code::failed, "out of memory"));
        } catch (const std::bad_alloc&) {
        }
    }

    // Waits for this part of the interval; false if it is time to stop.
    bool wait(double part) {
        const auto longest = static_cast<double>(kWaitMax.count());
        const double wait_ms =
            std::clamp(static_cast<double>(options_.interval.count()) * part, 0.0, longest);
        std::unique_lock lock(wait_mutex_);
        wake_.wait_for(lock, stop_.get_token(), std::chrono::duration<double, std::milli>(wait_ms),
                       [] { return false; });
        return !stop_.stop_requested();
    }

    Result<SweepReport> sweep(std::optional<std::int64_t> now_ms) {
        if (sweep_mutex_.is_mine()) {
            return failure(Code::busy, "the sweeper was called back from within its own sweep");
        }
        const OwnedLock lock(sweep_mutex_);
        if (stop_.stop_requested()) {
            return failure(Code::closed, "the sweeper was stopped");
        }
        SweepOptions options = options_.sweep;
        options.stop = stop_.get_token();
        if (now_ms) {
            options.now_ms = now_ms;
        }
        return store_.sweep(options);
    }

    // Without a lock: the observer may use the sweeper.
    void observe(const Result<SweepReport>& outcome) const {
        if (options_.observer) {
            options_.observer(outcome);
        }
    }

    const ProcessMark mark_;
    StreamStore& store_;
    const SweeperOptions options_;
    OwnedMutex sweep_mutex_;  // held while a sweep runs
    std::stop_source stop_;
    std::mutex wait_mutex_;
    std::condition_variable_any wake_;
    std::once_flag joined_;
    std::atomic<std::thread::id> own_thread_;
    std::thread thread_;  // the last: it uses the others
};

}  // namespace

Result<std::unique_ptr<Sweeper>> Sweeper::start(StreamStore& store, SweeperOptions options) {
    DEDUP_TRY(check_options(options));
    try {
        return std::make_unique<SweeperThread>(store, std::move(options));
    } catch (const std::system_error& error) {
        return failure(Code::io, fmt::format("cannot start the sweeper's thread: {}", error.what()),
                       error.code().value());
    }
}

}  // namespace dedup
