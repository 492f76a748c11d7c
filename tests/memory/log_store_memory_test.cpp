// Memory runs out in one place of a log store, at each allocation there in turn. What the store
// says of it is looked at more closely than in memory_test.cpp, and without a process for each.

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "engine/unsealed.hpp"
#include "memory/allocations.hpp"
#include "store/log_store.hpp"
#include "support/child_process.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr std::uint64_t kSegmentBytes = 64 * 1024;
// The next seal of a store with one sealed segment does not fit.
constexpr std::uint64_t kSmallMapBytes = 32 * 1024;
constexpr unsigned kStuckSeconds = 10;

Append new_key(const std::string& key, std::size_t receipt_bytes = 0) {
    Append item;
    item.record.ns = "test";
    item.record.key = key;
    item.record.receipt = std::string(receipt_bytes, 'r');
    return item;
}

std::vector<Append> new_keys(const std::string& prefix, std::size_t count,
                             std::size_t receipt_bytes = 0) {
    std::vector<Append> items;
    for (std::size_t i = 0; i < count; ++i) {
        items.push_back(new_key(prefix + std::to_string(i), receipt_bytes));
    }
    return items;
}

// Of each namespace the catalog has numbers.
std::vector<Append> with_namespaces(std::vector<Append> items) {
    for (Append& item : items) {
        item.record.ns = item.record.key + std::string(200, 'n');
    }
    return items;
}

struct OneStore {
    explicit OneStore(const LogStoreInternals& internals = {}, const Capacity& capacity = {}) {
        OpenOptions options;
        options.segment_bytes = kSegmentBytes;
        options.capacity = capacity;
        auto opened = LogStore::open(dir.path(), options, internals);
        REQUIRE_MESSAGE(opened.has_value(), opened.error().message);
        store = *std::move(opened);
    }

    void must_append(const std::vector<Append>& items, Batch mode = Batch::each) const {
        for (const auto& result : store->append(items, mode)) {
            REQUIRE_MESSAGE(result.has_value(), result.error().message);
        }
    }

    TempDir dir{fast_directory()};
    std::unique_ptr<StreamStore> store;
};

// Calls run(n), in which allocation number n fails, until one has so few.
void fail_each(const std::function<bool(std::uint64_t n)>& run) {
    std::uint64_t n = 1;
    while (run(n)) {
        ++n;
    }
    CHECK(n > 5);
}

TEST_CASE("memory that runs out before a write fails the append, not the store") {
    // Guards against an index that grows behind the write, when nothing may fail any more.
    fail_each([](std::uint64_t n) {
        const OneStore at;
        // As many as the index of a segment has room for.
        at.must_append(new_keys("k", kSegmentBytes / kFrameBytesTypical), Batch::atomic);
        const std::vector<Append> more = new_keys("more", 1);
        std::vector<Result<std::uint64_t>> results;
        bool failed = false;
        {
            const FailingAllocations failing(Whose::mine, n, n);
            try {
                results = at.store->append(more, Batch::each);
            } catch (const std::bad_alloc&) {
            }
            failed = FailingAllocations::failed() != 0;
        }
        CAPTURE(n);
        CHECK((results.empty() || results[0] || results[0].error().code == Code::out_of_space));
        at.must_append(new_keys("last", 1));
        return failed;
    });
}

TEST_CASE("memory that runs out while room is made takes no answer back") {
    // Guards against an exception that leaves a caller without the sequences that it was given.
    fail_each([](std::uint64_t n) {
        const OneStore at({}, {.keys_max = 3, .evict_oldest = true});
        at.must_append(new_keys("old", 2));
        const std::vector<Append> batch = new_keys("new", 3, 100);
        std::vector<Result<std::uint64_t>> results;
        bool failed = false;
        bool thrown = false;
        {
            const FailingAllocations failing(Whose::mine, n, n);
            try {
                results = at.store->append(batch, Batch::each);
            } catch (const std::bad_alloc&) {
                thrown = true;
            }
            failed = FailingAllocations::failed() != 0;
        }
        CAPTURE(n);
        for (std::size_t i = 0; i < batch.size(); ++i) {
            const auto head = at.store->head({"test", batch[i].record.key});
            REQUIRE(head.has_value());
            const bool acknowledged = !thrown && results[i].has_value();
            CHECK(head->has_value() == acknowledged);
        }
        return failed;
    });
}

TEST_CASE("memory that runs out while the catalog's map grows leaves nobody waiting") {
    // Guards against a lock that nobody gives up any more.
    LogStoreInternals internals;
    internals.catalog_map_bytes = kSmallMapBytes;
    const Shared<bool> failed;
    fail_each([&](std::uint64_t n) {
        const int code = exit_code(in_child([&]() noexcept {
            ::alarm(kStuckSeconds);
            const OneStore at(internals);
            const auto wait_for_sealer = [&] {
                for (auto stats = at.store->stats();
                     stats && stats->segments_unsealed > 1 && stats->background_error.empty();) {
                    stats = at.store->stats();
                }
            };
            at.must_append(with_namespaces(new_keys("first", 100, 1'000)));
            wait_for_sealer();
            const std::vector<Append> last = with_namespaces(new_keys("last", 60, 1'000));
            {
                const FailingAllocations failing(Whose::others, n, n);
                (void)at.store->append(last, Batch::each);
                wait_for_sealer();
                *failed = FailingAllocations::failed() != 0;
            }
            (void)at.store->head({"test", "0.1"});
            (void)at.store->close();
            const auto file = at.dir.path() / "catalog" / "data.mdb";
            return *failed || std::filesystem::file_size(file) > kSmallMapBytes ? 0 : 1;
        }));
        CAPTURE(n);
        CHECK(code == 0);
        return *failed && code == 0;
    });
}

}  // namespace
}  // namespace dedup::test
