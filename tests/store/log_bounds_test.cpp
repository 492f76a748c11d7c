// That work and memory follow what they have to and not the size of the store: what an opening and
// a sweep read of each segment, and what the tables hold.

#include <doctest/doctest.h>

#include <map>
#include <mutex>
#include <string>

#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

// Counts the bytes that are read of each segment.
class CountingEnv {
  public:
    CountingEnv() {
        env.read_hook = [this](const Path& path, std::uint64_t, std::size_t bytes) {
            if (const auto id = segment_id(path.filename().string())) {
                const std::lock_guard lock(mutex_);
                bytes_[*id] += bytes;
            }
            return 0;
        };
    }

    // Since the last call.
    [[nodiscard]] std::map<std::uint64_t, std::uint64_t> take() {
        const std::lock_guard lock(mutex_);
        return std::exchange(bytes_, {});
    }

    HookedEnv env;

  private:
    std::mutex mutex_;
    std::map<std::uint64_t, std::uint64_t> bytes_;
};

TEST_CASE("an opening reads the tail, and of sealed segments their headers") {
    for (const int keys : {4'000, 16'000}) {
        const TempDir dir;
        const auto path = dir.path() / "store";
        fill_and_seal(path, keys);
        for (const bool for_reading : {false, true}) {
            CountingEnv counting;
            OpenOptions options = small_segments();
            options.read_only = for_reading;
            const auto store = must_open(path, options, counting.env);
            auto read = counting.take();
            const auto stats = store->stats();
            REQUIRE(stats);
            REQUIRE(stats->segments_sealed >= static_cast<std::uint64_t>(keys) / 1'000);
            REQUIRE(stats->segments_unsealed == 1);
            const auto tail = std::prev(read.end());
            REQUIRE(tail->first == stats->segments_sealed + 1);
            CHECK(tail->second >= stats->tail_bytes);
            CHECK(tail->second < 3 * kSegmentBytesMin);
            read.erase(tail);
            for (const auto& [id, bytes] : read) {
                CHECK_MESSAGE(bytes <= 2 * kSegmentHeaderBytes, "segment ", id);
            }
        }
    }
}

TEST_CASE("a sweep reads nothing of a segment in which nothing or everything has expired") {
    const TempDir dir;
    CountingEnv counting;
    ManualClock clock(1'700'000'000'000);
    const auto store = must_open(dir.path() / "store", small_segments(clock.clock()), counting.env);
    constexpr int kKeys = 4'000;
    fill(*store, "kept-", kKeys, 1);
    wait_until_sealed(*store);
    const std::uint64_t kept = store->stats()->segments_sealed;
    fill(*store, "brief-", kKeys, 1, clock.now_ms() + 1'000);
    wait_until_sealed(*store);
    const std::uint64_t filled = store->stats()->segments_sealed;
    REQUIRE(kept > 3);
    REQUIRE(filled > kept + 3);
    clock.advance(10'000);
    (void)counting.take();
    const auto report = store->sweep();
    REQUIRE(report);
    REQUIRE(report->removed.completed == kKeys);
    REQUIRE(report->segments_dropped >= filled - kept - 1);
    for (const auto& [id, bytes] : counting.take()) {
        // Where the last to stay and the first to expire lie together, and the newest.
        const bool mixed = id == kept + 1 || id > filled;
        CHECK_MESSAGE((mixed || bytes <= kSegmentHeaderBytes), "segment ", id, ": ", bytes);
    }
}

TEST_CASE("an append that finds no room reads nothing of what is there") {
    // Guards against a full store that works the harder the more it is asked.
    const TempDir dir;
    CountingEnv counting;
    ManualClock clock(1'700'000'000'000);
    OpenOptions options = small_segments(clock.clock());
    options.capacity = {.keys_max = 2'000, .evict_oldest = true};
    const auto store = must_open(dir.path() / "store", options, counting.env);
    const auto claim = [&](int i) {
        Append item{0, completed_record("key-" + std::to_string(i), "")};
        item.record.receipt.reset();
        item.record.metadata = std::string(100, 'm');
        item.record.timestamp_ms = clock.now_ms();
        item.record.expires_at_ms = clock.now_ms() + 24 * 3'600'000;
        return std::move(store->append({&item, 1}).front());
    };
    for (int i = 0; i < 2'000; ++i) {
        REQUIRE(claim(i));
    }
    wait_until_sealed(*store);
    REQUIRE(store->stats()->segments_sealed > 3);
    (void)counting.take();
    for (int i = 2'000; i < 2'020; ++i) {
        clock.advance(1'000);
        const auto refused = claim(i);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Code::out_of_space);
    }
    CHECK(counting.take().empty());
}

// Whoever read these holes would be at it for an hour.
TEST_CASE("what lies in a hole of a file is not read") {
    constexpr std::uintmax_t kFileBytes = 1ULL << 40U;
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, 4'000);
    std::uint64_t newest = 1;
    while (std::filesystem::exists(segment_path(path, newest + 1))) {
        ++newest;
    }
    REQUIRE(newest > 2);
    for (const std::uint64_t id : {newest, std::uint64_t{1}}) {
        std::filesystem::resize_file(segment_path(path, id), kFileBytes);
    }
    {
        OpenOptions options = small_segments();
        options.read_only = true;
        const auto reader = must_open(path, options);
        check_filled(*reader, 4'000);
    }
    CHECK(verify(path)->problems.empty());
    const auto saved = repair(path, dir.path() / "saved");
    REQUIRE(saved);
    CHECK(saved->bytes_lost == 0);
    const auto store = must_open(path, small_segments());
    must_append(*store, "one more");
    CHECK(store->stats()->streams() == 4'001);
    REQUIRE(store->close());
    CHECK(std::filesystem::file_size(segment_path(path, newest)) < kFileBytes);
}

TEST_CASE("memory follows the tail and the filters, which take at most 2.25 bytes a key") {
    const TempDir dir(fast_directory());
    const auto store = must_open(dir.path() / "store", small_segments());
    const auto memory = [&] {
        wait_until_sealed(*store);
        return static_cast<double>(store->stats()->memory_bytes);
    };
    fill(*store, "some-", 4'000);
    const double some = memory();
    constexpr int kMore = 400'000;
    fill(*store, "more-", kMore);
    // (Filters of so small segments are rounded up by 1 %; and the tail may now be a full one.)
    CHECK(memory() < some + 2.28 * kMore + 200.0 * kSegmentBytesMin / 128);
}

}  // namespace
}  // namespace dedup::test
