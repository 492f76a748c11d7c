// What the tests of the log store share: records, appends that must succeed, files to damage.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "dedup/log_store.hpp"
#include "store/log_store.hpp"

namespace dedup::test {

// Of now, so that a store which is closed right after has no later time to note.
inline Record completed_record(std::string key, std::string receipt) {
    Record record;
    record.ns = "test";
    record.key = std::move(key);
    record.timestamp_ms = system_now_ms();
    record.receipt = std::move(receipt);
    return record;
}

// Appends a completed record to an empty stream; gives its sequence.
inline std::uint64_t must_append(StreamStore& store, const std::string& key,
                                 const std::string& receipt = "done") {
    const Append item{0, completed_record(key, receipt)};
    const auto results = store.append({&item, 1});
    REQUIRE_MESSAGE(results[0], (results[0] ? "" : results[0].error().message));
    return *results[0];
}

// The receipt of a key that must be completed; "(absent)" if there is no record.
inline std::string receipt_of(StreamStore& store, const std::string& key) {
    const auto head = store.head({"test", key});
    REQUIRE_MESSAGE(head, (head ? "" : head.error().message));
    return *head ? (*head)->receipt.value_or("(in flight)") : "(absent)";
}

// All heads at once, where many are looked for side by side, must be as those of one key each.
inline void check_heads_together(StreamStore& store, const std::vector<std::string>& keys) {
    std::vector<StreamKey> streams;
    for (const std::string& key : keys) {
        streams.push_back({"test", key});
    }
    const auto together = store.heads(streams);
    REQUIRE(together.size() == keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const auto alone = store.head(streams[i]);
        INFO(keys[i]);
        REQUIRE(together[i].has_value() == alone.has_value());
        REQUIRE((alone ? *together[i] == *alone : together[i].error().code == alone.error().code));
    }
}

inline std::unique_ptr<StreamStore> must_open(const std::filesystem::path& path,
                                              OpenOptions options = {}, Env& env = posix_env(),
                                              const LogStoreInternals& internals = {}) {
    auto store = LogStore::open(env, path, options, internals);
    REQUIRE_MESSAGE(store, (store ? "" : store.error().message));
    return *std::move(store);
}

inline Error open_error(const std::filesystem::path& path, const OpenOptions& options = {}) {
    const auto store = LogStore::open(posix_env(), path, options);
    REQUIRE_FALSE(store);
    return store.error();
}

// (That trust the clock: most tests go through days in one step, and mean it.)
inline OpenOptions small_segments(Clock clock = system_now_ms) {
    OpenOptions options;
    options.segment_bytes = kSegmentBytesMin;
    options.clock = std::move(clock);
    options.trust_clock = true;
    return options;
}

inline OpenOptions read_only() {
    OpenOptions options;
    options.read_only = true;
    return options;
}

inline std::string read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << bytes;
    file.close();
    REQUIRE(file.good());
}

inline std::filesystem::path segment_path(const std::filesystem::path& store, std::uint64_t id) {
    return store / "log" / segment_file_name(id);
}

// What a crash of the process would leave: the files as they are, with the store still open. Begins
// anew if the sealer takes a file away meanwhile.
inline void crash_copy(const std::filesystem::path& store, const std::filesystem::path& copy) {
    std::error_code error;
    do {
        std::filesystem::remove_all(copy);
        std::filesystem::copy(store, copy, std::filesystem::copy_options::recursive, error);
    } while (error == std::errc::no_such_file_or_directory);
    REQUIRE_MESSAGE(!error, error.message());
}

inline void wait_until_sealed(StreamStore& store) {
    while (true) {
        const auto stats = store.stats();
        REQUIRE(stats);
        REQUIRE(stats->background_error == "");
        if (stats->segments_unsealed == 1) {
            return;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

// Appends the completed keys `<prefix>0` to `<prefix><keys - 1>` with receipts of their own.
inline void fill(StreamStore& store, const std::string& prefix, int keys,
                 std::int64_t timestamp_ms = system_now_ms(), std::int64_t expires_at_ms = 0) {
    for (int i = 0; i < keys; i += 100) {
        std::vector<Append> batch;
        for (int j = i; j < std::min(i + 100, keys); ++j) {
            const std::string number = std::to_string(j);
            batch.push_back({0, completed_record(prefix + number, "receipt-" + number)});
            batch.back().record.timestamp_ms = timestamp_ms;
            batch.back().record.expires_at_ms = expires_at_ms;
        }
        for (const auto& result : store.append(batch)) {
            REQUIRE(result);
        }
    }
}

// A store with `keys` completed keys "key-0"..., of which most lie in sealed segments.
inline void fill_and_seal(const std::filesystem::path& path, int keys) {
    const auto store = must_open(path, small_segments());
    fill(*store, "key-", keys);
    wait_until_sealed(*store);
    REQUIRE(store->close());
}

// Every key that fill_and_seal put there must have its receipt.
inline void check_filled(StreamStore& store, int keys) {
    std::vector<std::string> all;
    for (int i = 0; i < keys; ++i) {
        all.push_back("key-" + std::to_string(i));
    }
    check_heads_together(store, all);
    int wrong = 0;
    for (int i = 0; i < keys; ++i) {
        wrong += receipt_of(store, "key-" + std::to_string(i)) != "receipt-" + std::to_string(i);
    }
    CHECK(wrong == 0);
}

}  // namespace dedup::test
