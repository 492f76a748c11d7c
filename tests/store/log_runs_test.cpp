// A store of so many segments that runs of them have joint filters.

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "catalog/checked_blob.hpp"
#include "catalog/filter.hpp"
#include "catalog/lmdb_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kManyKeys = 36'000;
constexpr char kJointKey[] = "j\0\0\0\0\0\0\0";  // and the last byte of the first run's number, 0

std::string joint_filter(const std::filesystem::path& store) {
    const auto env = LmdbEnv::open(store / "catalog", true, kCatalogMapBytes);
    REQUIRE_MESSAGE(env, (env ? "" : env.error().message));
    return std::string(*LmdbTxn::begin(*env, false)->get({kJointKey, sizeof kJointKey}));
}

TEST_CASE("keys in runs of segments are found and superseded, and absent ones are absent") {
    const TempDir dir(fast_directory());
    const auto path = dir.path() / "store";
    fill_and_seal(path, kManyKeys);
    REQUIRE(joint_filter(path).size() > kBlobPadBytes);
    const auto store = must_open(path, small_segments());
    REQUIRE(store->stats()->segments_sealed > 2 * kRunSegments);
    check_filled(*store, kManyKeys);
    std::vector<std::string> absent;
    for (int i = 0; i < kManyKeys; ++i) {
        absent.push_back("other-" + std::to_string(i));
    }
    check_heads_together(*store, absent);
    int wrong = 0;
    for (const std::string& key : absent) {
        wrong += store->head({"test", key})->has_value();
    }
    CHECK(wrong == 0);
    for (int i = 0; i < kManyKeys; i += 100) {
        const std::string key = "key-" + std::to_string(i);
        Append item{(*store->head({"test", key}))->sequence, completed_record(key, "newer")};
        REQUIRE(store->append({&item, 1})[0]);
        REQUIRE(receipt_of(*store, key) == "newer");
        REQUIRE(store->history({"test", key})->size() == 2);
    }
    REQUIRE(store->close());
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("a joint filter goes when a sweep removes its run") {
    const TempDir dir(fast_directory());
    const auto path = dir.path() / "store";
    ManualClock clock(1'700'000'000'000);
    const OpenOptions options = small_segments(clock.clock());
    {
        const auto store = must_open(path, options);
        fill(*store, "key-", kManyKeys / 2, clock.now_ms(), clock.now_ms() + 1'000);
        wait_until_sealed(*store);
        REQUIRE(store->stats()->segments_sealed > kRunSegments);
        REQUIRE_FALSE(joint_filter(path).empty());
        clock.advance(10'000);
        REQUIRE(store->sweep());
        REQUIRE(store->stats()->segments_sealed < kRunSegments / 2);
        must_append(*store, "key-1");
        REQUIRE(store->close());
    }
    CHECK(joint_filter(path).empty());
    CHECK(verify(path)->problems.empty());
    const auto store = must_open(path, options);
    CHECK(receipt_of(*store, "key-1") == "done");
    CHECK(receipt_of(*store, "key-2") == "(absent)");
}

TEST_CASE("verify notices a joint filter that denies a stream of its run") {
    const TempDir dir(fast_directory());
    const auto path = dir.path() / "store";
    fill_and_seal(path, kManyKeys / 2);
    REQUIRE(verify(path)->problems.empty());
    std::string blob = joint_filter(path);
    const std::uint64_t bytes = blob_data_bytes(blob.size()).value();
    std::fill_n(blob.begin() + kBlobPadBytes, bytes, '\0');
    finish_blob(blob.data(), bytes, ~std::uint64_t{0});
    {
        const auto env = LmdbEnv::open(path / "catalog", true, kCatalogMapBytes);
        auto txn = LmdbTxn::begin(*env, true);
        REQUIRE(txn->put({kJointKey, sizeof kJointKey}, blob));
        REQUIRE(txn->commit());
    }
    const auto report = verify(path);
    REQUIRE(report);
    REQUIRE_FALSE(report->problems.empty());
    CHECK(report->problems[0].find("filter") != std::string::npos);
}

}  // namespace
}  // namespace dedup::test
