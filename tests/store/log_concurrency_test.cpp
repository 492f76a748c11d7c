// A log store under many threads, while segments are sealed below them.

#include <doctest/doctest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

TEST_CASE("one append wins each expected sequence, however many threads race over seals") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    constexpr int kThreads = 8;
    constexpr int kStreams = 50;
    constexpr int kRounds = 40;
    std::atomic<int> wins{0};
    std::atomic<int> odd_errors{0};
    {
        const auto store = must_open(path, small_segments());
        std::vector<std::thread> threads;
        for (int thread = 0; thread < kThreads; ++thread) {
            threads.emplace_back([&, thread] {
                for (int round = 0; round < kRounds; ++round) {
                    for (int stream = 0; stream < kStreams; ++stream) {
                        const std::string key = "stream-" + std::to_string(stream);
                        const auto head = store->head({"test", key});
                        const std::uint64_t expected =
                            head && *head ? (*head)->sequence : std::uint64_t{0};
                        const Append item{expected, completed_record(key, std::to_string(thread))};
                        const auto result = store->append({&item, 1});
                        if (result[0]) {
                            ++wins;
                        } else if (result[0].error().code != Code::sequence_conflict ||
                                   result[0].error().head_sequence <= expected) {
                            ++odd_errors;
                        }
                    }
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        CHECK(odd_errors == 0);
        int records = 0;
        for (int stream = 0; stream < kStreams; ++stream) {
            const std::string name = "stream-" + std::to_string(stream);
            const auto history = store->history({"test", name});
            REQUIRE(history);
            for (std::size_t i = 1; i < history->size(); ++i) {
                REQUIRE((*history)[i - 1].record.sequence < (*history)[i].record.sequence);
            }
            records += static_cast<int>(history->size());
        }
        // Every win is in exactly one history.
        CHECK(records == wins);
        CHECK(store->stats()->records == static_cast<std::uint64_t>(wins));
        CHECK(store->stats()->last_sequence == static_cast<std::uint64_t>(wins));
        CHECK(store->stats()->completed == kStreams);
    }
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("readers see every acknowledged append, in this store and in a read-only one beside it") {
    // Guards visibility: over seals, over catalog changes, and from a second opening.
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto store = must_open(path, small_segments());
    const auto reader = must_open(path, read_only());
    std::atomic<int> written{0};
    std::atomic<int> wrong{0};
    constexpr int kKeys = 4000;
    const auto read = [&](StreamStore& from) {
        std::minstd_rand random(1);
        while (written < kKeys) {
            const int until = written;
            if (until == 0) {
                continue;
            }
            const std::string i = std::to_string(static_cast<int>(random()) % until);
            const std::string name = "key-" + i;
            const auto head = from.head({"test", name});
            wrong += !head || !*head || (*head)->receipt != "receipt-" + i;
        }
    };
    std::thread here(read, std::ref(*store));
    std::thread beside(read, std::ref(*reader));
    for (int i = 0; i < kKeys; ++i) {
        must_append(*store, "key-" + std::to_string(i), "receipt-" + std::to_string(i));
        ++written;
    }
    here.join();
    beside.join();
    CHECK(wrong == 0);
    CHECK(store->stats()->segments_sealed > 2);
    check_filled(*reader, kKeys);
    CHECK(reader->stats()->completed == kKeys);
    const Append item{0, completed_record("key", "")};
    CHECK(reader->append({&item, 1})[0].error().code == Code::read_only);
}

TEST_CASE("streams whose hashes collide live side by side, in memory and sealed") {
    // Guards "never a false duplicate": all ids are cut to four bits, so nearly all collide.
    const TempDir dir;
    const auto path = dir.path() / "store";
    LogStoreInternals internals;
    internals.id_mask = 0xf;
    std::map<std::string, std::pair<std::uint64_t, std::string>> model;
    std::minstd_rand random(7);
    for (int reopen = 0; reopen < 3; ++reopen) {
        const auto store = must_open(path, small_segments(), posix_env(), internals);
        for (int i = 0; i < 600; ++i) {
            const std::string key = "key-" + std::to_string(random() % 150);
            const bool known = model.contains(key);
            const std::uint64_t sequence = known ? model[key].first : 0;
            const std::string next = std::to_string(random()) + std::string(200, 'x');
            const bool stale = random() % 4 == 0;
            const Append item{stale ? sequence + 1'000'000 : sequence, completed_record(key, next)};
            const auto result = store->append({&item, 1});
            INFO(key, ": ", result[0] ? "" : result[0].error().message);
            REQUIRE(result[0].has_value() == !stale);
            if (stale) {
                REQUIRE(result[0].error().head_sequence == sequence);
            } else {
                model[key] = {*result[0], next};
            }
        }
        std::vector<std::string> keys;
        for (int i = 0; i < 300; ++i) {  // about half of them absent
            keys.push_back("key-" + std::to_string(i));
        }
        check_heads_together(*store, keys);
        for (const auto& [key, expected] : model) {
            REQUIRE(receipt_of(*store, key) == expected.second);
        }
        CHECK(store->stats()->completed == model.size());
        std::size_t scanned = 0;
        ScanOptions options;
        options.heads_max = 7;
        do {
            const auto page = store->scan(options);
            REQUIRE(page);
            for (const Version& version : page->heads) {
                REQUIRE(version.record.sequence == model[version.record.key].first);
            }
            scanned += page->heads.size();
            options.cursor = page->cursor;
        } while (!options.cursor.empty());
        CHECK(scanned == model.size());
    }
}

TEST_CASE("a catalog that outgrows its map grows under readers and writers") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    LogStoreInternals internals;
    internals.catalog_map_bytes = 128 * 1024;
    const auto store = must_open(path, small_segments(), posix_env(), internals);
    std::atomic<bool> done{false};
    std::atomic<int> wrong{0};
    std::thread reader([&] {
        while (!done) {
            const auto head = store->head({"test", "key-0"});
            wrong += !head;
        }
    });
    constexpr int kKeys = 8000;
    for (int i = 0; i < kKeys; i += 50) {
        std::vector<Append> batch;
        for (int j = i; j < i + 50; ++j) {
            const std::string number = std::to_string(j);
            batch.push_back({0, completed_record("key-" + number, "receipt-" + number)});
            // Of each namespace the catalog has numbers.
            batch.back().record.ns = j % 2 == 0 ? "test" : number + std::string(240, 'n');
        }
        for (const auto& result : store->append(batch)) {
            REQUIRE(result);
        }
    }
    done = true;
    reader.join();
    CHECK(wrong == 0);
    wait_until_sealed(*store);
    CHECK(std::filesystem::file_size(path / "catalog" / "data.mdb") > 256 * 1024);
    for (int i = 0; i < kKeys; i += 2) {
        REQUIRE(receipt_of(*store, "key-" + std::to_string(i)) == "receipt-" + std::to_string(i));
    }
}

TEST_CASE("closing while others append answers every one of them") {
    // Guards against a caller that waits for ever in a queue that nobody leads any more.
    for (int round = 0; round < 20; ++round) {
        const TempDir dir;
        const auto path = dir.path() / "store";
        std::map<std::string, bool> acknowledged;
        std::mutex mutex;
        {
            const auto store = must_open(path);
            std::vector<std::thread> threads;
            for (int thread = 0; thread < 6; ++thread) {
                threads.emplace_back([&, thread] {
                    for (int i = 0;; ++i) {
                        const std::string key = std::to_string(thread) + "-" + std::to_string(i);
                        const Append item{0, completed_record(key, "done")};
                        const auto result = store->append({&item, 1});
                        if (!result[0]) {
                            CHECK(result[0].error().code == Code::closed);
                            return;
                        }
                        const std::lock_guard lock(mutex);
                        acknowledged[key] = true;
                    }
                });
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(round));
            CHECK(store->close());
            for (std::thread& thread : threads) {
                thread.join();
            }
            CHECK(store->flush().error().code == Code::closed);
            CHECK(store->head({"test", "0-0"}).error().code == Code::closed);
        }
        const auto store = must_open(path);
        for (const auto& [key, done] : acknowledged) {
            REQUIRE(receipt_of(*store, key) == "done");
        }
        CHECK(store->stats()->completed == acknowledged.size());
    }
}

TEST_CASE("an atomic batch lands whole: its items have one frame and follow each other") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::uint64_t empty_bytes = 0;
    {
        const auto store = must_open(path, small_segments());
        empty_bytes = store->stats()->log_bytes;
        const std::vector<Append> batch = {{0, completed_record("a", "1")},
                                           {0, completed_record("b", "2")},
                                           {0, completed_record("c", "3")}};
        const auto results = store->append(batch, Batch::atomic);
        for (std::size_t i = 0; i < results.size(); ++i) {
            REQUIRE(results[i]);
            CHECK(*results[i] == i + 1);
        }
        const auto a = store->history({"test", "a"});
        const auto c = store->history({"test", "c"});
        CHECK(a->front().offset == c->front().offset);
    }
    // Cut anywhere, all of it is gone.
    // (The last 40 bytes are the mark of the clean close.)
    const std::uint64_t bytes = std::filesystem::file_size(segment_path(path, 1)) - 40;
    for (const std::uint64_t cut : {bytes - 1, bytes - 40, empty_bytes + 1}) {
        std::filesystem::resize_file(segment_path(path, 1), cut);
        const auto store = must_open(path);
        for (const char* key : {"a", "b", "c"}) {
            CHECK(receipt_of(*store, key) == "(absent)");
        }
    }
}

TEST_CASE("a claim that expired unanswered is listed even if its key begins anew meanwhile") {
    // In segments where all has expired, which are counted by their census, and in others.
    for (const bool all_expires : {true, false}) {
        CAPTURE(all_expires);
        const TempDir dir;
        HookedEnv env;
        ManualClock clock(1'700'000'000'000);
        const auto store = must_open(dir.path() / "store", small_segments(clock.clock()), env);
        const std::int64_t start = clock.now_ms();
        const std::int64_t others_expire_at_ms = all_expires ? start + 1'000 : 0;
        std::map<std::string, std::uint64_t> claims;
        const auto add = [&](const std::string& prefix) {
            fill(*store, prefix + "brief-", 100, start, start + 1'000);
            fill(*store, prefix + "other-", 100, start, others_expire_at_ms);
            for (int i = 0; i < 3; ++i) {
                Append item{0, completed_record(prefix + "claim-" + std::to_string(i), "")};
                item.record.receipt.reset();
                item.record.owner = "worker";
                item.record.timestamp_ms = start;
                item.record.expires_at_ms = start + 1'000;
                const auto appended = store->append({&item, 1});
                REQUIRE(appended[0]);
                claims[item.record.key] = *appended[0];
            }
        };
        add("sealed-");
        fill(*store, "between-", 2'000, start, others_expire_at_ms);
        wait_until_sealed(*store);
        add("tail-");
        wait_until_sealed(*store);  // what was before the claims
        REQUIRE(store->stats()->segments_sealed > 0);

        clock.advance(10'000);
        bool begins = true;
        bool looking = false;
        env.read_hook = [&](const Path& path, std::uint64_t, std::size_t) {
            if (!begins || looking || !segment_id(path.filename().string())) {
                return 0;
            }
            looking = true;
            if (receipt_of(*store, claims.begin()->first) == "(absent)") {  // the horizon holds
                begins = false;
                for (const auto& [key, fence] : claims) {
                    must_append(*store, key, "anew");
                }
            }
            looking = false;
            return 0;
        };
        const auto report = store->sweep();
        REQUIRE(report);
        CHECK_FALSE(begins);
        CHECK(report->removed.in_flight == claims.size());
        REQUIRE(report->unanswered.size() == claims.size());
        for (const UnansweredClaim& claim : report->unanswered) {
            CHECK(claims.at(claim.key) == claim.claim_sequence);
            CHECK(claim.owner == "worker");
            CHECK(receipt_of(*store, claim.key) == "anew");
        }
        REQUIRE(store->close());
        CHECK(verify(dir.path() / "store")->problems.empty());
    }
}

TEST_CASE("a sweep closes what it removes, not a reader who would have to wait for that") {
    const TempDir dir;
    HookedEnv env;
    ManualClock clock(1'700'000'000'000);
    std::mutex mutex;
    std::map<std::uint64_t, std::thread::id> closed_by;
    env.close_hook = [&](const Path& path) {
        // A writer's files had another name at first.
        const Path name = path.extension() == ".tmp" ? path.stem() : path.filename();
        if (const auto id = segment_id(name.string())) {
            const std::lock_guard lock(mutex);
            closed_by[*id] = std::this_thread::get_id();
        }
    };
    LogStoreInternals internals;
    internals.readers_wait = std::chrono::minutes{1};
    const auto store =
        must_open(dir.path() / "store", small_segments(clock.clock()), env, internals);
    fill(*store, "brief-", 4'000, clock.now_ms(), clock.now_ms() + 1'000);
    wait_until_sealed(*store);
    const std::uint64_t sealed = store->stats()->segments_sealed;
    REQUIRE(sealed > 3);

    std::atomic<bool> reads{false};
    std::atomic<bool> may_go_on{false};
    env.read_hook = [&](const Path&, std::uint64_t, std::size_t) {
        if (!reads.exchange(true)) {
            while (!may_go_on) {
                std::this_thread::yield();
            }
        }
        return 0;
    };
    std::thread reader([&] { CHECK(store->head({"test", "brief-0"})); });
    while (!reads) {
        std::this_thread::yield();
    }
    clock.advance(10'000);
    std::thread::id sweeper;
    std::uint64_t dropped = 0;
    std::atomic<bool> swept{false};
    std::thread sweep([&] {
        sweeper = std::this_thread::get_id();
        const auto report = store->sweep();
        CHECK(report);
        dropped = report ? report->segments_dropped : 0;
        swept = true;
    });
    while (!swept && store->stats()->segments_sealed >= sealed) {
        std::this_thread::yield();
    }
    may_go_on = true;
    reader.join();
    sweep.join();
    CHECK(dropped >= sealed);
    for (std::uint64_t id = 1; id <= sealed; ++id) {
        CHECK(closed_by.at(id) == sweeper);
    }
}

}  // namespace
}  // namespace dedup::test
