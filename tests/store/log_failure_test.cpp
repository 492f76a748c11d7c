// What a log store does when the disk says no.

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

bool is_log_file(const Path& path) {
    return path.string().find(".log") != std::string::npos;
}

Error append_error(StreamStore& store, const std::string& key,
                   const std::string& receipt = "done") {
    const Append item{0, completed_record(key, receipt)};
    const auto results = store.append({&item, 1});
    REQUIRE_FALSE(results[0]);
    return results[0].error();
}

TEST_CASE("a failed write or flush is final, and its append's outcome unknown") {
    // Guards against retrying fsync and hoping: the kernel may have dropped the pages.
    for (const std::string_view failing : {"write", "sync"}) {
        const TempDir dir;
        const auto path = dir.path() / "store";
        HookedEnv env;
        {
            const auto store = must_open(path, {}, env);
            must_append(*store, "before");
            CHECK(store->stats()->write_error.empty());
            env.hook = [&](std::string_view action, const Path& file) {
                return action == failing && is_log_file(file) ? EIO : 0;
            };
            const Error error = append_error(*store, "during");
            CHECK(error.code == Code::outcome_unknown);
            CHECK(error.os_error == EIO);
            env.hook = [](std::string_view, const Path&) { return 0; };
            // The disk is well again, and still nothing is written until the store is reopened.
            const Error later = append_error(*store, "after");
            CHECK(later.code == Code::failed);
            CHECK(later.message.find("open it again") != std::string::npos);
            CHECK(store->flush().error().code == Code::failed);
            const auto stats = store->stats();
            CHECK((stats && !stats->write_error.empty()));
            CHECK(later.message.find(stats->write_error) != std::string::npos);
            // What had been durable can still be read; what was in doubt is not shown.
            CHECK(receipt_of(*store, "before") == "done");
            CHECK(receipt_of(*store, "during") == "(absent)");
            // Whoever asks at the end is told, too, if something may be missing from the disk.
            CHECK(store->close().has_value() == (failing == "write"));
        }
        const auto store = must_open(path, {}, env);
        CHECK(receipt_of(*store, "before") == "done");
        must_append(*store, "after");
    }
}

TEST_CASE("reopening after a failed flush writes the doubtful bytes again before trusting them") {
    // Guards against the page cache: bytes that a failed flush left clean are not on the disk.
    const TempDir dir;
    const auto path = dir.path() / "store";
    HookedEnv env;
    {
        const auto store = must_open(path, {}, env);
        must_append(*store, "before");
        env.hook = [](std::string_view action, const Path& file) {
            return action == "sync" && is_log_file(file) ? EIO : 0;
        };
        CHECK(append_error(*store, "doubtful").code == Code::outcome_unknown);
    }
    std::string calls;
    env.hook = [&](std::string_view action, const Path& file) {
        if (is_log_file(file)) {
            calls += std::string(action) + " ";
        }
        return 0;
    };
    const auto store = must_open(path, {}, env);
    CHECK(calls == "truncate write sync ");
    CHECK(receipt_of(*store, "doubtful") == "done");
    // And if that fails, the store does not open.
    REQUIRE(store->close());
    env.hook = [](std::string_view action, const Path& file) {
        return action == "sync" && is_log_file(file) ? EIO : 0;
    };
    CHECK_FALSE(LogStore::open(env, path, {}));
}

