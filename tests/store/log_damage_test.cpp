// One damaged record costs its own key. Sweeps, seals and openings go on around it, and say so.
#include <doctest/doctest.h>

#include <cerrno>
#include <string>

#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kDamagedKeys = 200;
constexpr std::int64_t kStart = 1'700'000'000'000;
constexpr std::int64_t kDay = 86'400'000;

std::string key(int i) {
    return "key-" + std::to_string(1000 + i);
}

// A store whose time stands still until it is told otherwise. Every tenth key expires after a
// second, the others after a month.
struct DamagedStore {
    DamagedStore() {
        options.clock = clock.clock();
        options.trust_clock = true;
        options.grace = std::chrono::milliseconds{0};
        options.segment_bytes = kSegmentBytesMin;
        open();
        for (int i = 0; i < kDamagedKeys; ++i) {
            append(key(i), std::string(1500, 'x'), kStart + (i % 10 == 0 ? 1'000 : 30 * kDay));
        }
        wait_until_sealed(*store);
    }

    void open() { store = must_open(path, options, env); }
    void append(const std::string& name, const std::string& receipt, std::int64_t expires_at_ms) {
        Append item{0, completed_record(name, receipt)};
        item.record.timestamp_ms = clock.now_ms();
        item.record.expires_at_ms = expires_at_ms;
        const auto results = store->append({&item, 1});
        REQUIRE_MESSAGE(results[0], (results[0] ? "" : results[0].error().message));
    }

    // Flips a bit in the receipt of a key, in the segment that has it.
    void damage(const std::string& name) {
        for (std::uint64_t id = 1; id < 10; ++id) {
            const Path file = segment_path(path, id);
            if (!std::filesystem::exists(file)) {
                continue;
            }
            const std::string bytes = read_file(file);
            const std::size_t at = bytes.find(name);
            if (at == std::string::npos) {
                continue;
            }
            std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
            out.seekp(static_cast<std::streamoff>(at + 200));
            out.put(static_cast<char>(bytes[at + 200] ^ 1));
            return;
        }
        FAIL("no segment has ", name);
    }

    // The key is in error, and all others are as they should be after `removed` are gone.
    void check_answers(const std::string& damaged) {
        for (int i = 0; i < kDamagedKeys; ++i) {
            const auto head = store->head({"test", key(i)});
            CAPTURE(key(i));
            if (key(i) == damaged) {
                REQUIRE_FALSE(head);
                CHECK(head.error().code == Code::corruption);
                CHECK(head.error().message.find("offset") != std::string::npos);
                continue;
            }
            REQUIRE_MESSAGE(head, head.error().message);
            CHECK(head->has_value() == (i % 10 != 0));
        }
    }

    void sweep_and_reopen(const std::string& damaged) {
        REQUIRE_FALSE(store->head({"test", damaged}));
        clock.set(kStart + 10'000);
        const auto report = store->sweep({});
        REQUIRE_MESSAGE(report, report.error().message);
        CHECK(report->damaged == 1);
        CHECK(report->damage.find(".log") != std::string::npos);
        CHECK(store->stats()->damaged == 1);
        CHECK(store->stats()->sweep_error == "");
        check_answers(damaged);
        for (int i = 0; i < 300; ++i) {  // segments go on being sealed
            append("more-" + std::to_string(i), std::string(1500, 'y'), kStart + 30 * kDay);
        }
        REQUIRE(store->sweep({.compact = true}));
        check_answers(damaged);
        REQUIRE(store->close());
        open();
        check_answers(damaged);
        REQUIRE_MESSAGE(store->sweep({.compact = true}), "after reopening");
        check_answers(damaged);
        REQUIRE(store->close());
        std::filesystem::remove_all(path / "catalog");  // the log is the truth, and still tells
        open();
        CHECK(store->stats()->catalog_rebuilt);
        CHECK(store->stats()->damaged == 1);
        check_answers(damaged);
        REQUIRE_MESSAGE(store->sweep({.compact = true}), "after the catalog was made anew");
        check_answers(damaged);
        REQUIRE(store->close());
        const auto verified = verify(path);
        REQUIRE(verified);
        CHECK_FALSE(verified->problems.empty());
    }

    ManualClock clock{kStart};
    OpenOptions options;
    HookedEnv env;
    TempDir dir;
    const Path path = dir.path() / "store";
    std::unique_ptr<StreamStore> store;
};

TEST_CASE("damaged record: a sweep, more appends and a reopening go on around it") {
    // Guards against a count that fails on it, after which nothing is sealed any more.
    for (const int i : {10, 11, 25, 60}) {
        CAPTURE(i);
        DamagedStore damaged;
        damaged.damage(key(i));
        damaged.sweep_and_reopen(key(i));
    }
}

TEST_CASE("damaged record: so is one in the unsealed tail, sealed later") {
    DamagedStore damaged;
    damaged.damage(key(kDamagedKeys - 1));
    damaged.sweep_and_reopen(key(kDamagedKeys - 1));
}

TEST_CASE("damaged record: it stays until its whole segment has expired, and is then counted") {
    DamagedStore damaged;
    damaged.damage(key(10));
    damaged.clock.set(kStart + 10'000);
    const auto first = damaged.store->sweep({});
    REQUIRE(first);
    CHECK(first->removed.completed == kDamagedKeys / 10 - 1);
    CHECK(first->retained.completed == kDamagedKeys - (kDamagedKeys / 10 - 1));
    damaged.clock.set(kStart + 31 * kDay);
    const auto second = damaged.store->sweep({.trust_clock = true});
    REQUIRE(second);
    CHECK(first->removed.completed + second->removed.completed == kDamagedKeys);
    CHECK(second->retained.total() == 0);
    CHECK(second->damaged == 0);
    CHECK(damaged.store->stats()->streams() == 0);
}

TEST_CASE("damaged record: a reset of the clock goes on around it, and the store opens") {
    DamagedStore damaged;
    damaged.clock.set(kStart + 365 * kDay);
    for (int i = 0; i < 100; ++i) {
        damaged.append("wrong-" + std::to_string(100 + i), std::string(1500, 'x'),
                       kStart + 366 * kDay);
    }
    wait_until_sealed(*damaged.store);
    REQUIRE(damaged.store->close());
    damaged.store.reset();
    damaged.damage(key(15));
    damaged.damage("wrong-100");
    damaged.clock.set(kStart + 10'000);
    const auto reset = reset_clock(damaged.path, damaged.options);
    REQUIRE_MESSAGE(reset, (reset ? "" : reset.error().message));
    REQUIRE(reset->has_value());
    damaged.open();
    REQUIRE(damaged.store->sweep());
    damaged.check_answers(key(15));
    for (int i = 1; i < 100; ++i) {
        const auto head = damaged.store->head({"test", "wrong-" + std::to_string(100 + i)});
        REQUIRE((head && head->has_value()));
        CHECK((*head)->timestamp_ms == kStart + 10'000);
        CHECK((*head)->expires_at_ms == kStart + 10'000 + kDay);
    }
    CHECK_FALSE(damaged.store->head({"test", "wrong-100"}));
}

TEST_CASE("damaged record: a page that the disk cannot read is damage, too") {
    DamagedStore damaged;
    const Path bad = segment_path(damaged.path, 1);
    damaged.env.read_hook = [&](const Path& path, std::uint64_t offset, std::size_t bytes) {
        return path == bad && offset + bytes > 17'000 && offset < 17'100 ? EIO : 0;
    };
    damaged.clock.set(kStart + 10'000);
    const auto report = damaged.store->sweep({});
    REQUIRE_MESSAGE(report, report.error().message);
    CHECK(report->damaged >= 1);
    for (int i = 0; i < 300; ++i) {
        damaged.append("more-" + std::to_string(i), std::string(1500, 'y'), kStart + 30 * kDay);
    }
    REQUIRE(damaged.store->close());
}

}  // namespace
}  // namespace dedup::test
