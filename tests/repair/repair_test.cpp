// What repair() makes of a damaged store: all that is intact and nothing else, and the damaged one
// is left as it was. Whoever held a claim before holds it still, and no sequence comes again.

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>

#include "repair/salvage.hpp"
#include "repair/verify.hpp"
#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kStreams = 600;
constexpr std::uint64_t kPage = 4096;

struct Damaged {
    Damaged() {
        const auto store = must_open(path, small_segments());
        for (int i = 0; i < kStreams; i += 2) {
            const std::string text(static_cast<std::size_t>(i), 'r');
            const std::vector<Append> pair = {
                {0, completed_record("key-" + std::to_string(i), text)},
                {0, completed_record("key-" + std::to_string(i + 1), text)}};
            // Every third pair lands whole or not at all.
            for (const auto& result :
                 store->append(pair, i % 3 == 0 ? Batch::atomic : Batch::each)) {
                REQUIRE(result);
            }
        }
        Append claim{0, completed_record("claimed", "")};
        claim.record.receipt.reset();
        claim_sequence = *store->append({&claim, 1})[0];
        wait_until_sealed(*store);
        segments = store->stats()->segments_sealed + 1;
        last_sequence = store->stats()->last_sequence;
        REQUIRE(segments >= 3);
        REQUIRE(store->close());
    }

    void flip(std::uint64_t segment, std::size_t at) const {
        std::string bytes = read_file(segment_path(path, segment));
        bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
        write_file(segment_path(path, segment), bytes);
    }

    [[nodiscard]] std::map<std::string, std::string> files() const {
        std::map<std::string, std::string> all;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
            all[entry.path().string()] = entry.is_regular_file() ? read_file(entry.path()) : "";
        }
        return all;
    }

    // Repairs into a new place, and checks what every repair has to hold.
    RepairReport repaired() {
        const auto before = files();
        std::filesystem::remove_all(target);
        const auto report = repair(env, path, target);
        REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
        REQUIRE(files() == before);
        const auto verified = verify(target);
        REQUIRE(verified);
        REQUIRE(verified->problems.empty());
        REQUIRE(verified->records == report->records);
        return *report;
    }

    // The keys that the new store lacks. What it has is right.
    [[nodiscard]] std::vector<int> missing() const {
        const auto store = must_open(target);
        std::vector<int> keys;
        for (int i = 0; i < kStreams; ++i) {
            const std::string receipt = receipt_of(*store, "key-" + std::to_string(i));
            if (receipt == "(absent)") {
                keys.push_back(i);
            } else {
                REQUIRE(receipt == std::string(static_cast<std::size_t>(i - i % 2), 'r'));
            }
        }
        // (The claim is the log's last record, behind all that was lost.)
        const auto claimed = store->head({"test", "claimed"});
        REQUIRE(claimed);
        REQUIRE((!*claimed || (*claimed)->sequence == claim_sequence));
        REQUIRE(must_append(*store, "new") > last_sequence);
        return keys;
    }

    void check_verify_names(const std::string& place) {
        const auto store = LogStore::open(env, path, read_only());
        REQUIRE(store);
        const auto verified = verify(**store);
        REQUIRE(verified);
        CHECK(std::ranges::count_if(verified->problems, [&](const std::string& problem) {
                  return problem.starts_with(place);
              }) == 1);
    }

    // The disk gives errors for these bytes of a segment.
    void make_unreadable(std::uint64_t segment, std::uint64_t begin, std::uint64_t end) {
        env.read_hook = [=, this](const Path& file, std::uint64_t offset, std::size_t bytes) {
            const bool within = offset < end && offset + bytes > begin;
            return within && file == segment_path(path, segment) ? EIO : 0;
        };
    }

    HookedEnv env;
    TempDir dir;
    std::filesystem::path path = dir.path() / "store";
    std::filesystem::path target = dir.path() / "repaired";
    std::uint64_t segments = 0;
    std::uint64_t last_sequence = 0;
    std::uint64_t claim_sequence = 0;
};