TEST_CASE("a disk that is full can be swept: the store gives up its reserve for that") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    HookedEnv env;
    std::int64_t now_ms = 1'700'000'000'000;
    const auto store = must_open(path, small_segments([&] { return now_ms; }), env);
    env.hook = [&](std::string_view action, const Path&) {
        const bool needs_room = action == "reserve" || action == "create";
        return needs_room && std::filesystem::exists(path / kReserveName) ? ENOSPC : 0;
    };
    std::filesystem::rename(path / kReserveName, path / "kept");
    int appended = 0;
    for (Result<std::uint64_t> result = 0; result; ++appended) {
        if (appended == 200) {
            std::filesystem::rename(path / "kept", path / kReserveName);
        }
        Append item{0, completed_record("key-" + std::to_string(appended), std::string(900, 'r'))};
        item.record.timestamp_ms = now_ms;
        item.record.expires_at_ms = now_ms + 5'000;
        result = store->append({&item, 1})[0];
        REQUIRE((result || result.error().code == Code::out_of_space));
        REQUIRE(appended < 10'000);
    }
    wait_until_sealed(*store);
    now_ms += 10'000;
    const auto report = store->sweep();
    REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
    CHECK(report->removed.completed == static_cast<std::uint64_t>(appended) - 1);
    CHECK(report->segments_dropped > 0);
    env.hook = [](std::string_view, const Path&) { return 0; };
    must_append(*store, "key-1");
    REQUIRE(store->close());
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("a full disk refuses appends, loses nothing, and the store goes on when there is room") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    HookedEnv env;
    const auto store = must_open(path, small_segments(), env);
    const std::uint64_t first = must_append(*store, "before");
    env.hook = [](std::string_view action, const Path&) {
        return action == "reserve" || action == "create" ? ENOSPC : 0;
    };
    // Room that had been reserved is used up first, then every append is refused.
    int appended = 0;
    Error error;
    for (int i = 0; error.code != Code::out_of_space; ++i) {
        const Append item{0, completed_record("full-" + std::to_string(i), std::string(1000, 'r'))};
        const auto result = store->append({&item, 1});
        if (result[0]) {
            ++appended;
        } else {
            error = result[0].error();
        }
        REQUIRE(i < 10'000);
    }
    CHECK(error.message.find("free some space") != std::string::npos);
    CHECK(append_error(*store, "still full", std::string(1000, 'r')).code == Code::out_of_space);

    env.hook = [](std::string_view, const Path&) { return 0; };
    const std::uint64_t next = must_append(*store, "after");
    CHECK(next == first + static_cast<std::uint64_t>(appended) + 1);
    for (int i = 0; i < appended; ++i) {
        REQUIRE(receipt_of(*store, "full-" + std::to_string(i)) == std::string(1000, 'r'));
    }
    REQUIRE(store->close());
    CHECK(verify(path)->problems.empty());
    CHECK(must_open(path)->stats()->completed == static_cast<std::uint64_t>(appended) + 2);
}

TEST_CASE("a segment that cannot be created refuses appends until it can") {
    // Guards against a store that is stuck, or that forgets records, at the border of segments.
    for (const std::string_view failing : {"create", "sync_directory", "rename"}) {
        const TempDir dir;
        const auto path = dir.path() / "store";
        std::atomic<bool> fails{true};  // outlives the stores, which write as they close
        HookedEnv env;
        int appended = 0;
        {
            const auto store = must_open(path, small_segments(), env);
            env.hook = [&](std::string_view action, const Path&) {
                return fails && action == failing ? EIO : 0;
            };
            Code code = Code::invalid_argument;
            for (; code == Code::invalid_argument; ++appended) {
                const Append item{
                    0, completed_record("key-" + std::to_string(appended), std::string(500, 'r'))};
                const auto result = store->append({&item, 1});
                code = result[0] ? Code::invalid_argument : result[0].error().code;
            }
            --appended;
            REQUIRE(appended > 50);
            fails = false;
            // Once the file has its name, nobody knows what a crash would leave; else it is tried
            // again.
            const Append item{0, completed_record("later", "done")};
            const bool goes_on = store->append({&item, 1})[0].has_value();
            CHECK(goes_on == (failing != "sync_directory"));
        }
        const auto store = must_open(path, small_segments(), env);
        for (int i = 0; i < appended; ++i) {
            REQUIRE(receipt_of(*store, "key-" + std::to_string(i)) == std::string(500, 'r'));
        }
        must_append(*store, "new");
        REQUIRE(store->close());
        CHECK(verify(path)->problems.empty());
    }
}

TEST_CASE("nobody is told of a sequence that does not become durable") {
    // Guards against ABA: the loser of a race inside a group that fails would hold a sequence that
    // is assigned again, to another record of the same stream.
    const TempDir dir;
    HookedEnv env;
    const auto store = must_open(dir.path() / "store", {}, env);
    env.hook = [](std::string_view action, const Path&) {
        return action == "reserve" ? ENOSPC : 0;
    };
    const std::vector<Append> rivals = {{0, completed_record("key", "first")},
                                        {0, completed_record("key", "second")}};
    for (const auto& result : store->append(rivals)) {
        REQUIRE_FALSE(result);
        CHECK(result.error().code == Code::out_of_space);
        CHECK(result.error().head_sequence == 0);
    }
    env.hook = [](std::string_view, const Path&) { return 0; };
    CHECK(must_append(*store, "key") == 1);
}

TEST_CASE("an append costs a flush, an opening and a close none, except in a copy of the store") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    HookedEnv env;
    int files = 0;
    int directories = 0;
    const auto must_cost = [&](int files_flushed, int directories_flushed) {
        CHECK(std::exchange(files, 0) == files_flushed);
        CHECK(std::exchange(directories, 0) == directories_flushed);
    };
    {
        const auto store = must_open(path, {}, env);
        must_append(*store, "first");
        REQUIRE(store->close());
    }
    env.hook = [&](std::string_view action, const Path&) {
        files += action == "sync" ? 1 : 0;
        directories += action == "sync_directory" ? 1 : 0;
        return 0;
    };
    for (const std::string key : {"second", "third"}) {
        auto store = must_open(path, {}, env);
        must_cost(0, 0);
        must_append(*store, key);
        must_cost(1, 0);
        REQUIRE(store->close());
        must_cost(0, 0);
        store = must_open(path, {}, env);
        CHECK(receipt_of(*store, key) == "done");
        REQUIRE(store->close());
        must_cost(0, 0);
    }
    // Its names are new, whatever its log and its lock's file say.
    const auto copy = dir.path() / "copy";
    std::filesystem::copy(path, copy, std::filesystem::copy_options::recursive);
    must_open(copy, {}, env);
    CHECK(directories >= 3);
}

