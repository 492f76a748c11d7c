// Copies of a store: what they have, what they share, what is left when making one fails, and that
// a store which was put back never gives a sequence again.

#include "backup/backup.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <thread>

#include "dedup/cache.hpp"
#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

const TempDir directory(fast_directory());

// Each of a test case.
struct Paths {
    Paths() {
        static int number = 0;
        const fs::path own = directory.path() / std::to_string(++number);
        fs::create_directory(own);
        store = own / "store";
        copy = own / "copy";
        back = own / "back";
    }
    fs::path store;
    fs::path copy;
    fs::path back;
    fs::path partial() const { return copy.string() + ".partial"; }
};

BackupReport must_back_up(const Paths& paths, bool link = false) {
    const auto report = backup(paths.store, paths.copy, {.link = link});
    REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
    const auto verified = verify(paths.copy);
    REQUIRE(verified);
    REQUIRE(verified->problems.empty());
    return *report;
}

RestoreReport must_restore(const Paths& paths, bool raise = true) {
    const auto report = restore(paths.copy, paths.back, {.raise = raise});
    REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
    return *report;
}

ino_t inode_of(const fs::path& path) {
    struct stat status {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_ino;
}

std::uint64_t keys_in(const fs::path& path) {
    return must_open(path, read_only())->stats()->streams();
}

TEST_CASE("a copy has all that was acknowledged before, and is a store itself") {
    const Paths paths;
    const auto store = must_open(paths.store, small_segments());
    fill(*store, "key-", 3000);
    const BackupReport report = must_back_up(paths);
    CHECK(report.keys == 3000);
    CHECK(report.last_sequence == store->stats()->last_sequence);
    CHECK(report.store_id == store->stats()->store_id);
    CHECK(report.segments > 3);
    CHECK(report.bytes_copied > 100'000);
    CHECK(report.bytes_linked == 0);
    must_append(*store, "later");

    const auto copy = must_open(paths.copy);
    CHECK_FALSE(copy->stats()->catalog_rebuilt);
    CHECK(receipt_of(*copy, "key-0") == "receipt-0");
    CHECK(receipt_of(*copy, "key-2999") == "receipt-2999");
    CHECK(receipt_of(*copy, "later") == "(absent)");
    CHECK_FALSE(fs::exists(paths.partial()));
}

TEST_CASE("a copy of a store that nobody has open, of an empty one, and of a copy") {
    const Paths paths;
    must_open(paths.store)->close().value();
    CHECK(must_back_up(paths).keys == 0);
    const auto again = backup(paths.copy, paths.back);
    REQUIRE(again);
    CHECK(must_open(paths.back)->stats()->streams() == 0);
}

TEST_CASE("an older copy is replaced, and shares what has not changed") {
    const Paths paths;
    const auto store = must_open(paths.store, small_segments());
    fill(*store, "key-", 3000);
    wait_until_sealed(*store);
    const BackupReport first = must_back_up(paths);
    const ino_t shared = inode_of(segment_path(paths.copy, 1));
    const auto reader = must_open(paths.copy, read_only());

    fill(*store, "more-", 1000);
    const BackupReport second = must_back_up(paths);
    CHECK(second.keys == 4000);
    CHECK(second.bytes_linked > first.bytes_copied / 2);
    CHECK(second.bytes_copied < first.bytes_copied);
    CHECK(inode_of(segment_path(paths.copy, 1)) == shared);
    CHECK(inode_of(segment_path(paths.copy, 1)) != inode_of(segment_path(paths.store, 1)));
    CHECK(reader->head({"test", "key-2999"}).error().code ==
          Code::failed);  // is to be opened again
    CHECK_FALSE(fs::exists(paths.partial()));

    // Going on in the copy leaves what it shares as it was.
    fill(*must_open(paths.copy, small_segments()), "other-", 1000);
    CHECK(keys_in(paths.store) == 4000);
    CHECK(verify(paths.store)->problems.empty());
    // And what has become of it since is not taken for the store's, if somebody calls it a copy.
    REQUIRE_FALSE(backup(paths.store, paths.copy));
    write_file(paths.copy / "COPY", "");
    fill(*store, "third-", 1000);
    wait_until_sealed(*store);
    CHECK(must_back_up(paths).keys == 5000);
    const auto copy = must_open(paths.copy, read_only());
    for (const std::string number : {"0", "500", "999"}) {
        CHECK(receipt_of(*copy, "third-" + number) == "receipt-" + number);
        CHECK(receipt_of(*copy, "other-" + number) == "(absent)");
    }
}

TEST_CASE("with links, sealed segments are those of the store, and stay when it sweeps them") {
    const Paths paths;
    std::int64_t now = system_now_ms();
    const auto store = must_open(paths.store, small_segments([&] { return now; }));
    fill(*store, "key-", 3000, now, now + 1000);
    wait_until_sealed(*store);
    const BackupReport report = must_back_up(paths, true);
    CHECK(report.bytes_linked > report.bytes_copied);
    CHECK(inode_of(segment_path(paths.copy, 1)) == inode_of(segment_path(paths.store, 1)));

    now += 7 * 86'400'000LL;
    REQUIRE(store->sweep()->removed.total() == 3000);
    CHECK_FALSE(fs::exists(segment_path(paths.store, 1)));
    CHECK(verify(paths.copy)->problems.empty());
    CHECK(keys_in(paths.copy) == 3000);
    // And the next copy has them no more.
    CHECK(must_back_up(paths, true).keys == 0);
    CHECK_FALSE(fs::exists(segment_path(paths.copy, 1)));
}

TEST_CASE("beside appends and sweeps, each copy is what the store was at one moment") {
    const Paths paths;
    std::atomic<std::int64_t> now = system_now_ms();
    const auto store = must_open(paths.store, small_segments([&] { return now.load(); }));
    std::atomic<std::uint64_t> acknowledged = 0;
    std::atomic<bool> stop = false;
    std::jthread writer([&] {
        for (int round = 0; !stop; ++round) {
            // One stream counts, whose head says how far the others are.
            fill(*store, std::to_string(round) + "-", 100, now, now + 1000);
            acknowledged = must_append(*store, "at-" + std::to_string(round));
            if (round % 20 == 19) {
                now += 7 * 86'400'000LL;
                REQUIRE(store->sweep({.compact = true}));
            }
        }
    });
    for (int i = 0; i < 12; ++i) {
        const std::uint64_t before = acknowledged;
        const BackupReport report = must_back_up(paths, i % 2 == 0);
        CHECK(report.last_sequence >= before);
        const auto copy = must_open(paths.copy, read_only());
        std::uint64_t newest = 0;
        ScanOptions scan;
        do {
            const auto page = copy->scan(scan);
            REQUIRE(page);
            for (const Version& head : page->heads) {
                newest = std::max(newest, head.record.sequence);
            }
            scan.cursor = page->cursor;
        } while (!scan.cursor.empty());
        CHECK(newest >= before);
    }
    stop = true;
}

TEST_CASE("whatever fails, the older copy stays as it was") {
    const Paths paths;
    const auto store = must_open(paths.store, small_segments());
    fill(*store, "key-", 1000);
    must_back_up(paths);
    fs::copy(paths.copy, paths.back, fs::copy_options::recursive);
    fill(*store, "more-", 1000);
    HookedEnv env;
    int calls = 0;
    for (int fail_at = 1;; ++fail_at) {
        calls = 0;
        env.hook = [&](std::string_view, const Path&) { return ++calls == fail_at ? ENOSPC : 0; };
        const auto report = backup(env, paths.store, paths.copy, {}, {});
        if (report && calls < fail_at) {
            break;
        }
        INFO(fail_at);
        REQUIRE(verify(paths.copy)->problems.empty());
        const std::uint64_t keys = keys_in(paths.copy);
        REQUIRE((keys == 2000 || (keys == 1000 && !report)));
        if (keys == 2000) {  // what it could do without failed, or what comes after the name
            fs::remove_all(paths.copy);
            fs::copy(paths.back, paths.copy, fs::copy_options::recursive);
        }
    }
    CHECK(calls > 5);
}

TEST_CASE("the rest of a copy that was cut short is removed, and nothing else") {
    const Paths paths;
    fill(*must_open(paths.store, small_segments()), "key-", 500);
    must_back_up(paths);
    const auto cut_short = [&](const fs::path& left) {
        fs::rename(paths.copy, left);
        write_file(segment_path(left, 1), "half");
    };
    cut_short(paths.partial());
    must_back_up(paths);
    CHECK_FALSE(fs::exists(paths.partial()));
    fs::create_directories(paths.partial());  // it had not come further
    must_back_up(paths);
    CHECK_FALSE(fs::exists(paths.partial()));

    // A store of that name is none, and neither is what a copy is made of.
    fs::rename(paths.store, paths.partial());
    CHECK_FALSE(backup(paths.partial(), paths.copy));
    const auto from_partial = restore(paths.partial(), paths.copy);
    CHECK_FALSE(from_partial);
    CHECK(keys_in(paths.partial()) == 500);
    must_append(*must_open(paths.store), "of another store");
    CHECK_FALSE(backup(paths.store, paths.back.string() + "/../copy"));
    CHECK(keys_in(paths.partial()) == 500);
    fs::remove_all(paths.store);
    fs::rename(paths.partial(), paths.store);

    fs::create_directories(paths.partial());
    write_file(paths.partial() / "letters", "dear");
    const auto refused = backup(paths.store, paths.copy);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::invalid_argument);
    CHECK(read_file(paths.partial() / "letters") == "dear");
}

TEST_CASE("what is not finished is no store, whatever its name is") {
    // Guards against a part of a copy that is put back, or served, as if it were all of it.
    const Paths paths;
    fill(*must_open(paths.store), "key-", 500);
    must_back_up(paths);
    fs::rename(paths.copy / "COPY", paths.copy / "PARTIAL");
    const auto refused = [](const auto& result) {
        REQUIRE_FALSE(result);
        CHECK(result.error().code == Code::invalid_argument);
        CHECK(result.error().message.find("was not finished") != std::string::npos);
    };
    refused(LogStore::open(paths.copy, {}));
    refused(LogStore::open(paths.copy, read_only()));
    refused(verify(paths.copy));
    refused(restore(paths.copy, paths.back));
    CHECK_FALSE(backup(paths.store, paths.copy));  // it may be somebody's, at that name
    fs::rename(paths.copy / "PARTIAL", paths.copy / "COPY");

    // As a crash leaves what is put back, at the last step.
    must_restore(paths);
    write_file(paths.back / "PARTIAL", "");
    refused(LogStore::open(paths.back, {}));
    write_file(paths.back / "letters", "dear");  // which nobody removes
    CHECK_FALSE(restore(paths.copy, paths.back));
    CHECK(read_file(paths.back / "letters") == "dear");
    fs::remove(paths.back / "letters");
    must_restore(paths);
    CHECK(keys_in(paths.back) == 500);
    CHECK_FALSE(fs::exists(paths.back / "COPY"));
}

TEST_CASE("what is no copy of this store is not replaced") {
    const Paths paths;
    must_append(*must_open(paths.store), "key");
    const auto refused = [&](const fs::path& target, Code code = Code::invalid_argument) {
        const auto report = backup(paths.store, target);
        REQUIRE_FALSE(report);
        CHECK(report.error().code == code);
        return report.error().message;
    };
    must_append(*must_open(paths.copy), "of another store");
    CHECK(refused(paths.copy).find("no copy of this store") != std::string::npos);
    CHECK(keys_in(paths.copy) == 1);
    fs::create_directory(paths.back);
    write_file(paths.back / "letters", "dear");
    refused(paths.back);
    refused(paths.back / "letters");
    CHECK(read_file(paths.back / "letters") == "dear");
    refused(paths.store);
    refused(paths.store / "copy");
    CHECK(backup(paths.store / "none", paths.copy).error().code == Code::invalid_argument);
    refused(paths.back / "none" / "copy", Code::io);
}

TEST_CASE("a store is not replaced by its copy, also if nobody has it open") {
    const Paths paths;
    must_append(*must_open(paths.store), "key");
    must_back_up(paths);
    must_append(*must_open(paths.store), "later");
    CHECK(backup(paths.copy, paths.store).error().code == Code::invalid_argument);
    CHECK(keys_in(paths.store) == 2);
    // Nor one that was put back from it.
    must_restore(paths);
    CHECK(backup(paths.store, paths.back).error().code == Code::invalid_argument);
    CHECK(keys_in(paths.back) == 1);
}

TEST_CASE("an older copy that is damaged is not shared") {
    const Paths paths;
    const auto store = must_open(paths.store, small_segments());
    fill(*store, "key-", 8000);
    wait_until_sealed(*store);
    must_back_up(paths);
    for (std::uint64_t segment = 1; segment <= 3; ++segment) {
        std::string bytes = read_file(segment_path(paths.copy, segment));
        bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
        write_file(segment_path(paths.copy, segment), bytes);
    }
    CHECK(must_back_up(paths).keys == 8000);
}

TEST_CASE("of two copies to one place that are made at once each is whole, or says busy") {
    const Paths paths;
    const auto store = must_open(paths.store, small_segments());
    fill(*store, "key-", 3000);
    must_back_up(paths);
    std::atomic<int> made = 0;
    {
        std::vector<std::jthread> makers;
        for (int i = 0; i < 3; ++i) {
            makers.emplace_back([&] {
                for (int round = 0; round < 8; ++round) {
                    made += backup(paths.store, paths.copy) ? 1 : 0;
                }
            });
        }
    }
    CHECK(made > 0);
    CHECK(verify(paths.copy)->problems.empty());
    CHECK(keys_in(paths.copy) == 3000);
    CHECK(must_back_up(paths).keys == 3000);
}

TEST_CASE("a copy that was left between two names is found by whoever restores it") {
    const Paths paths;
    fill(*must_open(paths.store), "key-", 5);
    must_back_up(paths);
    const fs::path older = paths.copy.string() + ".older";
    fs::rename(paths.copy, older);
    const auto missed = restore(paths.copy, paths.back);
    REQUIRE_FALSE(missed);
    CHECK(missed.error().message.find(older.string()) != std::string::npos);
    CHECK(restore(older, paths.back));
}

TEST_CASE("what was left between two names is put right") {
    const Paths paths;
    fill(*must_open(paths.store), "key-", 500);
    must_back_up(paths);
    const fs::path older = paths.copy.string() + ".older";
    fs::rename(paths.copy, older);
    CHECK(must_back_up(paths).keys == 500);
    CHECK_FALSE(fs::exists(older));
    fs::copy(paths.copy, older, fs::copy_options::recursive);
    must_back_up(paths);
    CHECK_FALSE(fs::exists(older));
}

TEST_CASE("a copy that somebody writes to is not replaced") {
    const Paths paths;
    must_append(*must_open(paths.store), "key");
    must_back_up(paths);
    auto writer = must_open(paths.copy);
    must_append(*writer, "still there");
    // Nor later: it has become a store, as one that was put back by `cp`.
    for (const bool closed : {false, true}) {
        const auto refused = backup(paths.store, paths.copy);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Code::invalid_argument);
        CHECK(refused.error().message.find("no copy of this store") != std::string::npos);
        if (!closed) {
            writer.reset();
        }
    }
    CHECK(receipt_of(*must_open(paths.copy), "still there") == "done");
}