TEST_CASE("repairing an intact store copies all of it, sequences included") {
    Damaged damaged;
    const RepairReport report = damaged.repaired();
    CHECK(report.losses.empty());
    CHECK(report.bytes_lost == 0);
    CHECK(report.records == kStreams + 1);
    CHECK(report.streams == kStreams + 1);
    CHECK(report.segments == damaged.segments);
    const auto old_store = must_open(damaged.path, read_only());
    const auto new_store = must_open(damaged.target, read_only());
    for (const std::string key : {"key-0", "key-1", "key-301", "claimed"}) {
        const auto before = old_store->head({"test", key});
        const auto after = new_store->head({"test", key});
        REQUIRE(*before);
        CHECK(*before == *after);
    }
    CHECK((*new_store->head({"test", "claimed"}))->sequence == damaged.claim_sequence);
    CHECK(damaged.missing().empty());
}

TEST_CASE("a damaged frame costs itself, is named, and an atomic batch goes as a whole") {
    Damaged damaged;
    const std::string bytes = read_file(segment_path(damaged.path, 1));
    for (const auto& [key, lost] : std::map<std::string, std::vector<int>>{
             {"key-40", {40}}, {"key-42", {42, 43}}, {"key-67", {66, 67}}}) {
        const std::size_t at = bytes.find(key);
        REQUIRE(at != std::string::npos);
        damaged.flip(1, at);
        const RepairReport report = damaged.repaired();
        damaged.flip(1, at);
        REQUIRE(report.losses.size() == 1);
        const RepairLoss& loss = report.losses[0];
        CHECK(loss.file == segment_path(damaged.path, 1).string());
        CHECK(loss.offset < at);
        CHECK(loss.offset + loss.bytes > at);
        CHECK(loss.before_sequence - loss.after_sequence - 1 == lost.size());
        CHECK(report.records == kStreams + 1 - lost.size());
        CHECK(damaged.missing() == lost);
    }
}

TEST_CASE("what the disk cannot read is lost, named, and all around it is there") {
    Damaged damaged;
    const std::size_t at = read_file(segment_path(damaged.path, 1)).find("key-100");
    REQUIRE(at != std::string::npos);
    const std::uint64_t begin = at / kPage * kPage;
    damaged.make_unreadable(1, begin, begin + kPage);
    damaged.check_verify_names(segment_path(damaged.path, 1).string() + " is damaged at offset " +
                               std::to_string(begin) + ": the disk cannot read this page");
    const RepairReport report = damaged.repaired();
    REQUIRE(report.losses.size() == 1);
    CHECK(report.losses[0].file == segment_path(damaged.path, 1).string());
    CHECK(report.losses[0].offset <= begin);
    CHECK(report.losses[0].offset + report.losses[0].bytes >= begin + kPage);
    CHECK(report.bytes_lost < 3 * kPage);
    const std::vector<int> lost = damaged.missing();
    CHECK(std::ranges::count(lost, 100) == 1);
    CHECK(lost.size() == report.losses[0].before_sequence - report.losses[0].after_sequence - 1);
    CHECK(report.records == kStreams + 1 - lost.size());
}

TEST_CASE("of a log whose end the disk cannot read it is said that something may be lost") {
    Damaged damaged;
    const std::uint64_t end = read_file(segment_path(damaged.path, damaged.segments)).size();
    damaged.make_unreadable(damaged.segments, end - 1, end);
    const RepairReport report = damaged.repaired();
    REQUIRE(report.losses.size() == 1);
    CHECK(report.losses[0].file == segment_path(damaged.path, damaged.segments).string());
    CHECK(report.losses[0].offset + report.losses[0].bytes == end);
    (void)damaged.missing();
}

