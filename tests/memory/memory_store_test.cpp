// The store in memory, when there is none: what an append says is what it has done.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "dedup/memory_store.hpp"
#include "memory/allocations.hpp"

namespace dedup::test {
namespace {

Append append_to(const std::string& key, std::uint64_t expected = 0) {
    Append item;
    item.expected_sequence = expected;
    item.record.ns = "test";
    item.record.key = key + std::string(40, '.');  // too long for a string to hold it in itself
    item.record.receipt = "receipt";
    return item;
}

// How many of the items are the heads of their streams; scan and head must agree.
std::size_t there(StreamStore& store, const std::vector<Append>& items) {
    std::size_t found = 0;
    const auto page = store.scan({});
    REQUIRE(page.has_value());
    for (const Append& item : items) {
        const auto head = store.head({item.record.ns, item.record.key});
        REQUIRE(head.has_value());
        const bool scanned = std::ranges::count(page->heads, item.record.key,
                                                [](const Version& v) { return v.record.key; }) == 1;
        CHECK(scanned == head->has_value());
        found += *head && (*head)->sequence > item.expected_sequence;
    }
    return found;
}

TEST_CASE("memory that runs out in a store in memory leaves what its answer says") {
    for (const Batch mode : {Batch::each, Batch::atomic}) {
        bool failed = true;
        for (std::uint64_t n = 1; failed; ++n) {
            const auto store = make_memory_store();
            const std::vector<Append> first = {append_to("old")};
            const std::uint64_t old = store->append(first).front().value();
            const std::vector<Append> batch = {append_to("new"), append_to("old", old),
                                               append_to("newer")};
            std::vector<Result<std::uint64_t>> results;
            {
                const FailingAllocations failing(Whose::mine, n, n);
                try {
                    results = store->append(batch, mode);
                } catch (const std::bad_alloc&) {
                }
                failed = FailingAllocations::failed() != 0;
            }
            CAPTURE(n);
            if (std::ranges::any_of(results, [](const auto& result) {
                    return !result && result.error().code == Code::outcome_unknown;
                })) {
                CHECK(mode == Batch::atomic);
                CHECK(store->stats().error().code == Code::closed);
                continue;
            }
            const auto done = std::ranges::count_if(
                results, [](const auto& result) { return result.has_value(); });
            CHECK(there(*store, batch) == static_cast<std::size_t>(done));
            CHECK((mode == Batch::each || done == 0 || done == 3));
        }
    }
}

}  // namespace
}  // namespace dedup::test