TEST_CASE("a damaged store makes no copy, and the older one stays") {
    const Paths paths;
    {
        const auto store = must_open(paths.store, small_segments());
        fill(*store, "key-", 2000);
        wait_until_sealed(*store);
    }
    must_back_up(paths);
    const fs::path segment = segment_path(paths.store, 2);
    std::string bytes = read_file(segment);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write_file(segment, bytes);
    fs::remove(segment_path(paths.copy, 2));  // or the copy's, which is well, would be shared
    const auto refused = backup(paths.store, paths.copy);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::corruption);
    CHECK(fs::exists(segment_path(paths.copy, 3)));
    CHECK_FALSE(fs::exists(paths.partial()));
}

TEST_CASE("claims from after the copy are dead in a store that was put back, and say why") {
    const Paths paths;
    const auto store = must_open(paths.store);
    Cache cache(*store);
    const auto claim = [](Cache& at, std::string_view key, ClaimOptions options = {}) {
        auto outcome = at.claim(key, options);
        REQUIRE(outcome);
        REQUIRE(std::holds_alternative<Claimed>(*outcome));
        return std::get<Claimed>(*outcome).claim;
    };
    const Claim before = claim(cache, "before");
    const Claim first = claim(cache, "order-7");
    must_back_up(paths);
    REQUIRE(cache.release(first));
    const Claim after = claim(cache, "order-7");
    const Claim unknown = claim(cache, "order-8");
    const std::uint64_t last = store->stats()->last_sequence;

    CHECK(must_restore(paths).next_sequence > last + 1'000'000);
    const auto back = must_open(paths.back);
    Cache restored(*back);
    CHECK(restored.complete(before, "done"));
    const auto stale = restored.complete(after, "done");
    REQUIRE_FALSE(stale);
    CHECK(stale.error().code == Code::stale_claim);
    CHECK(stale.error().message.find("put back from a copy") != std::string::npos);
    const auto never = restored.complete(unknown, "done");
    REQUIRE_FALSE(never);
    CHECK(never.error().code == Code::stale_claim);
    CHECK(never.error().message.find("put back from a copy") != std::string::npos);
    // The same sequence is not assigned to somebody else, whom that claim would then pass for.
    CHECK(claim(restored, "order-8").claim_sequence > last);
    CHECK(restored.complete(unknown, "done").error().code == Code::stale_claim);
}