TEST_CASE("where the disk cannot read a header, what lies behind it is there") {
    Damaged damaged;
    damaged.make_unreadable(2, 0, kPage);
    const RepairReport report = damaged.repaired();
    REQUIRE(report.losses.size() == 2);
    CHECK(report.losses[0].bytes == kSegmentHeaderBytes);
    CHECK(report.losses[1].offset == kSegmentHeaderBytes);
    CHECK(report.losses[1].offset + report.losses[1].bytes >= kPage);
    CHECK(report.bytes_lost < 3 * kPage);
    CHECK(report.records == kStreams + 1 - damaged.missing().size());
}

TEST_CASE("a damaged header costs no record, not even the only one") {
    Damaged damaged;
    for (const std::size_t at : {std::size_t{3}, kSegmentStoreIdAt + 5, kSegmentChecksumAt}) {
        for (std::uint64_t segment = 1; segment <= damaged.segments; ++segment) {
            damaged.flip(segment, at);
        }
        const RepairReport report = damaged.repaired();
        for (std::uint64_t segment = 1; segment <= damaged.segments; ++segment) {
            damaged.flip(segment, at);
        }
        CHECK(report.losses.size() == damaged.segments);
        CHECK(report.records == kStreams + 1);
        CHECK(damaged.missing().empty());
    }
}

TEST_CASE("a missing segment is named, and the others are there") {
    Damaged damaged;
    std::filesystem::remove(segment_path(damaged.path, 2));
    const RepairReport report = damaged.repaired();
    REQUIRE(report.losses.size() == 1);
    CHECK(report.losses[0].file == segment_path(damaged.path, 2).string());
    const auto missing = damaged.missing();
    CHECK(missing.size() == report.losses[0].before_sequence - report.losses[0].after_sequence - 1);
    CHECK_FALSE(missing.empty());
    CHECK(missing.size() < kStreams / 2);
}

TEST_CASE("damage at the end of the log, and a log cut off anywhere") {
    Damaged damaged;
    const auto newest = segment_path(damaged.path, damaged.segments);
    const std::string bytes = read_file(newest);
    std::size_t missing = 0;
    for (std::size_t cut = bytes.size(); cut > bytes.size() * 3 / 4; cut -= bytes.size() / 40) {
        write_file(newest, bytes.substr(0, cut));
        (void)damaged.repaired();
        const std::size_t now = damaged.missing().size();
        CHECK(now >= missing);
        missing = now;
    }
    CHECK(missing > 0);
}

TEST_CASE("what is no store, and a place that is taken, are refused and left alone") {
    Damaged damaged;
    std::filesystem::create_directory(damaged.target);
    CHECK(repair(damaged.path, damaged.target).error().code == Code::invalid_argument);
    CHECK(std::filesystem::is_empty(damaged.target));
    CHECK(repair(damaged.path, damaged.path / "inside").error().code == Code::invalid_argument);
    CHECK(repair(damaged.target, damaged.dir.path() / "x").error().code == Code::invalid_argument);
    CHECK_FALSE(std::filesystem::exists(damaged.dir.path() / "x"));
    std::filesystem::create_directory(damaged.target / "log");
    write_file(segment_path(damaged.target, 1), std::string(5'000, 'x'));
    CHECK(repair(damaged.target, damaged.dir.path() / "x").error().code == Code::corruption);
}

TEST_CASE("what a repair that was killed has left is named, with the way out") {
    // Guards against a half-made store that somebody takes for a whole one.
    const Damaged damaged;
    const std::filesystem::path left = damaged.target.string() + ".partial";
    std::filesystem::create_directories(left / "log");
    const auto refused = repair(damaged.path, damaged.target);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::invalid_argument);
    CHECK(refused.error().message.find(left.string() + " already; if a repair") !=
          std::string::npos);
    CHECK(refused.error().message.find("remove it") != std::string::npos);
    CHECK(std::filesystem::exists(left / "log"));
    std::filesystem::remove_all(left);
    CHECK(repair(damaged.path, damaged.target).has_value());
}

}  // namespace
}  // namespace dedup::test
