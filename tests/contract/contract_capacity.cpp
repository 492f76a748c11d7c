// The contract of StreamStore: what happens when a store holds as much as it may.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "contract/contract_sweep.hpp"

namespace dedup::test {
namespace {

// Runs `test` on a new store of each kind with this capacity.
void on_each_store_of(const Capacity& capacity, const std::function<void(TestStore&)>& test) {
    on_each_factory([&](const StoreFactory& factory) {
        TestStore store = factory.make(capacity);
        test(store);
    });
}

std::string key_of(int i) {
    return "k-" + std::to_string(i);
}

Record lasting(std::string_view key, std::string_view receipt = "r") {
    return expiring(completed(key, receipt), kNever);
}

TEST_CASE("capacity: a full store begins no new stream, and nothing is lost") {
    // Guards against a limit that costs somebody else's record, or one that does not hold.
    on_each_store_of({.keys_max = 10}, [](TestStore& store) {
        for (int i = 0; i < 10; ++i) {
            must_append(*store, 0, in_flight(key_of(i)));
        }
        now_and_after_reopen(store, [&] {
            check_error(append_one(*store, 0, in_flight("one more")), Code::out_of_space);
            CHECK(!head_of(*store, "one more"));
            CHECK(stats_of(*store).streams() == 10);
            CHECK(scan_all(*store, {}).size() == 10);
        });
        // What is in flight can always be completed, released and claimed again.
        const auto done =
            must_append(*store, head_sequence(*store, key_of(0)), completed(key_of(0), "receipt"));
        CHECK(done == head_sequence(*store, key_of(0)));
        const auto free =
            must_append(*store, head_sequence(*store, key_of(1)), released(key_of(1)));
        must_append(*store, free, in_flight(key_of(1)));
        // A conflict is the better answer: it is one that the caller can do something with.
        check_error(append_one(*store, 0, in_flight(key_of(2))), Code::sequence_conflict);
    });
}

TEST_CASE("capacity: expired streams take room until they are swept") {
    // Guards against a limit on something else than what is stored.
    on_each_store_of({.keys_max = 10}, [](TestStore& store) {
        for (int i = 0; i < 10; ++i) {
            must_append(*store, 0, i < 4 ? in_flight(key_of(i)) : lasting(key_of(i)));
        }
        store.clock.set(62'001);
        check_error(append_one(*store, 0, lasting("new")), Code::out_of_space);
        CHECK(must_sweep(*store).removed.total() == 4);
        for (int i = 0; i < 4; ++i) {
            must_append(*store, 0, lasting("new-" + std::to_string(i)));
        }
        check_error(append_one(*store, 0, lasting("new")), Code::out_of_space);
    });
}

TEST_CASE("capacity: within a batch the items that fit are appended") {
    // Guards against a batch that goes over the limit because it was looked at only once.
    on_each_store_of({.keys_max = 3}, [](TestStore& store) {
        const std::uint64_t head = must_append(*store, 0, in_flight("old"));
        const std::vector<Append> batch = {{0, in_flight("a")},
                                           {0, in_flight("b")},
                                           {0, in_flight("c")},
                                           {head, completed("old", "r")},
                                           {0, in_flight("d")}};
        const auto results = store->append(batch);
        REQUIRE(results.size() == 5);
        CHECK(results[0].has_value());
        CHECK(results[1].has_value());
        check_error(results[2], Code::out_of_space);
        CHECK(results[3].has_value());
        check_error(results[4], Code::out_of_space);
        CHECK(stats_of(*store).streams() == 3);
    });
}

TEST_CASE("capacity: an atomic batch fits whole or not at all") {
    // Guards against half a transaction.
    on_each_store_of({.keys_max = 3}, [](TestStore& store) {
        const std::uint64_t first = must_append(*store, 0, in_flight("old"));
        must_append(*store, 0, in_flight("older"));
        std::vector<Append> batch = {
            {first, completed("old", "r")}, {0, in_flight("a")}, {0, in_flight("b")}};
        for (const auto& result : store->append(batch, Batch::atomic)) {
            check_error(result, Code::out_of_space);
        }
        CHECK(head_sequence(*store, "old") == first);
        CHECK(stats_of(*store).streams() == 2);
        batch.pop_back();
        for (const auto& result : store->append(batch, Batch::atomic)) {
            CHECK(result.has_value());
        }
        CHECK(stats_of(*store).streams() == 3);
    });
}

TEST_CASE("capacity: in bytes, too") {
    // Guards against a disk that fills although it was bounded.
    static constexpr std::uint64_t kBytesMax = 512 * 1024;
    on_each_store_of({.bytes_max = kBytesMax}, [](TestStore& store) {
        const std::uint64_t claim = must_append(*store, 0, expiring(in_flight("claim"), kNever));
        int landed = 0;
        Result<std::uint64_t> last = 0;
        while (last && landed < 10'000) {
            last = append_one(*store, 0, completed(key_of(landed), std::string(1'000, 'r')));
            landed += last ? 1 : 0;
        }
        check_error(last, Code::out_of_space);
        CHECK(landed > 50);
        CHECK(stats_of(*store).log_bytes <= kBytesMax);
        CHECK(must_append(*store, claim, lasting("claim", std::string(10'000, 'r'))) > claim);
        wait_until_sealed(*store);
        CHECK(sweep_at(store, 62'001).removed.total() == static_cast<unsigned>(landed));
        must_append(*store, 0, lasting("room again"));
        CHECK(head_of(*store, "claim")->receipt->size() == 10'000);
    });
}

// The sum of what the reports of all sweeps say was evicted.
std::uint64_t evicted_in_history(StreamStore& store) {
    std::uint64_t evicted = 0;
    for (const SweepReport& report : sweeps_of(store)) {
        CHECK(report.evicted <= report.removed.completed);
        evicted += report.evicted;
    }
    return evicted;
}

TEST_CASE("eviction: the oldest completions go first, and never a silent one") {
    // Guards against a cache that forgets what is new, what is in flight, or that it forgot.
    on_each_store_of({.keys_max = 128, .evict_oldest = true}, [](TestStore& store) {
        for (int i = 0; i < 10; ++i) {
            must_append(*store, 0, expiring(in_flight("busy-" + std::to_string(i)), kNever));
            must_append(*store, 0, expiring(released("free-" + std::to_string(i)), kNever));
        }
        for (int i = 0; i < 400; ++i) {
            must_append(*store, 0, lasting(key_of(i), "receipt"));
            REQUIRE(stats_of(*store).streams() <= 128);
        }
        now_and_after_reopen(store, [&] {
            std::set<int> there;
            for (const Record& head : scan_all(*store, {})) {
                if (head.key.starts_with("k-")) {
                    there.insert(std::stoi(head.key.substr(2)));
                }
            }
            // The newest, without a gap; and room was made for little more than was asked for.
            REQUIRE(!there.empty());
            CHECK(*there.rbegin() == 399);
            CHECK(*there.begin() == 400 - static_cast<int>(there.size()));
            CHECK(there.size() >= 90);
            const StoreStats stats = stats_of(*store);
            CHECK(stats.in_flight == 10);
            CHECK(stats.released == 10);
            CHECK(stats.completed == there.size());
            CHECK(stats.evicted == 400 - there.size());
            CHECK(stats.last_sweep_ms == 1'000);
            CHECK(!head_of(*store, key_of(0)));
            CHECK(history_of(*store, key_of(0)).empty());
        });
    });
}

TEST_CASE("eviction: as many as needed, but a sixty-fourth at least, each time with a report") {
    // Guards against a sweep for every append.
    on_each_store_of({.keys_max = 640, .evict_oldest = true}, [](TestStore& store) {
        append_many(*store, "k-", 640, kNever);
        must_append(*store, 0, lasting("first"));
        auto reports = sweeps_of(*store);
        REQUIRE(reports.size() == 1);
        const std::uint64_t evicted = reports[0].evicted;
        CHECK(evicted >= 10);
        CHECK(evicted <= 64);
        CHECK(reports[0].removed == StateCounts{.completed = evicted});
        CHECK(reports[0].retained == StateCounts{.completed = 640 - evicted});
        CHECK(reports[0].namespaces.size() == 1);
        CHECK(!reports[0].next_expiry_ms);
        for (std::uint64_t i = 1; i < evicted; ++i) {
            must_append(*store, 0, lasting("next-" + std::to_string(i)));
        }
        CHECK(sweeps_of(*store).size() == 1);
        CHECK(stats_of(*store).streams() == 640);
        append_many(*store, "many-", 100, kNever);
        CHECK(stats_of(*store).evicted >= evicted + 100);
        CHECK(stats_of(*store).evicted == evicted_in_history(*store));
        CHECK(stats_of(*store).streams() <= 640);
    });
}

TEST_CASE("eviction: by completion, not by claim") {
    // Guards against a fresh receipt that goes because its work took long.
    on_each_store_of({.keys_max = 3, .evict_oldest = true}, [](TestStore& store) {
        std::vector<std::uint64_t> claims;
        for (int i = 0; i < 3; ++i) {
            claims.push_back(must_append(*store, 0, in_flight(key_of(i))));
        }
        for (const std::size_t i : {2U, 0U, 1U}) {
            must_append(*store, claims[i], lasting(key_of(static_cast<int>(i))));
        }
        for (const int gone : {2, 0, 1}) {
            CHECK(head_of(*store, key_of(gone)).has_value());
            must_append(*store, 0, expiring(in_flight("new-" + std::to_string(gone)), kNever));
            CHECK(!head_of(*store, key_of(gone)));
        }
        CHECK(stats_of(*store).evicted == 3);
    });
}

TEST_CASE("eviction: what has expired goes first, and may be enough") {
    // Guards against the loss of a receipt for which there was room.
    on_each_store_of({.keys_max = 10, .evict_oldest = true}, [](TestStore& store) {
        for (int i = 0; i < 10; ++i) {
            must_append(*store, 0, i < 7 ? lasting(key_of(i)) : in_flight(key_of(i)));
        }
        store.clock.set(62'001);
        must_append(*store, 0, lasting("new"));
        CHECK(stats_of(*store).evicted == 0);
        CHECK(stats_of(*store).streams() == 8);
        const auto reports = sweeps_of(*store);
        REQUIRE(reports.size() == 1);
        CHECK(reports[0].removed == StateCounts{.in_flight = 3});
        CHECK(reports[0].unanswered.size() == 3);
        CHECK(reports[0].evicted == 0);
        CHECK(reports[0].now_ms == 62'001);
    });
}

TEST_CASE("eviction: in flight and released streams stay, even if nothing fits any more") {
    // Guards against a claim that is taken from a running worker.
    on_each_store_of({.keys_max = 6, .evict_oldest = true}, [](TestStore& store) {
        for (int i = 0; i < 3; ++i) {
            must_append(*store, 0, expiring(in_flight("busy-" + std::to_string(i)), kNever));
            must_append(*store, 0, expiring(released("free-" + std::to_string(i)), kNever));
        }
        check_error(append_one(*store, 0, in_flight("new")), Code::out_of_space);
        CHECK(stats_of(*store).streams() == 6);
        CHECK(stats_of(*store).evicted == 0);
        must_append(*store, head_sequence(*store, "busy-0"), lasting("busy-0"));
        must_append(*store, 0, in_flight("new"));
        CHECK(!head_of(*store, "busy-0"));
        CHECK(stats_of(*store).evicted == 1);
    });
}

TEST_CASE("eviction: an evicted key is claimed anew, with a new fence") {
    // Guards against an old receipt or fence that comes back with the key.
    on_each_store_of({.keys_max = 1, .evict_oldest = true}, [](TestStore& store) {
        const std::uint64_t old = must_append(*store, 0, lasting("k", "old receipt"));
        must_append(*store, 0, lasting("other"));
        check_error(append_one(*store, old, lasting("k", "late")), Code::sequence_conflict);
        const std::uint64_t fresh = must_append(*store, 0, lasting("k", "new receipt"));
        CHECK(fresh > old);
        now_and_after_reopen(store, [&] {
            CHECK(head_of(*store, "k")->receipt == "new receipt");
            CHECK(history_of(*store, "k").size() == 1);
            CHECK(!head_of(*store, "other"));
        });
    });
}

TEST_CASE("eviction: an append for which all completions together give no room costs none") {
    // Guards against evicting for nothing.
    on_each_store_of({.keys_max = 4, .evict_oldest = true}, [](TestStore& store) {
        for (int i = 0; i < 4; ++i) {
            must_append(*store, 0, lasting(key_of(i)));
        }
        std::vector<Append> batch;
        for (int i = 0; i < 5; ++i) {
            batch.push_back({0, lasting("new-" + std::to_string(i))});
        }
        for (const auto& result : store->append(batch, Batch::atomic)) {
            check_error(result, Code::out_of_space);
        }
        CHECK(stats_of(*store).completed == 4);
        CHECK(stats_of(*store).evicted == 0);
    });
}

TEST_CASE("eviction: for bytes") {
    // Guards against a store that evicts and evicts and still has no room.
    static constexpr std::uint64_t kBytesMax = 1024 * 1024;
    on_each_store_of({.bytes_max = kBytesMax, .evict_oldest = true}, [](TestStore& store) {
        for (int i = 0; i < 30; ++i) {
            append_many(*store, "round-" + std::to_string(i) + "-", 50, kNever);
            CHECK(head_of(*store, "round-" + std::to_string(i) + "-49").has_value());
        }
        CHECK(stats_of(*store).evicted > 500);
        CHECK(stats_of(*store).evicted + stats_of(*store).completed == 1'500);
        CHECK(stats_of(*store).log_bytes <= 2 * kBytesMax);
    });
}

// Appends completions of `bytes` bytes until the store has evicted some, and checks each.
void fill_and_evict(TestStore& store, const std::string& prefix, std::size_t bytes, int keys) {
    for (int i = 0; i < keys; ++i) {
        must_append(*store, 0, lasting(prefix + std::to_string(i), std::string(bytes, 'r')));
    }
}

TEST_CASE("eviction: for bytes, whatever the sizes of receipts and of the bound") {
    // Guards against an append that never gets an answer, or a small store that stays full.
    on_each_factory([&](const StoreFactory& factory) {
        for (const std::uint64_t bytes_max : {100'000U, 400'000U, 1'500'000U}) {
            TestStore store = factory.make({.bytes_max = bytes_max, .evict_oldest = true});
            const std::uint64_t claim = must_append(*store, 0, expiring(in_flight("c"), kNever));
            fill_and_evict(store, "small-", 100, 300);
            fill_and_evict(store, "ten-", 10'000, static_cast<int>(bytes_max / 10'000) + 5);
            must_append(*store, 0, lasting("big", std::string(64 * 1024, 'b')));
            fill_and_evict(store, "again-", 2'000, 40);
            CHECK(stats_of(*store).evicted > 0);
            CHECK(stats_of(*store).completed > 10);
            CHECK(stats_of(*store).log_bytes <= bytes_max + 4096);
            CHECK(head_sequence(*store, "c") == claim);
            CHECK(head_of(*store, "again-39").has_value());
        }
    });
}

TEST_CASE("eviction: for bytes, whichever texts a record has") {
    // Guards against a store that forgets all, or holds many times its bound, since it does not
    // know what its records take.
    static constexpr std::uint64_t kBytesMax = 400'000;
    on_each_store_of({.bytes_max = kBytesMax, .evict_oldest = true}, [](TestStore& store) {
        for (int i = 0; i < 400; ++i) {
            Record record = lasting(key_of(i));
            record.owner = std::string(500, 'o');
            record.fingerprint = std::string(500, 'f');
            record.event_id = std::string(500, 'e');
            record.conflict = {.count = 1, .fingerprints = {std::string(500, 'c')}};
            must_append(*store, 0, record);
            const std::uint64_t left = stats_of(*store).completed;
            CHECK((i < 150 || left > 100));
            CHECK(left * 2'000 <= kBytesMax);
        }
    });
}

TEST_CASE("eviction: what can never fit is refused at once, says why, and costs nothing") {
    // Guards against a store that empties itself for an append that it refuses.
    on_each_store_of({.bytes_max = 300'000, .evict_oldest = true}, [](TestStore& store) {
        fill_and_evict(store, "k-", 2'000, 50);
        const auto never = append_one(*store, 0, lasting("big", std::string(300'000, 'b')));
        check_error(never, Code::out_of_space, "bytes_max is 300000");
        check_error(never, Code::out_of_space, "needs 30");
        CHECK(stats_of(*store).evicted == 0);
        CHECK(stats_of(*store).completed == 50);
        // In one batch with others, which do fit.
        const std::vector<Append> batch = {{0, lasting("a")},
                                           {0, lasting("too big", std::string(300'000, 'b'))},
                                           {0, lasting("b", std::string(250'000, 'b'))},
                                           {0, lasting("c")}};
        const auto results = store->append(batch);
        CHECK(results[0].has_value());
        check_error(results[1], Code::out_of_space);
        CHECK(results[2].has_value());
        CHECK(results[3].has_value());
    });
}

TEST_CASE("eviction: an atomic batch larger than what is free lands whole") {
    on_each_store_of({.keys_max = 200, .bytes_max = 200'000, .evict_oldest = true},
                     [](TestStore& store) {
                         fill_and_evict(store, "k-", 1'000, 190);
                         std::vector<Append> batch;
                         for (int i = 0; i < 60; ++i) {
                             batch.push_back({0, lasting("new-" + std::to_string(i))});
                         }
                         for (const auto& result : store->append(batch, Batch::atomic)) {
                             REQUIRE_MESSAGE(result, (result ? "" : result.error().message));
                         }
                         CHECK(head_of(*store, "k-189").has_value());
                         CHECK(!head_of(*store, "k-0").has_value());
                     });
}

TEST_CASE("eviction: many threads at the bound all get an answer") {
    on_each_store_of(
        {.keys_max = 40, .bytes_max = 150'000, .evict_oldest = true}, [](TestStore& store) {
            std::atomic<int> refused{0};
            std::vector<std::thread> threads;
            for (int thread = 0; thread < 6; ++thread) {
                threads.emplace_back([&, thread] {
                    for (int i = 0; i < 30; ++i) {
                        const Append item{0,
                                          lasting(std::to_string(thread) + "-" + std::to_string(i),
                                                  std::string(3'000, 'r'))};
                        refused += !store->append({&item, 1})[0];
                    }
                });
            }
            for (std::thread& thread : threads) {
                thread.join();
            }
            CHECK(refused == 0);
            CHECK(stats_of(*store).completed + stats_of(*store).evicted == 180);
        });
}

}  // namespace
}  // namespace dedup::test
