// The contract of StreamStore: growing, time, closing and opening again.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "contract/contract.hpp"

namespace dedup::test {
namespace {

TEST_CASE("stats: counts streams by state, records, sequences and time") {
    // Guards against numbers that drift away from what is stored.
    on_each_store([](TestStore& store) {
        const auto before = store->stats();
        REQUIRE(before.has_value());
        CHECK(before->streams() == 0);
        CHECK(before->records == 0);
        CHECK(before->last_sequence == 0);

        const std::uint64_t a = must_append(*store, 0, in_flight("a"));
        must_append(*store, a, completed("a", "r"));
        const std::uint64_t b = must_append(*store, 0, in_flight("b"));
        Record released = in_flight("b");
        released.kind = Kind::tombstone;
        released.ttl_ms = 0;
        must_append(*store, b, released);
        Record late = in_flight("c");
        late.timestamp_ms = 5'000;
        const std::uint64_t last = must_append(*store, 0, late);
        check_error(append_one(*store, 0, in_flight("a")), Code::sequence_conflict);

        const auto after = store->stats();
        REQUIRE(after.has_value());
        CHECK(after->in_flight == 1);
        CHECK(after->completed == 1);
        CHECK(after->released == 1);
        CHECK(after->records == (store.keeps_versions() ? 5 : 3));
        CHECK(
            (store.keeps_versions() ? after->last_sequence == last : after->last_sequence >= last));
        CHECK(after->time_high_ms == 5'000);
        CHECK(after->store_id.size() == 32);
        CHECK(after->store_id.find_first_not_of("0123456789abcdef") == std::string::npos);
        CHECK(after->store_id == before->store_id);
        CHECK(after->store_id != make_memory_store()->stats()->store_id);
    });
}

TEST_CASE("clock: what the store has seen it does not forget") {
    // Guards against a clock that is set back and so extends leases and brings expired keys back.
    on_each_store([](TestStore& store) {
        store.clock.set(50'000);
        CHECK(store->now_ms() == 50'000);
        store.clock.set(10'000);
        CHECK(store->now_ms() == 50'000);
        store.clock.set(-10'000);
        CHECK(store->now_ms() == 50'000);

        Record record = in_flight("k");  // another process's clock may be ahead of ours
        record.timestamp_ms = 80'000;
        must_append(*store, 0, record);
        CHECK(store->now_ms() == 80'000);
        store.clock.set(80'001);
        CHECK(store->now_ms() == 80'001);

        if (store.durable()) {
            record.timestamp_ms = 90'000;
            must_append(*store, 0, in_flight("other"));
            must_append(*store, head_sequence(*store, "k"), record);
            store.clock.set(20'000);
            store.reopen();
            CHECK(store->now_ms() == 90'000);
            CHECK(store->stats()->time_high_ms == 90'000);
        }
    });
}

TEST_CASE("clock: never negative, whatever one set before 1970 says") {
    // Guards against negative times in records.
    on_each_store([](TestStore& store) {
        store.clock.set(-5);
        CHECK(store->now_ms() >= 0);
        CHECK(system_now_ms() > 1'600'000'000'000);
    });
}

TEST_CASE("close: everything after it says closed, and closing again is a no-op") {
    // Guards against a use after close that reads freed memory or writes to a closed file.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, in_flight("k"));
        CHECK(store->flush().has_value());
        REQUIRE(store->close().has_value());
        CHECK(store->close().has_value());

        const std::vector<Append> batch = {{0, in_flight("a")}, {0, in_flight("b")}};
        for (const Batch mode : {Batch::each, Batch::atomic}) {
            const auto results = store->append(batch, mode);
            REQUIRE(results.size() == 2);
            check_error(results[0], Code::closed);
            check_error(results[1], Code::closed);
        }
        const std::vector<StreamKey> streams = {{kNs, "k"}, {kNs, "a"}, {kNs, "b"}};
        const auto heads = store->heads(streams);
        REQUIRE(heads.size() == 3);
        for (const auto& head : heads) {
            check_error(head, Code::closed);
        }
        check_error(store->history({kNs, "k"}), Code::closed);
        check_error(store->scan({}), Code::closed);
        check_error(store->stats(), Code::closed);
        check_error(store->flush(), Code::closed);
    });
}

// Appends `count` completed streams and supersedes every fifth, in batches, until several segments
// of the smallest size are full. Returns the heads.
std::map<std::string, Record> fill(StreamStore& store, std::size_t count) {
    std::map<std::string, Record> heads;
    const auto append_all = [&](const std::vector<Append>& batch) {
        const auto landed = store.append(batch);
        for (std::size_t i = 0; i < batch.size(); ++i) {
            REQUIRE_MESSAGE(landed[i].has_value(), landed[i].error().message);
            Record record = batch[i].record;
            record.sequence = *landed[i];
            record.claim_sequence = *landed[i];
            heads[record.key] = std::move(record);
        }
    };
    for (std::size_t done = 0; done < count; done += 100) {
        std::vector<Append> batch;
        for (std::size_t i = done; i < done + 100; ++i) {
            const std::string key = "filled-" + std::to_string(i);
            batch.push_back({0, completed(key, std::string(100, 'r') + key)});
        }
        append_all(batch);
        std::vector<Append> again;
        for (std::size_t i = done / 2; i < done / 2 + 100; i += 5) {
            const std::string key = "filled-" + std::to_string(i);
            again.push_back({heads.at(key).sequence, completed(key, "again")});
        }
        append_all(again);
    }
    return heads;
}

void check_filled(StreamStore& store, const std::map<std::string, Record>& heads) {
    std::vector<StreamKey> streams;
    for (const auto& [key, record] : heads) {
        streams.push_back({kNs, key});
    }
    const auto found = store.heads(streams);
    std::size_t wrong = 0;
    std::size_t at = 0;
    for (const auto& [key, record] : heads) {
        wrong += !found[at] || *found[at] != record;
        ++at;
    }
    CHECK(wrong == 0);

    const auto scanned = scan_all(store, pages_of(128));
    CHECK(scanned.size() == heads.size());
    for (const Record& record : scanned) {
        wrong += !heads.contains(record.key) || heads.at(record.key) != record;
    }
    CHECK(wrong == 0);
    CHECK(store.stats()->completed == heads.size());
}

TEST_CASE("close: two callers at once both wait for the end, and get one answer") {
    // Guards against a second caller who opens the store again while the first still closes it.
    on_each_store([](TestStore& store) {
        for (int round = 0; round < 20; ++round) {
            append_one(*store, head_sequence(*store, "k"), in_flight("k")).value();
            std::vector<Result<void>> answers(2);
            std::atomic<int> early{0};
            std::vector<std::thread> callers;
            for (Result<void>& answer : answers) {
                callers.emplace_back([&] {
                    answer = store->close();
                    // Whoever has an answer may take it for the end of all work on the store.
                    early += store->stats().has_value();
                });
            }
            for (std::thread& caller : callers) {
                caller.join();
            }
            CHECK(answers[0].has_value());
            CHECK(answers[1].has_value());
            CHECK(early == 0);
            if (!store.durable()) {
                return;
            }
            store.reopen();
        }
    });
}

TEST_CASE("many records: heads, history and scan agree as the store grows") {
    // Guards against records that get lost when what holds them is sealed.
    on_each_store([](TestStore& store) {
        const auto heads = fill(*store, 2'000);
        check_filled(*store, heads);
        const auto history = history_of(*store, "filled-0");
        REQUIRE(history.size() >= (store.keeps_versions() ? 2 : 1));
        CHECK(std::ranges::is_sorted(history, {}, &Record::sequence));
        CHECK(history.back() == heads.at("filled-0"));
        check_error(append_one(*store, 0, in_flight("filled-1")), Code::sequence_conflict);
        CHECK(!head_of(*store, "filled-2000"));
    });
}

TEST_CASE("reopen: everything is still there and sequences go on") {
    // Guards against an acknowledged record that is lost, and a sequence that is used twice.
    on_each_store([](TestStore& store) {
        if (!store.durable()) {
            return;
        }
        auto heads = fill(*store, 1'500);
        const auto before = store->stats();
        REQUIRE(before.has_value());
        for (int round = 0; round < 3; ++round) {
            store.reopen();
            check_filled(*store, heads);
            const auto after = store->stats();
            REQUIRE(after.has_value());
            CHECK(after->store_id == before->store_id);
            const std::uint64_t expected = before->last_sequence + static_cast<unsigned>(round);
            CHECK((store.keeps_versions() ? after->last_sequence == expected
                                          : after->last_sequence >= expected));
            CHECK(after->torn_bytes_dropped == 0);
            CHECK(!after->catalog_rebuilt);

            Record record = completed("round-" + std::to_string(round), "r");
            record.sequence = must_append(*store, 0, record);
            CHECK(record.sequence > after->last_sequence);
            record.claim_sequence = record.sequence;
            heads[record.key] = record;
        }
        const auto old_head = heads.at("filled-1").sequence;
        check_error(append_one(*store, 0, in_flight("filled-1")), Code::sequence_conflict);
        CHECK(must_append(*store, old_head, completed("filled-1", "new")) > old_head);
    });
}

}  // namespace
}  // namespace dedup::test
