// How many events a second a Guard takes, one by one and in batches, beside what the disk can do.
//
//     guard_rate DIRECTORY [SECONDS]
//
// Makes a scratch store below DIRECTORY and removes it. Three rounds, each row right behind a look
// at the disk: a write of 128 bytes and an fdatasync, one after the other, into reserved blocks.
// Prints medians. The function does nothing, so this is what the guard itself costs.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "dedup/guard.hpp"
#include "dedup/log_store.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "guard_rate: %s\n", what.c_str());
    std::exit(1);
}

template <class T>
T take(dedup::Result<T> result) {
    if (!result) {
        fail(result.error().message);
    }
    return *std::move(result);
}

// How often `step`, which says how much it did, does one thing in a second.
double rate(Seconds time, const std::function<std::size_t()>& step) {
    const auto start = Clock::now();
    std::size_t done = 0;
    Seconds taken{0};
    do {
        done += step();
        taken = Clock::now() - start;
    } while (taken < time);
    return static_cast<double>(done) / taken.count();
}

double disk_rate(const std::filesystem::path& directory, Seconds time) {
    constexpr off_t kReserved = off_t{8} << 20;
    static constexpr std::array<char, 128> kBytes = {};
    const std::string path = directory / "disk";
    const int file = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0 || ::posix_fallocate(file, 0, kReserved) != 0 || ::fdatasync(file) != 0) {
        fail("cannot make " + path);
    }
    off_t at = 0;
    const double flushes = rate(time, [&] {
        if (::pwrite(file, kBytes.data(), kBytes.size(), at) < 0 || ::fdatasync(file) != 0) {
            fail("cannot write " + path);
        }
        at = (at + static_cast<off_t>(kBytes.size())) % kReserved;
        return std::size_t{1};
    });
    ::close(file);
    return flushes;
}

class Events {
  public:
    explicit Events(dedup::Guard& guard) : guard_(guard) {}

    // Processes `count` new ones in one batch.
    std::size_t process(std::size_t count) {
        names_.clear();
        for (std::size_t i = 0; i < count; ++i) {
            names_.push_back("orders-0-" + std::to_string(next_++));
        }
        const std::vector<std::string_view> ids(names_.begin(), names_.end());
        for (const auto& outcome : guard_.process_batch(ids, work_)) {
            check(outcome);
        }
        return count;
    }

    // Processes new ones from so many threads, each one by one; gives how many in `time`.
    double process_by_threads(std::size_t threads, Seconds time) {
        std::vector<std::thread> running;
        std::vector<double> rates(threads);
        for (std::size_t t = 0; t < threads; ++t) {
            running.emplace_back([&, t, first = next_] {
                std::uint64_t n = 0;
                rates[t] = rate(time, [&] {
                    check(guard_.process_if_new(
                        std::to_string(t) + "-" + std::to_string(first + n++), work_));
                    return std::size_t{1};
                });
            });
        }
        double sum = 0;
        for (std::size_t t = 0; t < threads; ++t) {
            running[t].join();
            sum += rates[t];
        }
        next_ += 1'000'000'000;
        return sum;
    }

  private:
    static void check(const dedup::Result<dedup::ProcessOutcome>& outcome) {
        if (!outcome || !std::holds_alternative<dedup::Success>(*outcome)) {
            fail(outcome ? "a new event was not processed" : outcome.error().message);
        }
    }

    dedup::Guard& guard_;
    const dedup::Work work_ = [](const dedup::Attempt&) { return std::string("done"); };
    std::uint64_t next_ = 0;
    std::vector<std::string> names_;
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

struct Row {
    const char* name;
    double flushes_per_event;
    std::function<double(Seconds)> measure;
    std::vector<double> rates = {};
    std::vector<double> disk = {};
    std::vector<double> ratios = {};  // of the store's flushes to the disk's
};

void measure(const std::filesystem::path& directory, Seconds time) {
    const auto store = take(dedup::open(directory / "store"));
    const auto guard = take(dedup::Guard::start(*store));
    Events events(*guard);
    std::vector<Row> rows = {
        {"one by one", 2, [&](Seconds t) { return rate(t, [&] { return events.process(1); }); }},
        {"64 threads, one by one", 0, [&](Seconds t) { return events.process_by_threads(64, t); }},
        {"batches of 500", 2.0 / 500,
         [&](Seconds t) { return rate(t, [&] { return events.process(500); }); }},
    };
    for (int round = 0; round < 3; ++round) {
        for (Row& row : rows) {
            row.disk.push_back(disk_rate(directory, time / 3));
            row.rates.push_back(row.measure(time));
            row.ratios.push_back(row.rates.back() * row.flushes_per_event / row.disk.back());
        }
    }
    std::printf("%-24s %12s %16s %22s\n", "", "EVENTS/s", "DISK FLUSHES/s",
                "FLUSHES OF THE DISK'S");
    for (const Row& row : rows) {
        std::printf("%-24s %12.0f %16.0f ", row.name, median(row.rates), median(row.disk));
        if (row.flushes_per_event > 0) {
            std::printf("%20.0f %%\n", 100 * median(row.ratios));
        } else {
            std::printf("%22s\n", "shared");
        }
    }
    if (const auto closed = store->close(); !closed) {
        fail(closed.error().message);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2 || argc > 3) {
        std::fprintf(stderr, "usage: guard_rate DIRECTORY [SECONDS]\n");
        return 2;
    }
    std::string scratch = (std::filesystem::path(argv[1]) / "guard-rate-XXXXXX").string();
    if (::mkdtemp(scratch.data()) == nullptr) {
        fail("cannot make a directory in " + std::string(argv[1]));
    }
    measure(scratch, Seconds(argc == 3 ? std::strtod(argv[2], nullptr) : 3));
    std::filesystem::remove_all(scratch);
    return 0;
}
