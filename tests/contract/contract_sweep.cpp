// The contract of StreamStore: which streams a sweep removes, and that nothing else goes.
#include <doctest/doctest.h>

#include <atomic>
#include <map>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "contract/contract_sweep.hpp"
#include "dedup/cache.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

CacheOptions minute_cache() {
    return {.ns = std::string(kNs), .ttl = std::chrono::minutes(1)};
}

Claim must_claim(Cache& cache, std::string_view key, const ClaimOptions& options = {}) {
    const auto outcome = cache.claim(key, options);
    REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
    REQUIRE(std::holds_alternative<Claimed>(*outcome));
    return std::get<Claimed>(*outcome).claim;
}

TEST_CASE("sweep: a claim goes when its time and the grace are over, and not a moment before") {
    // Guards against a sweeper that judges age otherwise than readers and claims do.
    on_each_store([](TestStore& store) {
        Cache cache(*store, minute_cache());
        must_claim(cache, "k");
        for (const std::int64_t kept_at : {60'999, 62'000}) {
            CHECK(sweep_at(store, kept_at).removed == StateCounts{});
            CHECK(head_of(*store, "k").has_value());
        }
        const SweepReport report = sweep_at(store, 62'001);
        CHECK(report.now_ms == 62'001);
        CHECK(report.removed == StateCounts{.in_flight = 1});
        CHECK(!head_of(*store, "k"));
    });
}

TEST_CASE("sweep: a completion starts the clock anew") {
    // Guards against a receipt that goes when its claim would have.
    on_each_store([](TestStore& store) {
        Cache cache(*store, minute_cache());
        const Claim claim = must_claim(cache, "k");
        store.clock.set(62'000);
        REQUIRE(cache.complete(claim, "receipt").has_value());
        for (const std::int64_t kept_at : {62'001, 122'999, 123'000}) {
            CHECK(sweep_at(store, kept_at).removed == StateCounts{});
            CHECK(head_of(*store, "k")->receipt == "receipt");
        }
        CHECK(sweep_at(store, 123'001).removed == StateCounts{.completed = 1});
        CHECK(!head_of(*store, "k"));
    });
}

TEST_CASE("sweep: a removed stream is as if it had never been") {
    // Guards against a stream that is gone for one call and there for another.
    on_each_store([](TestStore& store) {
        const std::uint64_t first = must_append(*store, 0, in_flight("k"));
        const std::uint64_t last = must_append(*store, first, completed("k", "r"));
        must_append(*store, 0, expiring(completed("stays", "r"), kNever));
        sweep_at(store, 62'001);
        now_and_after_reopen(store, [&] {
            CHECK(!head_of(*store, "k"));
            CHECK(history_of(*store, "k").empty());
            const auto heads = scan_all(*store, {});
            REQUIRE(heads.size() == 1);
            CHECK(heads[0].key == "stays");
            CHECK(stats_of(*store).streams() == 1);
            CHECK(stats_of(*store).last_sequence >= last);
            const auto refused = append_one(*store, last, completed("k", "late"));
            check_error(refused, Code::sequence_conflict);
            CHECK(refused.error().head_sequence == 0);
        });
        const std::uint64_t again = must_append(*store, 0, expiring(in_flight("k"), kNever));
        CHECK(again > last);
        now_and_after_reopen(store, [&] {
            CHECK(head_sequence(*store, "k") == again);
            CHECK(history_of(*store, "k").size() == 1);
        });
    });
}

TEST_CASE("sweep: a swept key is claimed anew with a new fence, and the old fence stays dead") {
    // Guards against a worker that slept through a sweep and then completes another one's claim.
    on_each_store([](TestStore& store) {
        Claim old;
        Claim fresh;
        {
            Cache cache(*store, minute_cache());
            old = must_claim(cache, "k");
            sweep_at(store, 62'001);
            fresh = must_claim(cache, "k");
        }
        CHECK(fresh.claim_sequence > old.claim_sequence);
        CHECK(fresh.attempt == 1);
        now_and_after_reopen(store, [&] {
            Cache cache(*store, minute_cache());
            check_error(cache.complete(old, "late"), Code::stale_claim);
            check_error(cache.release(old), Code::stale_claim);
            check_error(cache.renew(old, milliseconds(1)), Code::stale_claim);
        });
        Cache cache(*store, minute_cache());
        CHECK(cache.complete(fresh, "receipt").has_value());
        CHECK(head_of(*store, "k")->receipt == "receipt");
    });
}

TEST_CASE("sweep: the fence of a swept claim is dead before anybody claims the key again") {
    // Guards against a completion that brings a swept key back.
    on_each_store([](TestStore& store) {
        Cache cache(*store, minute_cache());
        const Claim old = must_claim(cache, "k");
        sweep_at(store, 62'001);
        check_error(cache.complete(old, "late"), Code::stale_claim);
        check_error(cache.renew(old, milliseconds(1)), Code::stale_claim);
        CHECK(!head_of(*store, "k"));
    });
}

TEST_CASE("sweep: a leased claim that is alive stays, however short its ttl") {
    // Guards against a sweep that takes a running worker's claim away.
    on_each_store([](TestStore& store) {
        Cache cache(*store, minute_cache());
        ClaimOptions options;
        options.ttl = milliseconds(5'000);
        options.lease = milliseconds(60'000);
        Claim claim = must_claim(cache, "k", options);
        for (std::int64_t now_ms = 50'000; now_ms <= 300'000; now_ms += 50'000) {
            CHECK(sweep_at(store, now_ms).removed == StateCounts{});
            const auto renewed = cache.renew(claim, milliseconds(60'000));
            REQUIRE_MESSAGE(renewed.has_value(), renewed.error().message);
            claim = *renewed;
        }
        CHECK(cache.complete(claim, "receipt").has_value());
        CHECK(head_of(*store, "k")->receipt == "receipt");
    });
}

TEST_CASE("sweep: the head alone decides, whatever its older versions say") {
    // Guards against judging a stream by a record that has been superseded.
    on_each_store([](TestStore& store) {
        const std::uint64_t short_first = must_append(*store, 0, in_flight("renewed"));
        must_append(*store, short_first, expiring(in_flight("renewed"), 90'000));
        const std::uint64_t long_first =
            must_append(*store, 0, expiring(completed("shortened", "r"), kNever));
        must_append(*store, long_first, completed("shortened", "rr"));
        const SweepReport report = sweep_at(store, 62'001);
        CHECK(report.removed == StateCounts{.completed = 1});
        CHECK(report.retained == StateCounts{.in_flight = 1});
        now_and_after_reopen(store, [&] {
            CHECK(head_of(*store, "renewed")->expires_at_ms == 90'000);
            CHECK(history_of(*store, "shortened").empty());
        });
    });
}

TEST_CASE("sweep: nothing brings an old version back once the newer one is gone") {
    // Guards against dropping the segment that holds a stream's expired head while an older one,
    // which lives on for its neighbours' sake, still holds a version that would not expire.
    on_each_store([](TestStore& store) {
        const std::vector<std::string> keys = {"given up", "cut short"};
        std::map<std::string, std::uint64_t> old;
        for (const std::string& key : keys) {
            old[key] = must_append(*store, 0, expiring(in_flight(key), kNever));
        }
        append_many(*store, "neighbour-", 100, kNever);
        must_append(*store, old["given up"], released("given up"));
        must_append(*store, old["cut short"], completed("cut short", "r"));
        append_many(*store, "expires-", 300, 61'000);
        wait_until_sealed(*store);
        for (std::int64_t now_ms = 62'001; now_ms <= 62'003; ++now_ms) {
            sweep_at(store, now_ms);
            now_and_after_reopen(store, [&] {
                for (const std::string& key : keys) {
                    CHECK(!head_of(*store, key));
                    CHECK(history_of(*store, key).empty());
                }
                CHECK(stats_of(*store).streams() == 100);
                CHECK(scan_all(*store, pages_of(17)).size() == 100);
            });
        }
    });
}

TEST_CASE("sweep: records that never expire survive any number of sweeps, byte for byte") {
    // Guards against a record that suffers when it is moved out of its neighbours' way.
    on_each_store([](TestStore& store) {
        std::map<std::string, std::string> encoded;
        for (int i = 0; i < 12; ++i) {
            const std::string key = "forever-"s + static_cast<char>(i);
            Record record = expiring(i % 3 == 0   ? in_flight(key)
                                     : i % 3 == 1 ? completed(key, std::string(1'000, '\0'))
                                                  : released(key),
                                     kNever);
            record.owner = "owner \xff";
            record.metadata = std::string(static_cast<std::size_t>(i) * 100, 'm');
            must_append(*store, 0, record);
            append_many(*store, "early-" + std::to_string(i) + "-", 30, 61'000);
            encode(*head_of(*store, key), encoded[key]);
        }
        const auto check = [&] {
            for (const auto& [key, bytes] : encoded) {
                const auto head = head_of(*store, key);
                REQUIRE(head.has_value());
                std::string now;
                encode(*head, now);
                CHECK((now == bytes));  // in brackets: not to be printed
            }
            CHECK(scan_all(*store, pages_of(5)).size() == encoded.size());
            CHECK(stats_of(*store).streams() == encoded.size());
        };
        std::int64_t now_ms = 62'001;
        for (int round = 0; round < 6; ++round, now_ms += 60'000) {
            wait_until_sealed(*store);
            CHECK(sweep_at(store, now_ms).retained.total() == encoded.size());
            now_and_after_reopen(store, check);
            append_many(*store, "round-" + std::to_string(round) + "-", 90, now_ms);
        }
    });
}

TEST_CASE("sweep: the streams of one atomic batch live and die each on its own") {
    // Guards against a frame that is kept or dropped whole.
    on_each_store([](TestStore& store) {
        const std::vector<Append> batch = {{0, completed("short", "a")},
                                           {0, expiring(completed("long", "b"), kNever)},
                                           {0, in_flight("short too")}};
        for (const auto& result : store->append(batch, Batch::atomic)) {
            REQUIRE_MESSAGE(result.has_value(), result.error().message);
        }
        append_many(*store, "filler-", 200, 61'000);
        wait_until_sealed(*store);
        sweep_at(store, 62'001);
        now_and_after_reopen(store, [&] {
            CHECK(!head_of(*store, "short"));
            CHECK(!head_of(*store, "short too"));
            CHECK(head_of(*store, "long")->receipt == "b");
            CHECK(history_of(*store, "long").size() == 1);
        });
    });
}

TEST_CASE("sweep: an expired key that was claimed again before the sweep stays") {
    // Guards against a sweep that takes the new claim for the old one.
    on_each_store([](TestStore& store) {
        Cache cache(*store, minute_cache());
        must_claim(cache, "k");
        store.clock.set(62'001);
        const Claim fresh = must_claim(cache, "k");
        CHECK(must_sweep(*store).removed == StateCounts{});
        CHECK(cache.complete(fresh, "receipt").has_value());
    });
}

TEST_CASE("sweep: a clock that is set back neither keeps nor resurrects anything") {
    // Guards against a time correction that changes what is gone.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, in_flight("early"));
        must_append(*store, 0, expiring(in_flight("late"), 99'000));
        CHECK(sweep_at(store, 62'001).removed.total() == 1);
        store.clock.set(100'001);
        CHECK(store->now_ms() == 100'001);
        const SweepReport report = sweep_at(store, 5'000);
        CHECK(report.now_ms == 100'001);
        CHECK(report.removed.total() == 1);
        now_and_after_reopen(store, [&] {
            CHECK(!head_of(*store, "early"));
            CHECK(!head_of(*store, "late"));
        });
    });
}

TEST_CASE("sweep: what has come since the last one, and had expired already, goes as well") {
    // Guards against a sweep that takes an equal time for nothing to do. A claim that was decided
    // long ago and appended only now has expired when it comes.
    on_each_store([](TestStore& store) {
        store.clock.set(10'000);
        for (const std::string key : {"before", "since"}) {
            must_append(*store, 0, expiring(in_flight(key), 5'000));
            CHECK(must_sweep(*store).removed.total() == 1);
            CHECK(!head_of(*store, key));
        }
        CHECK(must_sweep(*store).removed.total() == 0);
    });
}

TEST_CASE("sweep: as of a time that the caller gives, which the store then has seen") {
    // Guards against a sweep ahead of the clock whose work the clock would undo.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, in_flight("k"));
        must_append(*store, 0, expiring(in_flight("later"), 200'000));
        SweepOptions options;
        options.dry_run = true;
        options.now_ms = 62'001;
        CHECK(must_sweep(*store, options).removed.total() == 1);
        CHECK(store->now_ms() == 1'000);
        options.dry_run = false;
        const SweepReport report = must_sweep(*store, options);
        CHECK(report.now_ms == 62'001);
        CHECK(report.removed.total() == 1);
        CHECK(store->now_ms() == 62'001);
        options.now_ms = 2'000;  // the store knows better
        CHECK(must_sweep(*store, options).now_ms == 62'001);
        now_and_after_reopen(store, [&] {
            CHECK(!head_of(*store, "k"));
            CHECK(head_of(*store, "later").has_value());
        });
    });
}

TEST_CASE("sweep: a time as far away as a time can be") {
    // Guards against an overflow where ages are computed.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, expiring(in_flight("k"), INT64_MAX));
        must_append(*store, 0, expiring(in_flight("forever"), kNever));
        SweepOptions options;
        options.now_ms = INT64_MIN;
        CHECK(must_sweep(*store, options).removed.total() == 0);
        options.dry_run = true;
        options.now_ms = INT64_MAX;
        CHECK(must_sweep(*store, options).removed.total() == 0);
        CHECK(head_of(*store, "k").has_value());
    });
}

TEST_CASE("sweep: a scan that one runs into goes on without an error and misses no survivor") {
    // Guards against a cursor that points into a segment which is no more.
    on_each_store([](TestStore& store) {
        for (int i = 0; i < 10; ++i) {
            append_many(*store, "expires-" + std::to_string(i) + "-", 30, 61'000);
            append_many(*store, "stays-" + std::to_string(i) + "-", 3, kNever);
        }
        wait_until_sealed(*store);
        std::set<std::string> seen;
        ScanOptions options = pages_of(40);
        std::int64_t now_ms = 62'001;
        do {
            const auto page = store->scan(options);
            REQUIRE_MESSAGE(page.has_value(), page.error().message);
            for (const Version& version : page->heads) {
                seen.insert(version.record.key);
            }
            options.cursor = page->cursor;
            sweep_at(store, now_ms++);
        } while (!options.cursor.empty());
        for (int i = 0; i < 10; ++i) {
            for (int j = 0; j < 3; ++j) {
                CHECK(seen.contains("stays-" + std::to_string(i) + "-" + std::to_string(j)));
            }
        }
    });
}

// Reads without end what a sweep is about to remove; counts what no reader may ever see.
class Reader {
  public:
    explicit Reader(StreamStore& store)
        : store_(store), thread_([this](std::stop_token stop) { run(stop); }) {}

    // Ends it; says how often it was wrong.
    int wrong() {
        thread_.request_stop();
        thread_.join();
        return wrong_;
    }

  private:
    void run(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            for (int i = 0; i < 5; ++i) {
                const std::string name = "story-" + std::to_string(i);
                const auto history = store_.history({kNs, name});
                std::string told;
                for (const Version& version : history.value_or(std::vector<Version>())) {
                    told += *version.record.receipt;
                }
                wrong_ += !history || !"one two three "s.contains(told);
            }
            ScanOptions options = pages_of(50);
            do {
                const auto page = store_.scan(options);
                wrong_ += !page;
                options.cursor = page ? page->cursor : std::string();
            } while (!options.cursor.empty());
            const auto kept = store_.head({kNs, "kept-0"});
            wrong_ += !kept || !*kept;
        }
    }

    StreamStore& store_;
    int wrong_ = 0;
    std::jthread thread_;
};

TEST_CASE("sweep: readers beside it see the old state or the new one, never an error") {
    // Guards against a segment that is unlinked under a reader.
    on_each_store([](TestStore& store) {
        append_many(*store, "kept-", 1, kNever);
        Reader reader(*store);
        std::int64_t now_ms = 1'000;
        for (int round = 0; round < 8; ++round) {
            for (int i = 0; i < 5; ++i) {
                const std::string key = "story-" + std::to_string(i);
                std::uint64_t head = 0;
                for (const char* const receipt : {"one ", "two ", "three "}) {
                    Record record = expiring(completed(key, receipt), now_ms + 1'000);
                    head = must_append(*store, head, record);
                }
            }
            append_many(*store, "expires-" + std::to_string(round) + "-", 60, now_ms + 1'000);
            now_ms += 2'001;
            CHECK(sweep_at(store, now_ms).removed.total() == 65);
        }
        CHECK(reader.wrong() == 0);
    });
}

TEST_CASE("sweep: callers at the same time share the work and count nothing twice") {
    // Guards against two sweeps that both claim to have removed one stream.
    on_each_store([](TestStore& store) {
        append_many(*store, "k-", 400, 61'000);
        store.clock.set(62'001);
        std::atomic<std::uint64_t> removed = 0;
        std::atomic<int> failed = 0;
        std::vector<std::jthread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                const auto report = store->sweep();
                failed += !report;
                removed += report ? report->removed.total() : 0;
            });
        }
        threads.clear();
        CHECK(failed == 0);
        CHECK(removed == 400);
        CHECK(stats_of(*store).streams() == 0);
    });
}

TEST_CASE("sweep: as of a time before the clock's that the store has not seen") {
    // Guards against a sweep that asks the clock although it was told the time.
    on_each_store([](TestStore& store) {
        Cache cache(*store, minute_cache());
        must_claim(cache, "a", {.ttl = milliseconds{1'000}});
        must_claim(cache, "b");
        store.clock.set(2'000'000);
        for (const bool dry_run : {true, false}) {
            const auto report = store->sweep({.dry_run = dry_run, .now_ms = 50'000});
            REQUIRE_MESSAGE(report.has_value(), report.error().message);
            CHECK(report->now_ms == 50'000);
            CHECK(report->removed == StateCounts{.in_flight = 1});
        }
        CHECK(store->sweep({}).value().removed == StateCounts{.in_flight = 1});
    });
}

TEST_CASE("sweep: expiries after 2109 are as all others") {
    // Guards against the step in which a log store's index keeps all later ones.
    static constexpr std::int64_t kLate = 100'000'000'000'000;
    on_each_factory([](const StoreFactory& factory) {
        for (const std::int64_t start : {1'700'000'000'000, 5'000'000'000'000}) {
            TestStore store = factory.make();
            store.clock.set(start);
            Cache cache(*store, minute_cache());
            const auto add = [&](const std::string& key, std::int64_t expires_at_ms) {
                ClaimOptions options;
                options.expires_at_ms = expires_at_ms;
                REQUIRE(cache.remember(key, std::string(1'000, 'x'), options).has_value());
            };
            add("short", start + 1'000);
            add("mid", start + 100'000);
            for (int i = 0; i < 100; ++i) {
                add("late-" + std::to_string(i), kLate + i);
            }
            CHECK(sweep_at(store, start + 10'000).removed == StateCounts{.completed = 1});
            const SweepReport second = sweep_at(store, start + 200'000);
            CHECK(second.removed == StateCounts{.completed = 1});
            CHECK(second.next_expiry_ms == kLate);
            CHECK(sweep_at(store, kLate + 2'000).removed == StateCounts{.completed = 100});
        }
    });
}

TEST_CASE("sweep: compacting in pieces comes to an end") {
    // Guards against sweeps that make as much garbage as they remove, for ever.
    on_each_store([](TestStore& store) {
        SweepOptions compact;
        compact.compact = true;
        for (int i = 0; i < 12; ++i) {
            for (int k = 0; k < 20; ++k) {
                must_append(*store, 0,
                            expiring(completed(std::to_string(i) + "." + std::to_string(k),
                                               std::string(500, 'r')),
                                     k < 18 ? kNever : store.clock.now_ms() + 1));
            }
            store.clock.advance(10'000);
            std::stop_source stopped;  // so it ends the newest segment, and compacts none
            stopped.request_stop();
            compact.stop = stopped.get_token();
            REQUIRE(store->sweep(compact));
        }
        compact.stop = {};
        compact.bytes_max = 1;
        bool finished = false;
        for (int i = 0; i < 100 && !finished; ++i) {
            const auto swept = store->sweep(compact);
            REQUIRE(swept);
            finished = swept->finished;
        }
        CHECK(finished);
        CHECK(stats_of(*store).completed == 12 * 18);
    });
}

}  // namespace
}  // namespace dedup::test
