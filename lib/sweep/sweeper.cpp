#include "dedup/sweeper.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <random>
#include <stop_token>
#include <system_error>
#include <thread>
#include <utility>

#include "env/process.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;

// Longer ones would overflow where a deadline is computed.
constexpr milliseconds kWaitMax = std::chrono::hours{24 * 365};

// Goes on while the machine is suspended, as the clock does, so that waking up is no jump.
milliseconds system_monotonic() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return std::chrono::duration_cast<milliseconds>(std::chrono::seconds{now.tv_sec} +
                                                    std::chrono::nanoseconds{now.tv_nsec});
}

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
    if (options.clock_jump_max < milliseconds{1}) {
        return failure(Code::invalid_argument, "the sweeper's clock_jump_max is less than 1 ms");
    }
    return {};
}

// Tells time that has passed from time that was set.
class ClockWatch {
  public:
    ClockWatch(StreamStore& store, std::function<milliseconds()> monotonic)
        : store_(store), monotonic_(monotonic ? std::move(monotonic) : system_monotonic) {
        accept();
    }

    // How much the store's time has gained over the monotonic one since it was last accepted.
    [[nodiscard]] milliseconds jump() const {
        return milliseconds{store_.now_ms() - store_ms_} - (monotonic_() - monotonic_ms_);
    }

    void accept() {
        store_ms_ = store_.now_ms();
        monotonic_ms_ = monotonic_();
    }

  private:
    StreamStore& store_;
    std::function<milliseconds()> monotonic_;
    std::int64_t store_ms_ = 0;
    milliseconds monotonic_ms_{0};
};

class SweeperThread final : public Sweeper {
  public:
    SweeperThread(StreamStore& store, SweeperOptions options)
        : store_(store),
          options_(std::move(options)),
          clock_(store, options_.monotonic),
          thread_(start_thread("dedup-sweeper", [this] { run(); })) {}

    ~SweeperThread() override { stop_and_join(); }

    // In a forked child there is no thread to stop.
    static void operator delete(SweeperThread* sweeper, std::destroying_delete_t) {
        if (sweeper->mark_.inherited()) {
            leave_to_parent(sweeper);
            return;
        }
        sweeper->~SweeperThread();
        ::operator delete(sweeper, sizeof(SweeperThread));
    }

    Result<SweepReport> sweep_once(std::optional<std::int64_t> now_ms) override {
        Result<SweepReport> outcome = [&]() -> Result<SweepReport> {
            if (mark_.inherited()) {
                return std::unexpected(mark_.inherited_error("the sweeper's store"));
            }
            const std::lock_guard lock(sweep_mutex_);
            if (stop_.stop_requested()) {
                return failure(Code::closed, "the sweeper was stopped");
            }
            return sweep(now_ms);
        }();
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
        std::call_once(joined_, [this] { thread_.join(); });
    }

    void run() {
        // Not from the system's randomness, which can fail; apart from each other is enough.
        std::minstd_rand random(
            static_cast<unsigned>(std::chrono::steady_clock::now().time_since_epoch().count()));
        std::uniform_real_distribution<double> around(1 - options_.jitter, 1 + options_.jitter);
        while (wait(around(random))) {
            observe(sweep_unless_jumped());
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

    Result<SweepReport> sweep_unless_jumped() {
        const std::lock_guard lock(sweep_mutex_);
        if (const milliseconds jump = clock_.jump(); jump > options_.clock_jump_max) {
            return failure(
                Code::unavailable,
                fmt::format("the clock jumped forward by {} s, which is more than the {} s of "
                            "clock_jump_max: not sweeping, as everything might expire at once. "
                            "If the time is right, accept it with sweep_once()",
                            jump.count() / 1000,
                            static_cast<double>(options_.clock_jump_max.count()) / 1000));
        }
        return sweep(std::nullopt);
    }

    // Precondition: sweep_mutex_ is held.
    Result<SweepReport> sweep(std::optional<std::int64_t> now_ms) {
        SweepOptions options = options_.sweep;
        options.stop = stop_.get_token();
        if (now_ms) {
            options.now_ms = now_ms;
        }
        // Before it begins, so that a jump while it runs is not accepted unseen; and after one as
        // of a time of its own, which the store then has seen.
        clock_.accept();
        Result<SweepReport> outcome = store_.sweep(options);
        if (options.now_ms) {
            clock_.accept();
        }
        return outcome;
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
    std::mutex sweep_mutex_;  // held while a sweep runs; guards clock_
    ClockWatch clock_;
    std::stop_source stop_;
    std::mutex wait_mutex_;
    std::condition_variable_any wake_;
    std::once_flag joined_;
    std::thread thread_;  // the last: it uses the others
};

}  // namespace

Result<std::unique_ptr<Sweeper>> Sweeper::start(StreamStore& store, SweeperOptions options) {
    if (Result<void> checked = check_options(options); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    try {
        return std::make_unique<SweeperThread>(store, std::move(options));
    } catch (const std::system_error& error) {
        return failure(Code::io, fmt::format("cannot start the sweeper's thread: {}", error.what()),
                       error.code().value());
    }
}

}  // namespace dedup
