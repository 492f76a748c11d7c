// bench_guard DIRECTORY MS: how many new events a Guard processes, one by one and in batches, for
// MS milliseconds each, beside what the disk can do at the same time.
//
// The function that is called for an event does nothing: this is what the guard itself costs. An
// event takes two flushes, one before its function and one after, and so does a batch. Prints a
// line of JSON for each kind of work.

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <iostream>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/disk_limit.hpp"
#include "common/failure.hpp"
#include "dedup/guard.hpp"
#include "dedup/log_store.hpp"

namespace bench {
namespace {

using dedupctl::Failure;
using dedupctl::take;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr std::size_t kBatch = 500;
constexpr std::size_t kThreads = 64;
constexpr std::size_t kDiskWriteBytes = 128;
// The disk and the guard take turns, since a disk's speed drifts.
constexpr int kSlices = 6;

// How often `step`, which says how much it did, does one thing in a second.
double rate(milliseconds time, const std::function<std::size_t()>& step) {
    const auto start = Clock::now();
    std::size_t done = 0;
    while (Clock::now() - start < time) {
        done += step();
    }
    return static_cast<double>(done) / Seconds(Clock::now() - start).count();
}

class Events {
  public:
    explicit Events(dedup::Guard& guard) : guard_(guard) {}

    std::size_t process_one() {
        check(guard_.process_if_new(fmt::format("orders-0-{}", next_++), work_));
        return 1;
    }

    std::size_t process_batch() {
        std::vector<std::string> names;
        for (std::size_t i = 0; i < kBatch; ++i) {
            names.push_back(fmt::format("orders-0-{}", next_++));
        }
        const std::vector<std::string_view> ids(names.begin(), names.end());
        for (const auto& outcome : guard_.process_batch(ids, work_)) {
            check(outcome);
        }
        return kBatch;
    }

    // From many threads, each one by one; gives how many in a second.
    double process_by_threads(milliseconds time) {
        std::mutex mutex;
        double sum = 0;
        std::optional<Failure> failed;
        {
            std::vector<std::jthread> running;
            for (std::size_t thread = 0; thread < kThreads; ++thread) {
                running.emplace_back([&] {
                    try {
                        const double own = rate(time, [&] { return process_one(); });
                        const std::lock_guard lock(mutex);
                        sum += own;
                    } catch (const Failure& thrown) {
                        const std::lock_guard lock(mutex);
                        failed = thrown;
                    }
                });
            }
        }
        if (failed) {
            throw Failure{*failed};
        }
        return sum;
    }

  private:
    static void check(const dedup::Result<dedup::ProcessOutcome>& outcome) {
        if (!std::holds_alternative<dedup::Success>(take(outcome))) {
            throw Failure{.code = "bench", .message = "a new event was not processed"};
        }
    }

    dedup::Guard& guard_;
    const dedup::Work work_ = [](const dedup::Attempt&) { return std::string("done"); };
    std::atomic<std::uint64_t> next_ = 0;
};

// Of all threads of this process.
Seconds processor_time() {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

void run(const std::string& directory, milliseconds time) {
    const auto store = take(dedup::open(directory + "/store"));
    const auto guard = take(dedup::Guard::start(*store));
    Events events(*guard);
    dedupctl::DiskLimit disk(directory + "/disk");
    const milliseconds slice = time / kSlices;
    struct Work {
        const char* name;
        std::function<double()> measure;
    };
    const std::array works = {
        Work{"one by one", [&] { return rate(slice, [&] { return events.process_one(); }); }},
        Work{"64 threads, one by one", [&] { return events.process_by_threads(slice); }},
        Work{"batches of 500", [&] { return rate(slice, [&] { return events.process_batch(); }); }},
    };
    for (const Work& work : works) {
        double flushes = 0;
        double events_per_second = 0;
        double done = 0;
        Seconds processor{};
        for (int i = 0; i < kSlices; ++i) {
            flushes += rate(slice / 2, [&] {
                disk.append(kDiskWriteBytes);
                return std::size_t{1};
            });
            const Seconds processor_before = processor_time();
            const auto start = Clock::now();
            const double per_second = work.measure();
            done += per_second * Seconds(Clock::now() - start).count();
            processor += processor_time() - processor_before;
            events_per_second += per_second;
        }
        fmt::print(
            "{{\"work\": \"{}\", \"per_second\": {:.1f}, \"cpu_seconds_per_million\": {:.3f}, "
            "\"disk_per_second\": {:.1f}}}\n",
            work.name, events_per_second / kSlices, processor.count() / done * 1e6,
            flushes / kSlices);
    }
    take(store->close());
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: bench_guard DIRECTORY MS\n";
        return 2;
    }
    try {
        bench::run(argv[1], bench::milliseconds(std::stoll(argv[2])));
        return 0;
    } catch (const bench::Failure& failed) {
        std::cerr << "bench_guard: " << failed.message << '\n';
        return 1;
    }
}
