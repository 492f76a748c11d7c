// The sweeper in the background. No test measures time: the observer says what has happened, and a
// test that waits in vain is ended from outside.
#include "dedup/sweeper.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dedup/memory_store.hpp"
#include "support/hooked_store.hpp"
#include "support/manual_clock.hpp"

namespace dedup::test {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

constexpr std::int64_t kHourMs = 3'600'000;

// An observer that can be waited for. Copies share what they see.
class Outcomes {
  public:
    void operator()(const Result<SweepReport>& outcome) const {
        const std::lock_guard lock(seen_->mutex);
        seen_->outcomes.push_back(outcome);
        if (seen_->between) {
            std::exchange(seen_->between, nullptr)();
            seen_->outcomes.clear();
        }
        seen_->change.notify_all();
    }

    // Runs `action` between two sweeps of a sweeper that goes on by itself, so that it never sees
    // half of a change. What was told before is forgotten.
    void between(std::function<void()> action) const {
        std::unique_lock lock(seen_->mutex);
        seen_->between = std::move(action);
        seen_->change.wait(lock, [this] { return !seen_->between; });
    }

    // The next one that has not been taken yet.
    [[nodiscard]] Result<SweepReport> next() const {
        std::unique_lock lock(seen_->mutex);
        seen_->change.wait(lock, [this] { return !seen_->outcomes.empty(); });
        Result<SweepReport> outcome = std::move(seen_->outcomes.front());
        seen_->outcomes.pop_front();
        return outcome;
    }

    // The next that `wanted` likes.
    template <class Wanted>
    [[nodiscard]] Result<SweepReport> next(const Wanted& wanted) const {
        while (true) {
            if (Result<SweepReport> outcome = next(); wanted(outcome)) {
                return outcome;
            }
        }
    }

    [[nodiscard]] std::size_t untaken() const {
        const std::lock_guard lock(seen_->mutex);
        return seen_->outcomes.size();
    }

  private:
    struct Seen {
        std::mutex mutex;
        std::condition_variable change;
        std::deque<Result<SweepReport>> outcomes;
        std::function<void()> between;
    };
    std::shared_ptr<Seen> seen_ = std::make_shared<Seen>();
};

// A store, its clock and what a sweeper over it tells.
struct Bench {
    ManualClock clock;
    std::unique_ptr<StreamStore> memory = make_memory_store(clock.clock());
    HookedStore store{*memory};
    Outcomes outcomes;

    std::unique_ptr<Sweeper> start(milliseconds interval, const SweepOptions& sweep = {}) {
        SweeperOptions options;
        options.interval = interval;
        options.sweep = sweep;
        options.observer = outcomes;
        auto sweeper = Sweeper::start(store, options);
        REQUIRE_MESSAGE(sweeper.has_value(), sweeper.error().message);
        return *std::move(sweeper);
    }

    void claim(const std::string& key, std::int64_t ttl_ms = 60'000) {
        Record record;
        record.ns = "test";
        record.key = key;
        record.timestamp_ms = store.now_ms();
        record.expires_at_ms = record.timestamp_ms + ttl_ms;
        const Append item{0, record};
        REQUIRE(memory->append({&item, 1}).front().has_value());
    }

