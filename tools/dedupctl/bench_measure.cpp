#include "bench_measure.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "failure.hpp"
#include "file_descriptor.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::size_t kLoadGroup = 16'384;
constexpr std::size_t kDiskWriteBytes = 128;  // about what one claim adds to the log
constexpr off_t kDiskFileBytes = 64 * 1024 * 1024;

// SplitMix64, by Sebastiano Vigna (public domain): a bijection that looks random.
std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111eb;
    return x ^ (x >> 31U);
}

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

void BenchKeys::write(std::uint64_t index, char* out) const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    const std::uint64_t high = mix(seed_ + 2 * index);
    const std::uint64_t low = mix(seed_ + 2 * index + 1);
    unsigned nibble = 0;
    for (std::size_t i = 0; i < kKeyBytes; ++i) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            out[i] = '-';
            continue;
        }
        const std::uint64_t half = nibble < 16 ? high : low;
        out[i] = kDigits[half >> (60U - 4U * (nibble % 16U)) & 15U];
        ++nibble;
    }
}

std::string BenchKeys::at(std::uint64_t index) const {
    std::string key(kKeyBytes, '\0');
    write(index, key.data());
    return key;
}

Bench::Bench(std::string directory, dedup::Cache& cache, CheckStop check_stop)
    : directory_(std::move(directory)),
      cache_(cache),
      check_stop_(std::move(check_stop)),
      keys_(random_seed()) {}

void Bench::load(std::uint64_t keys) {
    std::vector<std::string> batch;
    std::vector<dedup::RememberRequest> requests;
    while (loaded_ < keys) {
        check_stop_();
        const std::size_t count = std::min<std::uint64_t>(kLoadGroup, keys - loaded_);
        batch.clear();
        for (std::size_t i = 0; i < count; ++i) {
            batch.push_back(keys_.at(loaded_ + i));
        }
        requests.resize(count);
        for (std::size_t i = 0; i < count; ++i) {
            requests[i].key = batch[i];
        }
        for (auto& result : cache_.remember_many(requests)) {
            static_cast<void>(take(std::move(result)));
        }
        loaded_ += count;
    }
    next_ = loaded_;
}

double Bench::disk_flushes(std::chrono::milliseconds time) {
    const std::string path = fmt::format("{}/flushes-{}", directory_, disk_files_++);
    const FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.get() < 0) {
        throw system_failure("cannot create " + path, errno);
    }
    if (::fallocate(file.get(), 0, 0, kDiskFileBytes) != 0 || ::fsync(file.get()) != 0) {
        throw system_failure("cannot allocate " + path, errno);
    }
    const std::string bytes(kDiskWriteBytes, 'x');
    std::uint64_t done = 0;
    const SteadyTime started = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - started < time) {
        const off_t offset = static_cast<off_t>(done * kDiskWriteBytes) % kDiskFileBytes;
        if (::pwrite(file.get(), bytes.data(), bytes.size(), offset) !=
                static_cast<ssize_t>(bytes.size()) ||
            ::fdatasync(file.get()) != 0) {
            throw system_failure("cannot write " + path, errno);
        }
        ++done;
        check_stop_();
    }
    const double per_second = rate(done, started);
    ::unlink(path.c_str());
    return per_second;
}

double Bench::claims(std::size_t group, std::chrono::milliseconds time) {
    std::vector<std::string> batch(group, std::string(BenchKeys::kKeyBytes, '\0'));
    std::vector<dedup::ClaimRequest> requests(group);
    for (std::size_t i = 0; i < group; ++i) {
        requests[i].key = batch[i];
    }
    std::uint64_t done = 0;
    const SteadyTime started = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - started < time) {
        for (std::string& key : batch) {
            keys_.write(next_++, key.data());
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
