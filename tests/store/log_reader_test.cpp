// A read-only store beside a writer that changes the log while it is being opened and followed.

#include <doctest/doctest.h>

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "repair/verify.hpp"
#include "support/child_process.hpp"
#include "support/environment.hpp"
#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

// Writes the stream "counter" anew, and keys that expire, until the newest segment is `segment`.
class Rounds {
  public:
    Rounds(StreamStore& store, const ManualClock& clock) : store_(store), clock_(clock) {}

    void run_into(std::uint64_t segment) {
        std::uint64_t newest = 0;
        while (newest < segment) {
            ++round_;
            Record counter = completed_record("counter", std::to_string(round_));
            Record brief =
                completed_record("brief-" + counter.receipt.value(), std::string(9'000, '.'));
            counter.timestamp_ms = brief.timestamp_ms = clock_.now_ms();
            brief.expires_at_ms = clock_.now_ms() + 1;
            const std::vector<Append> batch = {{sequence_, counter}, {0, brief}};
            const auto results = store_.append(batch);
            REQUIRE(results[0]);
            REQUIRE(results[1]);
            sequence_ = *results[0];
            newest = store_.history({"test", "counter"})->back().segment;
        }
    }
    [[nodiscard]] std::string last() const { return std::to_string(round_); }

  private:
    StreamStore& store_;
    const ManualClock& clock_;
    std::uint64_t sequence_ = 0;
    int round_ = 0;
};

TEST_CASE("a reader that opens while the newest segment and its successor are dropped goes on") {
    // What it has read as the newest is dropped before it takes its snapshot of the catalog, and so
    // is the one behind; both files are still there when it looks whether its own is, and gone
    // afterwards. It must look for those that came later.
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto first = segment_path(path, 1);
    const auto second = segment_path(path, 2);
    const ManualClock clock;
    const auto writer = must_open(path, small_segments(clock.clock()));
    Rounds rounds(*writer, clock);
    rounds.run_into(1);
    HookedEnv env;
    bool swept = false;
    bool removed = false;
    LogStoreInternals internals;
    internals.pause = [&] {
        if (swept) {
            return;
        }
        swept = true;
        rounds.run_into(3);
        for (const auto& segment : {first, second}) {
            std::filesystem::create_hard_link(segment, segment.string() + "-kept");
        }
        ManualClock(clock).advance(kDefaultGrace.count() + 10);
        const auto report = writer->sweep();
        REQUIRE(report);
        REQUIRE(report->segments_dropped == 2);
        for (const auto& segment : {first, second}) {
            std::filesystem::rename(segment.string() + "-kept", segment);
        }
    };
    env.hook = [&](std::string_view action, const Path& file) {
        if (action == "sync" && file == first && swept && !removed) {
            removed = true;
            std::filesystem::remove(first);
            std::filesystem::remove(second);
        }
        return 0;
    };
    OpenOptions options = read_only();
    options.clock = clock.clock();
    const auto reader = must_open(path, options, env, internals);
    CHECK(swept);
    CHECK(removed);
    CHECK(receipt_of(*reader, "counter") == rounds.last());
}

TEST_CASE("a segment that hides an older record goes together with it, for readers too") {
    // Between the reader's look at the catalog and its look at the log, a sweep drops both. With
    // the log's state and the catalog's from before, a claim would be there again that has been
    // completed.
    const TempDir dir;
    const auto path = dir.path() / "store";
    ManualClock clock(1'700'000'000'000);
    const auto writer = must_open(path, small_segments(clock.clock()));
    auto fill_segment = [&, number = 0]() mutable {
        const std::uint64_t sealed = writer->stats()->segments_sealed;
        while (writer->stats()->segments_sealed == sealed) {
            Append item{
                0, completed_record("fill-" + std::to_string(++number), std::string(5'000, '.'))};
            item.record.timestamp_ms = clock.now_ms();
            item.record.expires_at_ms = clock.now_ms() + 1;
            REQUIRE(writer->append({&item, 1})[0]);
            wait_until_sealed(*writer);
        }
    };
    Append claim{0, completed_record("payment", "")};
    claim.record.receipt.reset();
    claim.record.timestamp_ms = clock.now_ms();
    claim.record.expires_at_ms = clock.now_ms() + 86'400'000;
    const auto claimed = writer->append({&claim, 1});
    REQUIRE(claimed[0]);
    fill_segment();
    Append receipt{*claimed[0], completed_record("payment", "paid")};
    receipt.record.timestamp_ms = clock.now_ms();
    receipt.record.expires_at_ms = clock.now_ms() + 1'000;
    REQUIRE(writer->append({&receipt, 1})[0]);
    HookedEnv env;
    OpenOptions options = read_only();
    options.clock = clock.clock();
    const auto reader = must_open(path, options, env);
    CHECK(receipt_of(*reader, "payment") == "paid");
    clock.advance(3'600'000);
    bool swept = false;
    env.read_hook = [&](const Path& file, std::uint64_t, std::size_t) {
        if (file == segment_path(path, 2) && !swept) {
            swept = true;
            fill_segment();
            clock.advance(5'000);
            const auto report = writer->sweep();
            REQUIRE(report);
            REQUIRE(report->segments_dropped == 2);
        }
        return 0;
    };
    CHECK(receipt_of(*reader, "payment") == "(absent)");
    CHECK(swept);
    CHECK(receipt_of(*reader, "payment") == "(absent)");
}

// Reads "key-0" to "key-<keys - 1>", statistics and sweeps. 0 if all is right.
int read_all(const std::filesystem::path& path, int keys) {
    const auto store = LogStore::open(path, read_only());
    if (!store) {
        return 1;
    }
    for (int i = 0; i < keys; ++i) {
        const auto head = (*store)->head({"test", "key-" + std::to_string(i)});
        if (!head || !*head || (*head)->receipt != "receipt-" + std::to_string(i)) {
            return 2;
        }
    }
    const auto stats = (*store)->stats();
    return stats && stats->completed == static_cast<std::uint64_t>(keys) &&
                   (*store)->sweep_history() && verify(**store)->problems.empty()
               ? 0
               : 3;
}

TEST_CASE("whoever may read the files may read the store, beside its writer and after it") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::filesystem::permissions(dir.path(), std::filesystem::perms(0755));
    OpenOptions options = small_segments();
    options.permissions = std::filesystem::perms(0755);
    auto opened = LogStore::open(path, options);
    REQUIRE(opened);
    const std::unique_ptr<StreamStore> writer = *std::move(opened);
    fill(*writer, "key-", 2'000);
    wait_until_sealed(*writer);
    const auto read_as_nobody = [&] {
        return exit_code(in_child([&] {
            if (::getuid() == 0 && (::setgid(65'534) != 0 || ::setuid(65'534) != 0)) {
                return 10;
            }
            return read_all(path, 2'000);
        }));
    };
    CHECK(read_as_nobody() == 0);
    REQUIRE(writer->close());
    CHECK(read_as_nobody() == 0);
}

TEST_CASE("a store on a mount that is read-only is read") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, 2'000);
    const int outcome = exit_code(in_child([&] {
        const char* const place = path.c_str();
        if (::unshare(CLONE_NEWNS) != 0 ||
            ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount(place, place, nullptr, MS_BIND, nullptr) != 0 ||
            ::mount(nullptr, place, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
            return 77;
        }
        return ::access(place, W_OK) == 0 ? 10 : read_all(path, 2'000);
    }));
    if (outcome == 77) {
        MESSAGE("this may not mount: nothing to try");
    } else {
        CHECK(outcome == 0);
    }
}

TEST_CASE("hundreds of processes read at once, and one that is killed leaves nothing behind") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, 500);
    const auto readers_max = static_cast<int>(number_from_environment("DEDUP_READERS", 100));
    const Shared<std::atomic<int>> open_now;
    std::vector<pid_t> readers;
    for (int i = 0; i < readers_max; ++i) {
        readers.push_back(in_child([&] {
            const auto store = LogStore::open(path, read_only());
            const bool right = store && receipt_of(**store, "key-7") == "receipt-7";
            open_now->fetch_add(right ? 1 : readers_max);
            ::pause();
            return 0;
        }));
    }
    while (*open_now < readers_max) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    CHECK(*open_now == readers_max);
    for (const pid_t reader : readers) {
        ::kill(reader, SIGKILL);
        ::waitpid(reader, nullptr, 0);
    }
    CHECK(read_all(path, 500) == 0);
}

TEST_CASE("a reader whose catalog is made anew says so, and goes on when it is opened again") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, 2'000);
    const auto reader = must_open(path, read_only());
    CHECK(receipt_of(*reader, "key-1") == "receipt-1");
    const auto other_reader = must_open(path, read_only());
    // (Moved away it still has a name.)
    std::filesystem::rename(path / "catalog", dir.path() / "catalog");
    auto writer = must_open(path, small_segments());
    const auto head = reader->head({"test", "key-1"});
    REQUIRE_FALSE(head);
    CHECK(head.error().message.find("open the store again") != std::string::npos);
    REQUIRE(writer->close());
    std::filesystem::remove_all(path / "catalog");
    writer = must_open(path, small_segments());
    CHECK(other_reader->stats().error().message.find("open the store again") != std::string::npos);
    CHECK(receipt_of(*must_open(path, read_only()), "key-1") == "receipt-1");
}

}  // namespace
}  // namespace dedup::test
