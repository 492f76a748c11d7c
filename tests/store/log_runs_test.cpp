// A store of so many segments that runs of them have joint filters.

#include <doctest/doctest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "catalog/catalog.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kManyKeys = 36'000;
constexpr std::uint64_t kLastOfRun = kRunSegments - 1;  // of the first

std::shared_ptr<const IndexFile> index_of(const std::filesystem::path& store, std::uint64_t id) {
    const auto catalog = Catalog::open_for_reading(posix_env(), store / "catalog");
    REQUIRE(catalog);
    const CatalogMeta& meta = (*catalog)->meta();
    auto index = IndexFile::open(posix_env(), store / "log", meta.store_id, meta.secret, id,
                                 std::filesystem::file_size(segment_path(store, id)));
    REQUIRE_MESSAGE(index, (index ? "" : index.error().message));
    return *index;
}

TEST_CASE("keys in runs of segments are found and superseded, and absent ones are absent") {
    const TempDir dir(fast_directory());
    const auto path = dir.path() / "store";
    fill_and_seal(path, kManyKeys);
    REQUIRE(index_of(path, kLastOfRun)->header().joint_bytes > 0);
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
        REQUIRE(index_of(path, kLastOfRun)->header().joint_bytes > 0);
        clock.advance(10'000);
        REQUIRE(store->sweep());
        REQUIRE(store->stats()->segments_sealed < kRunSegments / 2);
        must_append(*store, "key-1");
        REQUIRE(store->close());
    }
    CHECK_FALSE(std::filesystem::exists(path / "log" / index_file_name(kLastOfRun)));
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
    {
        const auto index = index_of(path, kLastOfRun);
        std::vector<IndexEntry> entries;
        for (std::uint64_t i = 0; i < index->index().size(); ++i) {
            entries.push_back(index->index().entry(i).value());
        }
        const std::string none(index->header().joint_bytes, '\0');
        REQUIRE(write_index_file(posix_env(), path / "log", index->header(), entries, none));
    }
    const auto report = verify(path);
    REQUIRE(report);
    REQUIRE_FALSE(report->problems.empty());
    CHECK(report->problems[0].find("filter") != std::string::npos);
}

TEST_CASE("a joint filter that is damaged is not asked, and keeps nobody out") {
    const TempDir dir(fast_directory());
    const auto path = dir.path() / "store";
    fill_and_seal(path, kManyKeys / 2);
    const auto file = path / "log" / index_file_name(kLastOfRun);
    std::string bytes = read_file(file);
    bytes[bytes.size() - 100] = static_cast<char>(bytes[bytes.size() - 100] ^ 1);
    write_file(file, bytes);
    check_filled(*must_open(path, read_only()), kManyKeys / 2);
    check_filled(*must_open(path, small_segments()), kManyKeys / 2);
    const auto report = verify(path);
    REQUIRE(report);
    REQUIRE(report->problems.size() == 1);
    CHECK(report->problems[0].find("a filter is damaged") != std::string::npos);
}

}  // namespace
}  // namespace dedup::test