TEST_CASE("a close flushes a time that only reads have seen") {
    const TempDir dir;
    ManualClock clock(system_now_ms());
    OpenOptions options;
    options.clock = clock.clock();
    HookedEnv env;
    int flushes = 0;
    env.hook = [&](std::string_view action, const Path&) {
        flushes += action == "sync" ? 1 : 0;
        return 0;
    };
    const auto store = must_open(dir.path() / "store", options, env);
    must_append(*store, "key");
    flushes = 0;
    clock.advance(61'000);
    CHECK(receipt_of(*store, "key") == "done");
    REQUIRE(store->close());
    CHECK(flushes == 1);
}

TEST_CASE("an opening makes the names of the store durable, unless it is noted that they are") {
    // Guards against a store whose creation was cut short before its directories were flushed.
    const TempDir dir;
    HookedEnv env;
    must_open(dir.path() / "store", {}, env);
    for (const std::string_view name : {"store", "store/"}) {
        std::ofstream(dir.path() / "store" / "LOCK") << "1\n";  // nothing is noted
        std::vector<Path> synced;
        env.hook = [&](std::string_view action, const Path& path) {
            if (action == "sync_directory") {
                synced.push_back(std::filesystem::canonical(path));
            }
            return 0;
        };
        must_open(dir.path() / name, {}, env);
        for (const Path& needed :
             {dir.path(), dir.path() / "store", dir.path() / "store" / "log"}) {
            CHECK(std::ranges::count(synced, std::filesystem::canonical(needed)) > 0);
        }
        env.hook = [](std::string_view, const Path&) { return 0; };
    }
}

TEST_CASE("an exception ends an opening, and nothing is written to what was not recovered") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto holder = must_open(path);
    OpenOptions options;
    options.lock_timeout = std::chrono::hours{1};
    options.keeps_waiting = []() -> bool { throw std::runtime_error("enough"); };
    CHECK_THROWS_WITH((void)open(path, options), "enough");
    REQUIRE(holder->close());
    CHECK(open(path));
}

TEST_CASE("a flush that fails in the background stops an async store") {
    const TempDir dir;
    HookedEnv env;
    OpenOptions options;
    options.durability = Durability::async;
    options.flush_interval = std::chrono::milliseconds(1);
    // The hook stays as it is, since the flusher may be about to call it.
    std::atomic<bool> fails{false};
    std::atomic<bool> failed{false};
    env.hook = [&](std::string_view action, const Path& file) {
        if (fails && action == "sync" && is_log_file(file)) {
            failed = true;
            return EIO;
        }
        return 0;
    };
    const auto store = must_open(dir.path() / "store", options, env);
    must_append(*store, "before");
    fails = true;
    // Acknowledged, unless the flusher has failed for what was before.
    const Append during{0, completed_record("during", "")};
    (void)store->append({&during, 1});
    while (!failed) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    // The flusher notes the failure just after the call has returned.
    Code code = Code::invalid_argument;
    for (int i = 0; code == Code::invalid_argument; ++i) {
        const Append item{0, completed_record("after-" + std::to_string(i), "")};
        const auto result = store->append({&item, 1});
        code = result[0] ? Code::invalid_argument : result[0].error().code;
    }
    CHECK(code == Code::failed);
    // The disk is well again, but what it lost stays lost: neither call may say that all is fine.
    fails = false;
    CHECK_FALSE(store->flush());
    const auto closed = store->close();
    REQUIRE_FALSE(closed);
    const auto again = store->close();
    REQUIRE_FALSE(again);
    CHECK(again.error().message == closed.error().message);
}

TEST_CASE("every receipt size up to the limit comes back, and one byte more is refused by name") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    {
        const auto store = must_open(path, small_segments());
        for (const std::size_t bytes :
             {0UL, 1UL, 400UL, 512UL, 1024UL, 65'536UL, 1'000'000UL, kReceiptBytesMax}) {
            must_append(*store, "key-" + std::to_string(bytes), std::string(bytes, 'x'));
        }
        const Append item{0, completed_record("big", std::string(kReceiptBytesMax + 1, 'x'))};
        const auto result = store->append({&item, 1});
        REQUIRE_FALSE(result[0]);
        CHECK(result[0].error().code == Code::invalid_argument);
        CHECK(result[0].error().message.find("receipt") != std::string::npos);
    }
    const auto store = must_open(path);
    for (const std::size_t bytes :
         {0UL, 1UL, 400UL, 512UL, 1024UL, 65'536UL, 1'000'000UL, kReceiptBytesMax}) {
        CHECK(receipt_of(*store, "key-" + std::to_string(bytes)) == std::string(bytes, 'x'));
    }
}

}  // namespace
}  // namespace dedup::test