    [[nodiscard]] std::uint64_t streams() const { return memory->stats()->streams(); }
};

bool removed_any(const Result<SweepReport>& outcome) {
    return outcome && outcome->removed.total() != 0;
}
bool failed(const Result<SweepReport>& outcome) {
    return !outcome;
}
bool succeeded(const Result<SweepReport>& outcome) {
    return outcome.has_value();
}

TEST_CASE("sweeper: sweeps again and again, and tells of every sweep") {
    // Guards against a sweeper that goes to sleep for good.
    Bench bench;
    const auto sweeper = bench.start(milliseconds(1));
    for (int round = 0; round < 3; ++round) {
        bench.claim("k-" + std::to_string(round));
        bench.outcomes.between([&] { bench.clock.advance(61'001); });
        const auto report = bench.outcomes.next(removed_any);
        CHECK(report->removed == StateCounts{.in_flight = 1});
        CHECK(bench.streams() == 0);
    }
}

TEST_CASE("sweeper: sweep_once sweeps on the calling thread, and tells of it too") {
    // Guards against a sweep by hand that waits for the interval, or that nobody hears of.
    Bench bench;
    const auto sweeper = bench.start(hours(1'000'000'000));
    bench.claim("early");
    bench.claim("late", 100'000);
    const auto caller = std::this_thread::get_id();
    bench.store.before_sweep = [&](const SweepOptions&) -> Result<void> {
        CHECK(std::this_thread::get_id() == caller);
        return {};
    };
    auto report = sweeper->sweep_once();
    REQUIRE(report.has_value());
    CHECK(report->removed.total() == 0);
    report = sweeper->sweep_once(62'001);
    REQUIRE(report.has_value());
    CHECK(report->now_ms == 62'001);
    CHECK(report->removed.total() == 1);
    CHECK(bench.outcomes.next()->removed.total() == 0);
    CHECK(bench.outcomes.next()->removed.total() == 1);
    CHECK(bench.outcomes.untaken() == 0);
}

TEST_CASE("sweeper: a failed sweep is reported and tried again") {
    // Guards against one error that ends all sweeping, and against one that nobody sees.
    Bench bench;
    std::atomic<bool> broken = true;
    bench.store.before_sweep = [&](const SweepOptions&) -> Result<void> {
        if (broken) {
            return std::unexpected(Error{.code = Code::io, .message = "injected"});
        }
        return {};
    };
    bench.claim("k");
    bench.clock.advance(61'001);
    const auto sweeper = bench.start(milliseconds(1));
    for (int i = 0; i < 3; ++i) {
        CHECK(bench.outcomes.next().error().code == Code::io);
    }
    CHECK(sweeper->sweep_once().error().code == Code::io);
    broken = false;
    CHECK(bench.outcomes.next(succeeded)->removed.total() == 1);
}

TEST_CASE("sweeper: a store that is closed under it makes errors, not crashes") {
    // Guards against a sweep of what is no more.
    Bench bench;
    const auto sweeper = bench.start(milliseconds(1));
    REQUIRE(bench.memory->close().has_value());
    CHECK(bench.outcomes.next(failed).error().code == Code::closed);
}

TEST_CASE("sweeper: stop ends a sweep that is running") {
    // Guards against a program that cannot end because it sweeps.
    Bench bench;
    std::atomic<bool> running = false;
    bench.store.before_sweep = [&](const SweepOptions& options) -> Result<void> {
        running = true;
        running.notify_all();
        while (!options.stop.stop_requested()) {
            std::this_thread::yield();
        }
        return {};
    };
    const auto sweeper = bench.start(milliseconds(1));
    running.wait(false);
    sweeper->stop();
    CHECK(bench.outcomes.next().has_value());  // it told of that one, too
    CHECK(bench.outcomes.untaken() == 0);
}

TEST_CASE("sweeper: stop ends the wait, from any thread and any number of times") {
    // Guards against a stop that waits for the interval, and a thread that is joined twice.
    Bench bench;
    const auto sweeper = bench.start(hours(1));
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] { sweeper->stop(); });
    }
    threads.clear();
    sweeper->stop();
    CHECK(sweeper->sweep_once().error().code == Code::closed);
    CHECK(bench.outcomes.next().error().code == Code::closed);
    CHECK(bench.outcomes.untaken() == 0);
}

TEST_CASE("sweeper: called back by it, nobody waits for it") {
    // Guards against a thread that joins itself, or waits for the sweep that has called it.
    for (const bool by_hand : {false, true}) {
        Bench bench;
        std::atomic<Sweeper*> sweeper = nullptr;
        std::atomic<int> refused = 0;
        SweepOptions options;
        options.progress = [&](std::uint64_t, std::uint64_t) {
            sweeper.wait(nullptr);
            const auto again = sweeper.load()->sweep_once();
            refused += !again && again.error().code == Code::busy;
            sweeper.load()->stop();
        };
        const auto started =
            bench.start(by_hand ? milliseconds(hours(1)) : milliseconds(1), options);
        sweeper = started.get();
        sweeper.notify_all();
        if (by_hand) {
            CHECK(started->sweep_once().has_value());
        }
        CHECK(bench.outcomes.next(succeeded).has_value());
        started->stop();
        CHECK(refused == 1);
    }
}

TEST_CASE("sweeper: sweeps by hand beside those of the thread") {
    // Guards against a race between them; ThreadSanitizer looks on.
    Bench bench;
    for (int i = 0; i < 100; ++i) {
        bench.claim("k-" + std::to_string(i), 1'000 * i + 1);
    }
    const auto sweeper = bench.start(milliseconds(1));
    std::vector<std::jthread> threads;
    std::atomic<int> failures = 0;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 50; ++i) {
                bench.clock.advance(1'000);
                failures += !sweeper->sweep_once();
            }
        });
    }
    threads.clear();
    CHECK(failures == 0);
    CHECK(bench.streams() == 0);
}

TEST_CASE("sweeper: sweeps as its options say") {
    // Guards against options that get lost on the way to the thread.
    Bench bench;
    bench.claim("a");
    bench.claim("b");
    bench.clock.advance(61'001);
    SweepOptions options;
    options.dry_run = true;
    options.unanswered_max = 1;
    const auto sweeper = bench.start(milliseconds(1), options);
    const auto report = bench.outcomes.next();
    REQUIRE(report.has_value());
    CHECK(report->dry_run);
    CHECK(report->unanswered.size() == 1);
    CHECK(bench.streams() == 2);
}

TEST_CASE("sweeper: options that make no sense are refused") {
    // Guards against a thread that never sweeps, or never does anything else.
    const auto store = make_memory_store();
    const auto refused = [&](const auto& change) {
        SweeperOptions options;
        change(options);
        const auto sweeper = Sweeper::start(*store, options);
        REQUIRE(!sweeper.has_value());
        CHECK(sweeper.error().code == Code::invalid_argument);
        CHECK(!sweeper.error().message.empty());
    };
    refused([](SweeperOptions& options) { options.interval = milliseconds(0); });
    refused([](SweeperOptions& options) { options.interval = milliseconds(-1); });
    refused([](SweeperOptions& options) { options.jitter = -0.1; });
    refused([](SweeperOptions& options) { options.jitter = 1.1; });
    refused([](SweeperOptions& options) { options.jitter = std::nan(""); });

    for (const double jitter : {0.0, 1.0}) {
        SweeperOptions options;
        options.jitter = jitter;
        options.interval = milliseconds::max();
        CHECK(Sweeper::start(*store, options).has_value());
    }
}

// What a sweep told that removes nothing, as the clock has jumped.
bool withheld(const Result<SweepReport>& outcome) {
    return outcome && outcome->withheld.has_value();
}

TEST_CASE("sweeper: after a jump of the clock it removes nothing, until somebody trusts the time") {
    // Guards against a mistyped date that wipes the store.
    Bench bench;
    bench.claim("k", 30 * kHourMs);
    const auto sweeper = bench.start(milliseconds(1));
    REQUIRE(bench.outcomes.next().has_value());
    bench.outcomes.between([&] { bench.clock.advance(10 * 365 * 24 * kHourMs); });
    for (int i = 0; i < 3; ++i) {
        CHECK(withheld(bench.outcomes.next()));
    }
    CHECK(withheld(sweeper->sweep_once()));
    CHECK(bench.streams() == 1);

    SweepOptions trusting;
    trusting.trust_clock = true;
    const auto trusted = bench.store.sweep(trusting);
    REQUIRE(trusted.has_value());
    CHECK(trusted->removed.total() == 1);
    const auto swept = [](const Result<SweepReport>& outcome) { return !withheld(outcome); };
    CHECK(bench.outcomes.next(swept).has_value());  // on from here
}

TEST_CASE("sweeper: a clock that jumps while it waits for another sweep is seen by the next one") {
    // Guards against a check of the time that is another one than the sweep's.
    Bench bench;
    bench.claim("k", 30 * kHourMs);
    bool jumped = false;
    SweepOptions options;
    options.progress = [&](std::uint64_t, std::uint64_t) {
        if (!std::exchange(jumped, true)) {
            bench.clock.advance(10 * 365 * 24 * kHourMs);
        }
    };
    const auto sweeper = bench.start(milliseconds(1), options);
    REQUIRE(bench.outcomes.next().has_value());
    CHECK(withheld(bench.outcomes.next()));
    CHECK(bench.streams() == 1);
}

TEST_CASE("sweeper: neither a small jump nor a clock set back withholds anything") {
    // Guards against a sweeper that cries wolf.
    Bench bench;
    const auto sweeper = bench.start(milliseconds(1));
    const auto after = [&](std::int64_t by_ms) {
        bench.outcomes.between([&] { bench.clock.advance(by_ms); });
        return bench.outcomes.next();
    };
    for (int i = 0; i < 3; ++i) {
        CHECK(!withheld(after(24 * kHourMs)));
        CHECK(!withheld(after(-30 * kHourMs)));
        CHECK(!withheld(after(30 * kHourMs)));
    }
    CHECK(withheld(after(24 * kHourMs + 1)));
}

TEST_CASE("a sweeper outlives memory that runs out in the store or in its observer") {
    // Guards against an exception that ends the process.
    Bench bench;
    std::atomic<int> sweeps{0};
    bench.store.before_sweep = [&](const SweepOptions&) -> Result<void> {
        if (++sweeps == 1) {
            throw std::bad_alloc();
        }
        return {};
    };
    SweeperOptions options;
    options.interval = milliseconds{1};
    std::atomic<int> calls{0};
    options.observer = [&](const Result<SweepReport>& outcome) {
        if (++calls <= 2) {  // it, too, while it is told of the first, and of the one after that
            throw std::bad_alloc();
        }
        bench.outcomes(outcome);
    };
    const auto sweeper = Sweeper::start(bench.store, options);
    REQUIRE(sweeper.has_value());
    const auto told = bench.outcomes.next();
    REQUIRE(!told.has_value());  // that the observer could not take the second one
    CHECK(told.error().code == Code::failed);
    CHECK(bench.outcomes.next().has_value());
}

}  // namespace
}  // namespace dedup::test
