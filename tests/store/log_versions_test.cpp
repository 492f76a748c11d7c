// A store whose log a program of format version 1 wrote: it opens, is written on in, and gets
// segments of the new version; what is damaged in it is found and repaired as in any other.

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <utility>

#include "support/hex.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"
#include "support/text.hpp"

namespace dedup::test {
namespace {

constexpr std::size_t kGoldenRecords = 10;
constexpr std::size_t kGoldenBytes = 1139;
constexpr int kFilled = 2'000;

struct OldStore {
    OldStore() {
        const auto golden =
            std::filesystem::path(DEDUP_SOURCE_ROOT) / "tests/golden/v1/segment.hex";
        const auto bytes = from_hex(read_text(golden));
        REQUIRE(bytes);
        REQUIRE(bytes->size() == kGoldenBytes);
        std::filesystem::create_directories(path / "log");
        write_file(segment_path(path, 1), *bytes);
    }

    // Goes on until there are segments of the new version as well.
    void grow() const {
        const auto store = must_open(path, options);
        fill(*store, "key-", kFilled, clock.now_ms());
        wait_until_sealed(*store);
        REQUIRE(store->stats()->segments_sealed >= 2);
        REQUIRE(store->close());
    }

    [[nodiscard]] std::uint32_t version_of(std::uint64_t id) const {
        const auto segment = Segment::open(posix_env(), path / "log", id);
        REQUIRE_MESSAGE(segment, (segment ? "" : segment.error().message));
        return (*segment)->header().version;
    }

    void flip(std::uint64_t segment, std::size_t at) const {
        std::string bytes = read_file(segment_path(path, segment));
        bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
        write_file(segment_path(path, segment), bytes);
    }

    [[nodiscard]] RepairReport repaired() const {
        std::filesystem::remove_all(target);
        const auto report = repair(path, target);
        REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
        CHECK(verify(target)->problems.empty());
        const auto segment = Segment::open(posix_env(), target / "log", 1);
        REQUIRE(segment);
        CHECK((*segment)->header().version == kSegmentVersion);
        return *report;
    }

    const TempDir dir;
    const std::filesystem::path path = dir.path() / "store";
    const std::filesystem::path target = dir.path() / "repaired";
    const ManualClock clock{1'795'854'480'000};  // soon after it was written
    const OpenOptions options = small_segments(clock.clock());
};

// All that the golden store says, but for the stream `but`.
void check_golden(StreamStore& store, const std::string& but = "") {
    const std::array<std::pair<std::uint64_t, StreamKey>, 7> heads = {{{2, {"default", "order-1"}},
                                                                       {3, {"default", "order-2"}},
                                                                       {5, {"default", "order-3"}},
                                                                       {7, {"default", "order-4"}},
                                                                       {8, {"lines", "a"}},
                                                                       {9, {"lines", "b"}},
                                                                       {10, {"lines", "c"}}}};
    for (const auto& [sequence, key] : heads) {
        INFO(key.key);
        const auto head = store.head(key);
        REQUIRE(head);
        REQUIRE(head->has_value() == (key.key != but));
        if (*head) {
            CHECK((*head)->sequence == sequence);
        }
    }
    CHECK((*store.head({"default", "order-1"}))->receipt == "paid 1");
    CHECK((*store.head({"default", "order-4"}))->receipt == "");
}

TEST_CASE("a store of version 1 opens, is written on in, and goes over to version 2") {
    const OldStore old;
    {
        const auto store = must_open(old.path, old.options);
        check_golden(*store);
        Append done{3, **store->head({"default", "order-2"})};
        done.record.receipt = "late";
        REQUIRE(store->append({&done, 1})[0]);
        REQUIRE(store->close());
    }
    CHECK(old.version_of(1) == 1);
    CHECK(verify(old.path)->problems.empty());
    old.grow();
    CHECK(old.version_of(1) == 1);
    CHECK(old.version_of(2) == kSegmentVersion);
    for (const bool with_catalog : {true, false}) {
        if (!with_catalog) {
            std::filesystem::remove_all(old.path / "catalog");
        }
        const auto store = must_open(old.path, old.options);
        check_filled(*store, kFilled);
        CHECK((*store->head({"default", "order-2"}))->receipt == "late");
        CHECK((*store->head({"default", "order-1"}))->receipt == "paid 1");
        const auto history = store->history({"default", "order-1"});
        REQUIRE(history);
        CHECK(history->size() == 2);
        REQUIRE(store->close());
        const auto report = verify(old.path);
        REQUIRE(report);
        CHECK(report->problems.empty());
        CHECK(report->records == kGoldenRecords + 1 + kFilled);
    }
}

TEST_CASE("a sweep moves what lives in a segment of version 1 to one of version 2") {
    const OldStore old;
    const std::int64_t later_ms = old.clock.now_ms() + 100'000'000;
    const auto store = must_open(old.path, old.options);
    fill(*store, "key-", kFilled, old.clock.now_ms(), old.clock.now_ms() + 1'000);
    wait_until_sealed(*store);
    const auto swept = store->sweep({.now_ms = later_ms, .compact = true});
    REQUIRE(swept);
    CHECK_FALSE(std::filesystem::exists(segment_path(old.path, 1)));
    check_golden(*store, "order-3");  // released, and its time had come
    CHECK(receipt_of(*store, "key-0") == "(absent)");
    REQUIRE(store->close());
    CHECK(verify(old.path)->problems.empty());
}

TEST_CASE("damage in a segment of version 1 is found, and the rest repaired") {
    OldStore old;
    REQUIRE(must_open(old.path, old.options)->close());
    const std::string bytes = read_file(segment_path(old.path, 1));
    const std::size_t at = bytes.find("order-2");
    REQUIRE(at != std::string::npos);
    old.flip(1, at);
    CHECK(open_error(old.path, old.options).code == Code::corruption);
    const RepairReport report = old.repaired();
    REQUIRE(report.losses.size() == 1);
    CHECK(report.records == kGoldenRecords - 1);
    check_golden(*must_open(old.target, old.options), "order-2");
}

TEST_CASE("damaged headers cost no record where the versions are mixed") {
    // Guards against reading all segments of a damaged store in one version.
    const OldStore old;
    old.grow();
    const std::uint64_t segments = must_open(old.path, old.options)->stats()->segments_sealed + 1;
    for (const bool all : {false, true}) {
        for (std::uint64_t id = 1; id <= (all ? segments : 2); ++id) {
            old.flip(id, kSegmentTimeHighAt);
        }
        const RepairReport report = old.repaired();
        CHECK(report.records == kGoldenRecords + kFilled);
        const auto store = must_open(old.target, old.options);
        check_golden(*store);
        check_filled(*store, kFilled);
        REQUIRE(store->close());
        for (std::uint64_t id = 1; id <= (all ? segments : 2); ++id) {
            old.flip(id, kSegmentTimeHighAt);
        }
    }
}

}  // namespace
}  // namespace dedup::test
