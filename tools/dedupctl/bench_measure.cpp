#include "bench_measure.hpp"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <fstream>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "common/disk_limit.hpp"
#include "common/failure.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::size_t kLoadGroup = 16'384;
constexpr std::size_t kDiskWriteBytes = 128;  // about what one claim adds to the log

std::uint64_t random_seed() {
    std::random_device device;
    return std::uint64_t{device()} << 32U | device();
}

double rate(std::uint64_t done, SteadyTime started) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
    return static_cast<double>(done) / took.count();
}

// Calls `work` in `threads` threads until the time is over; `work` gives how much it has done in a
// call, and may throw a Failure, the first of which is thrown on.
double in_threads(unsigned threads, std::chrono::milliseconds time, const CheckStop& check_stop,
                  const std::function<std::uint64_t(unsigned)>& work) {
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> done{0};
    std::mutex mutex;
    std::optional<Failure> failure;
    const SteadyTime started = std::chrono::steady_clock::now();
    {
        std::vector<std::jthread> running;
        for (unsigned thread = 0; thread < threads; ++thread) {
            running.emplace_back([&, thread] {
                std::uint64_t own = 0;
                try {
                    while (!stop.load(std::memory_order_relaxed)) {
                        own += work(thread);
                    }
                } catch (const Failure& thrown) {
                    const std::lock_guard lock(mutex);
                    failure = failure ? failure : std::optional(thrown);
                    stop = true;
                }
                done += own;
            });
        }
        while (!stop && std::chrono::steady_clock::now() - started < time) {
            std::this_thread::sleep_for(std::chrono::milliseconds{20});
            try {
                check_stop();
            } catch (const Failure& thrown) {
                const std::lock_guard lock(mutex);
                failure = thrown;
                stop = true;
            }
        }
        stop = true;
    }
    if (failure) {
        throw *failure;
    }
    return rate(done, started);
}

void expect_claimed(const dedup::Result<dedup::ClaimOutcome>& result) {
    if (!result) {
        throw library_failure(result.error());
    }
    if (!std::holds_alternative<dedup::Claimed>(*result)) {
        throw Failure{.code = "internal", .message = "bench: a new key was not claimed"};
    }
}

}  // namespace

Bench::Bench(std::string directory, dedup::Cache& cache, CheckStop check_stop)
    : directory_(std::move(directory)),
      cache_(cache),
      check_stop_(std::move(check_stop)),
      keys_(random_seed()) {}

void Bench::load(std::uint64_t keys) {
    std::vector<dedup::RememberRequest> requests;
    while (loaded_ < keys) {
        check_stop_();
        const std::size_t count = std::min<std::uint64_t>(kLoadGroup, keys - loaded_);
        requests.resize(count);
        for (std::size_t i = 0; i < count; ++i) {
            requests[i].key = keys_.at(loaded_ + i);
        }
        for (auto& result : cache_.remember_many(requests)) {
            static_cast<void>(take(std::move(result)));
        }
        loaded_ += count;
    }
    next_ = loaded_;
}

double Bench::disk_flushes(std::chrono::milliseconds time) {
    DiskLimit disk(fmt::format("{}/flushes-{}", directory_, disk_files_++));
    std::uint64_t done = 0;
    const SteadyTime started = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - started < time) {
        disk.append(kDiskWriteBytes);
        ++done;
        check_stop_();
    }
    return rate(done, started);
}

double Bench::claims(std::size_t group, std::chrono::milliseconds time) {
    std::vector<dedup::ClaimRequest> requests(
        group, {.key = std::string(BenchKeys::kKeyBytes, '\0'), .options = {}});
    std::uint64_t done = 0;
    const SteadyTime started = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - started < time) {
        for (dedup::ClaimRequest& request : requests) {
            keys_.write(next_++, request.key.data());
        }
        for (const auto& result : cache_.claim_many(requests)) {
            expect_claimed(result);
        }
        done += group;
        check_stop_();
    }
    return rate(done, started);
}

double Bench::claims_by_threads(unsigned threads, std::chrono::milliseconds time) {
    std::atomic<std::uint64_t> next{next_};
    const double per_second = in_threads(threads, time, check_stop_, [&](unsigned) {
        expect_claimed(cache_.claim(keys_.at(next.fetch_add(1))));
        return std::uint64_t{1};
    });
    next_ = next;
    return per_second;
}

double Bench::lookups(unsigned threads, std::chrono::milliseconds time) {
    constexpr std::uint64_t kLookupsPerCall = 256;
    const std::uint64_t seed = random_seed();
    // A line of memory each, or the threads would slow each other down.
    struct alignas(128) Position {
        std::uint64_t value = 0;
    };
    std::vector<Position> positions(threads);
    return in_threads(threads, time, check_stop_, [&](unsigned thread) {
        std::array<char, BenchKeys::kKeyBytes> key{};
        for (std::uint64_t i = 0; i < kLookupsPerCall; ++i) {
            const std::uint64_t random =
                mix(seed ^ (std::uint64_t{thread} << 56U) ^ positions[thread].value++);
            keys_.write(random % loaded_, key.data());
            const auto found = take(cache_.lookup({key.data(), key.size()}));
            if (!std::holds_alternative<dedup::Completed>(found)) {
                throw Failure{.code = "internal", .message = "bench: a loaded key was not found"};
            }
        }
        return kLookupsPerCall;
    });
}

std::uint64_t anonymous_memory_bytes() {
    ::malloc_trim(0);  // what is free already belongs to nobody
    std::ifstream status("/proc/self/status");
    std::string word;
    while (status >> word) {
        if (word == "RssAnon:") {
            std::uint64_t kib = 0;
            status >> kib;
            return kib * 1024;
        }
        status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    return 0;
}

}  // namespace dedupctl
