// bench_steady DIRECTORY LIVE: a store in a steady state of claims and expiry, at the speed of a
// clock of its own.
//
// LIVE keys at a time: each is claimed and completed with a receipt, and expires a time to live
// after that. A tenth of these later a sweep runs. After each sweep a line of JSON tells the
// store's size, what its live records take, and the memory that is its own.

#include <fmt/format.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <vector>

#include "common/bench_keys.hpp"
#include "common/failure.hpp"
#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"
#include "dedup/record.hpp"

namespace bench {
namespace {

using dedupctl::BenchKeys;
using dedupctl::Failure;
using dedupctl::take;
using std::chrono::milliseconds;

constexpr milliseconds kTtl{3'600'000};
constexpr std::uint64_t kSteps = 120;  // twelve times the time to live: two to fill it, ten beyond
constexpr std::uint64_t kStepsPerTtl = 10;
constexpr std::uint64_t kGroup = 1024;
constexpr std::size_t kReceiptBytes = 64;

std::uint64_t disk_bytes(const std::string& directory) {
    std::uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        struct stat status {};
        if (entry.is_regular_file() && stat(entry.path().c_str(), &status) == 0) {
            bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
        }
    }
    return bytes;
}

// What cannot be given back under pressure.
std::uint64_t own_memory_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        std::uint64_t kib = 0;
        if (word == "RssAnon:" && status >> kib) {
            return kib * 1024;
        }
    }
    return 0;
}

// Claims and completes `count` keys from `first` on.
void cycle(dedup::Cache& cache, const BenchKeys& keys, std::uint64_t first, std::uint64_t count) {
    const std::string receipt(kReceiptBytes, 'r');
    std::vector<dedup::ClaimRequest> requests(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        requests[i].key = keys.at(first + i);
        requests[i].options.ttl = kTtl;
    }
    std::vector<dedup::Completion> completions;
    for (auto& outcome : cache.claim_many(requests)) {
        dedup::ClaimOutcome claimed = take(std::move(outcome));
        completions.push_back(
            {.claim = std::get<dedup::Claimed>(claimed).claim, .receipt = receipt, .options = {}});
        completions.back().options.ttl = kTtl;
    }
    for (const auto& done : cache.complete_many(completions)) {
        take(done);
    }
}

// All live records are alike.
std::uint64_t record_bytes(dedup::StreamStore& store) {
    dedup::ScanOptions options;
    options.heads_max = 1;
    const auto page = take(store.scan(options));
    std::string encoded;
    dedup::encode(page.heads.at(0).record, encoded);
    return encoded.size();
}

void run(const std::string& directory, std::uint64_t live) {
    std::int64_t now_ms = 1'700'000'000'000;
    dedup::OpenOptions options;
    options.clock = [&now_ms] { return now_ms; };
    options.trust_clock = true;
    const auto store = take(dedup::open(directory + "/store", options));
    dedup::Cache cache(*store);
    const BenchKeys keys(1);
    const std::uint64_t step = live / kStepsPerTtl;
    for (std::uint64_t next = 0; next < kSteps * step;) {
        const std::uint64_t count = std::min(kGroup, step - next % step);
        cycle(cache, keys, next, count);
        next += count;
        if (next % step != 0) {
            continue;
        }
        now_ms += kTtl.count() / static_cast<std::int64_t>(kStepsPerTtl);
        const dedup::SweepReport report = take(store->sweep({}));
        const dedup::StoreStats stats = take(store->stats());
        const std::uint64_t live_bytes = stats.streams() * record_bytes(*store);
        fmt::print(
            "{{\"ttls\": {:.1f}, \"streams\": {}, \"disk_bytes\": {}, \"catalog_bytes\": {}, "
            "\"live_bytes\": {}, \"own_memory_bytes\": {}, \"moved\": {}}}\n",
            static_cast<double>(next / step) / kStepsPerTtl, stats.streams(),
            disk_bytes(directory + "/store"), disk_bytes(directory + "/store/catalog"), live_bytes,
            own_memory_bytes(), report.records_moved);
    }
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: bench_steady DIRECTORY LIVE\n";
        return 2;
    }
    try {
        bench::run(argv[1], std::stoull(argv[2]));
        return 0;
    } catch (const bench::Failure& failed) {
        std::cerr << "bench_steady: " << failed.message << '\n';
        return 1;
    }
}
