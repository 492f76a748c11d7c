// What the parts of the contract suite share: records, and calls that must succeed.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/stores.hpp"

namespace dedup::test {

using namespace std::string_literals;
using namespace std::string_view_literals;

inline constexpr std::string_view kNs = "contract";

inline Record in_flight(std::string_view key, std::string_view ns = kNs) {
    Record record;
    record.ns = ns;
    record.key = key;
    record.timestamp_ms = 1'000;
    record.expires_at_ms = 61'000;
    record.ttl_ms = 60'000;
    return record;
}

inline Record completed(std::string_view key, std::string_view receipt, std::string_view ns = kNs) {
    Record record = in_flight(key, ns);
    record.ttl_ms = 0;
    record.receipt = receipt;
    return record;
}

inline Result<std::uint64_t> append_one(StreamStore& store, std::uint64_t expected, Record record) {
    const Append item{expected, std::move(record)};
    auto results = store.append({&item, 1});
    REQUIRE(results.size() == 1);
    return results.front();
}

inline std::uint64_t must_append(StreamStore& store, std::uint64_t expected, Record record) {
    const auto sequence = append_one(store, expected, std::move(record));
    REQUIRE_MESSAGE(sequence.has_value(), sequence.error().message);
    return *sequence;
}

inline std::optional<Record> head_of(StreamStore& store, std::string_view key,
                                     std::string_view ns = kNs) {
    const auto head = store.head({ns, key});
    REQUIRE_MESSAGE(head.has_value(), head.error().message);
    return *head;
}

inline std::uint64_t head_sequence(StreamStore& store, std::string_view key) {
    const auto head = head_of(store, key);
    return head ? head->sequence : 0;
}

inline std::vector<Record> history_of(StreamStore& store, std::string_view key) {
    const auto versions = store.history({kNs, key});
    REQUIRE_MESSAGE(versions.has_value(), versions.error().message);
    std::vector<Record> records;
    for (const Version& version : *versions) {
        records.push_back(version.record);
    }
    return records;
}

inline ScanOptions pages_of(std::size_t heads_max) {
    ScanOptions options;
    options.heads_max = heads_max;
    return options;
}

inline std::vector<Record> scan_all(StreamStore& store, ScanOptions options) {
    std::vector<Record> heads;
    do {
        const auto page = store.scan(options);
        REQUIRE_MESSAGE(page.has_value(), page.error().message);
        CHECK(page->heads.size() <= options.heads_max);
        for (const Version& version : page->heads) {
            heads.push_back(version.record);
        }
        options.cursor = page->cursor;
    } while (!options.cursor.empty());
    return heads;
}

// Checks that `result` is an error of `code` whose message has `word` in it.
template <class T>
void check_error(const Result<T>& result, Code code, std::string_view word = {}) {
    REQUIRE(!result.has_value());
    CHECK_MESSAGE(result.error().code == code, result.error().message);
    CHECK_MESSAGE(result.error().message.find(word) != std::string::npos, result.error().message);
}

}  // namespace dedup::test
