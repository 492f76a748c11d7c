// What repair() makes of a store that has been swept: what is gone stays gone, what has begun anew
// has only its new claim, what has been moved is there, and no gap that a sweep has left is a loss.

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kBrief = 300;
constexpr int kAnew = 20;
constexpr int kLater = 100;

struct Swept {
    Swept() {
        options.clock = clock.clock();
        const auto store = must_open(path, options);
        for (int i = 0; i < kBrief; ++i) {
            put(*store, "brief-" + std::to_string(i), 5'000);
            if (i % 10 == 0) {
                put(*store, "kept-" + std::to_string(i), 0);
                put(*store, "kept-" + std::to_string(i), 0);
            }
        }
        wait_until_sealed(*store);
        std::filesystem::copy(path / "log", before_sweep, std::filesystem::copy_options::recursive);
        clock.advance(10'000);
        report = *store->sweep();
        REQUIRE(report.removed.total() == kBrief);
        REQUIRE(report.records_moved > 10);
        REQUIRE(report.segments_compacted + report.segments_dropped > 2);
        for (int i = 0; i < kAnew; ++i) {
            put(*store, "brief-" + std::to_string(i), 0);
        }
        for (int i = 0; i < kLater; ++i) {
            put(*store, "later-" + std::to_string(i), 0);
        }
        wait_until_sealed(*store);
        REQUIRE(store->close());
    }

    void put(StreamStore& store, const std::string& key, std::int64_t ttl_ms) const {
        Append item{0, completed_record(key, std::string(900, 'r'))};
        const auto head = store.head({"test", key});
        item.expected_sequence = *head ? (*head)->sequence : 0;
        item.record.timestamp_ms = clock.now_ms();
        item.record.expires_at_ms = ttl_ms == 0 ? 0 : clock.now_ms() + ttl_ms;
        REQUIRE(store.append({&item, 1})[0]);
    }

    // What a store says of all streams.
    [[nodiscard]] static std::map<std::string, std::uint64_t> heads(StreamStore& store) {
        std::map<std::string, std::uint64_t> all;
        ScanOptions scan;
        do {
            const auto page = store.scan(scan);
            REQUIRE(page);
            for (const Version& head : page->heads) {
                REQUIRE(all.emplace(head.record.key, head.record.sequence).second);
            }
            scan.cursor = page->cursor;
        } while (!scan.cursor.empty());
        return all;
    }

    RepairReport repaired() const {
        const auto made = repair(path, target);
        REQUIRE_MESSAGE(made, (made ? "" : made.error().message));
        const auto verified = verify(target);
        REQUIRE(verified);
        CHECK(verified->problems == std::vector<std::string>());
        return *made;
    }

    ManualClock clock{1'700'000'000'000};
    TempDir dir;
    std::filesystem::path path = dir.path() / "store";
    std::filesystem::path before_sweep = dir.path() / "before";
    std::filesystem::path target = dir.path() / "repaired";
    OpenOptions options = small_segments();
    SweepReport report;
};

void check_same(const Swept& swept) {
    const auto before = must_open(swept.path, swept.options);
    const auto after = must_open(swept.target, swept.options);
    CHECK(Swept::heads(*after) == Swept::heads(*before));
    CHECK(after->stats()->completed == before->stats()->completed);
    CHECK(after->stats()->streams() == kBrief / 10 + kAnew + kLater);
    CHECK(after->stats()->time_high_ms >= before->stats()->time_high_ms);
    for (int i = 0; i < kBrief; ++i) {
        const std::string key = "brief-" + std::to_string(i);
        CHECK(after->history({"test", key})->size() == (i < kAnew ? 1U : 0U));
    }
    const std::uint64_t last = before->stats()->last_sequence;
    CHECK(must_append(*after, "brief-100") > last);
    CHECK(after->history({"test", "brief-100"})->size() == 1);
}

TEST_CASE("repairing a swept store: gone, begun anew and moved streams are as before") {
    const Swept swept;
    const RepairReport report = swept.repaired();
    CHECK(report.losses.empty());
    CHECK(report.streams == kBrief / 10 + kAnew + kLater);
    check_same(swept);
}

TEST_CASE("what is moved during a repair is in the numbers of the segment that it fills") {
    const TempDir dir(fast_directory());
    const std::filesystem::path path = dir.path() / "store";
    const std::filesystem::path target = dir.path() / "repaired";
    {
        // More than a segment of the new store holds, which is 64 MiB. Nothing expires, or its
        // catalog would be made anew when it is opened.
        constexpr int kKept = 6;
        const std::string receipt(15U << 20U, 'r');
        OpenOptions options;
        options.segment_bytes = 24U << 20U;  // two receipts
        const auto store = must_open(path, options);
        std::uint64_t replaced = 0;
        for (int i = 0; i < kKept; ++i) {
            Append item{replaced, completed_record("replaced", receipt)};
            const auto results = store->append({&item, 1});
            REQUIRE(results[0]);
            replaced = *results[0];
            must_append(*store, "kept-" + std::to_string(i), receipt);
        }
        must_append(*store, "last");
        wait_until_sealed(*store);
        const auto report = store->sweep();
        REQUIRE(report);
        REQUIRE(report->records_moved > kKept / 2);
        REQUIRE(store->close());
    }
    const auto made = repair(path, target);
    REQUIRE_MESSAGE(made, (made ? "" : made.error().message));
    const auto verified = verify(target);
    REQUIRE(verified);
    CHECK(verified->problems == std::vector<std::string>());
    REQUIRE(verified->segments > 1);
}

TEST_CASE("files of segments that a sweep has given up are left out") {
    const Swept swept;
    int put_back = 0;
    for (const auto& file : std::filesystem::directory_iterator(swept.before_sweep)) {
        const auto place = swept.path / "log" / file.path().filename();
        if (!std::filesystem::exists(place)) {
            std::filesystem::copy(file.path(), place);
            ++put_back;
        }
    }
    REQUIRE(put_back > 2);
    CHECK(swept.repaired().losses.empty());
    check_same(swept);
}

TEST_CASE("the horizon is known although the newest manifest is damaged") {
    const Swept swept;
    const std::uint64_t newest = [&] {
        std::uint64_t id = 0;
        for (const auto& file : std::filesystem::directory_iterator(swept.path / "log")) {
            id = std::max(id, segment_id(file.path().filename().string()).value_or(0));
        }
        return id;
    }();
    std::string bytes = read_file(segment_path(swept.path, newest));
    bytes[kSegmentHeaderBytes + 40] = static_cast<char>(bytes[kSegmentHeaderBytes + 40] ^ 1);
    write_file(segment_path(swept.path, newest), bytes);
    const RepairReport report = swept.repaired();
    CHECK(report.losses.size() == 1);
    const auto after = must_open(swept.target, swept.options);
    CHECK_FALSE(*after->head({"test", "brief-200"}));
}

TEST_CASE("a segment that the manifest lists and that is not there is a loss") {
    const Swept swept;
    std::uint64_t oldest = UINT64_MAX;
    for (const auto& file : std::filesystem::directory_iterator(swept.path / "log")) {
        oldest = std::min(oldest, segment_id(file.path().filename().string()).value_or(oldest));
    }
    REQUIRE(oldest > 1);
    std::filesystem::remove(segment_path(swept.path, oldest));
    const RepairReport report = swept.repaired();
    REQUIRE(report.losses.size() == 1);
    CHECK(report.losses[0].file == segment_path(swept.path, oldest).string());
}

}  // namespace
}  // namespace dedup::test