TEST_CASE("two stores that were put back from one copy assign different sequences") {
    const Paths paths;
    must_append(*must_open(paths.store), "key");
    must_back_up(paths);
    const std::uint64_t one = must_restore(paths).next_sequence;
    std::uint64_t first = 0;
    {
        const auto store = must_open(paths.back);
        first = must_append(*store, "first");
        CHECK(first >= one);
    }
    fs::remove_all(paths.back);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(must_restore(paths).next_sequence > first);
}

TEST_CASE(
    "sequences from after the copy do not come again, also if the clock is behind the store") {
    const Paths paths;
    {
        auto store = LogStore::open(posix_env(), paths.store, {});
        REQUIRE(store);
        LogWriter& writer = (*store)->engine().writer;
        REQUIRE(writer.alone([&](const Turn& turn) -> Result<void> {
            const std::uint64_t ahead = std::uint64_t{1} << 52;  // of the clock, by a century
            REQUIRE(writer.write_mark(turn, ahead));
            writer.set_next_sequence(turn, ahead + 1);
            return {};
        }));
        must_append(**store, "key");
    }
    must_back_up(paths);
    std::uint64_t last = 0;
    {
        const auto store = must_open(paths.store);
        for (int i = 0; i < 100; ++i) {
            last = must_append(*store, "later-" + std::to_string(i));
        }
    }
    const std::uint64_t one = must_restore(paths).next_sequence;
    CHECK(one > last + (std::uint64_t{1} << 39));
    fs::remove_all(paths.back);
    const std::uint64_t other = must_restore(paths).next_sequence;
    CHECK((one > other ? one - other : other - one) > 100);
}

TEST_CASE("a store can be put back as it was, and only where nothing is") {
    const Paths paths;
    std::uint64_t last = 0;
    {
        const auto store = must_open(paths.store);
        must_append(*store, "key");
        last = store->stats()->last_sequence;
    }
    must_back_up(paths);
    CHECK(must_restore(paths, false).next_sequence == last + 1);
    CHECK(must_append(*must_open(paths.back), "next") == last + 1);
    const auto refused = restore(paths.copy, paths.back);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::invalid_argument);
    CHECK(keys_in(paths.back) == 2);
    CHECK(restore(paths.store / "none", paths.copy).error().code == Code::invalid_argument);
}

}  // namespace
}  // namespace dedup::test
