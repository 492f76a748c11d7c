// The contract of StreamStore, run against every store there is: appending.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "contract/contract.hpp"

namespace dedup::test {
namespace {

TEST_CASE("append: only the expected head lets a record in") {
    // Guards against an append that overwrites what its caller has not seen.
    on_each_store([](TestStore& store) {
        check_error(append_one(*store, 7, in_flight("k")), Code::sequence_conflict);
        CHECK(!head_of(*store, "k"));

        const std::uint64_t first = must_append(*store, 0, in_flight("k"));
        CHECK(first >= 1);
        for (const std::uint64_t wrong :
             {std::uint64_t{0}, first - 1, first + 1, ~std::uint64_t{0}}) {
            const auto refused = append_one(*store, wrong, completed("k", "x"));
            if (wrong != first) {
                check_error(refused, Code::sequence_conflict);
                CHECK(refused.error().head_sequence == first);
            }
        }
        CHECK(history_of(*store, "k").size() == 1);
        CHECK(must_append(*store, first, completed("k", "x")) > first);
    });
}

TEST_CASE("append: a conflict on an empty stream says that its head is 0") {
    // Guards against a caller that retries with a made-up head.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, in_flight("other"));
        const auto refused = append_one(*store, 1, in_flight("k"));
        check_error(refused, Code::sequence_conflict);
        CHECK(refused.error().head_sequence == 0);
    });
}

TEST_CASE("append: the store assigns the sequence, and the fence if there is none") {
    // Guards against a store that believes the caller's sequence, or gives a renewed claim a new
    // fence.
    on_each_store([](TestStore& store) {
        Record record = in_flight("k");
        const std::uint64_t first = must_append(*store, 0, record);
        CHECK(head_of(*store, "k")->sequence == first);
        CHECK(head_of(*store, "k")->claim_sequence == first);

        record.sequence = 9'999;
        record.claim_sequence = first;
        const std::uint64_t second = must_append(*store, first, record);
        CHECK(head_of(*store, "k")->sequence == second);
        CHECK(head_of(*store, "k")->claim_sequence == first);
    });
}

TEST_CASE("append: one winner among threads with one expected sequence") {
    // Guards against two workers that both believe to hold a claim.
    on_each_store([](TestStore& store) {
        constexpr int kThreads = 8;
        constexpr int kRounds = 25;
        std::uint64_t head = 0;
        for (int round = 0; round < kRounds; ++round) {
            std::vector<Result<std::uint64_t>> results(kThreads);
            std::atomic<int> ready = 0;
            std::vector<std::jthread> threads;
            for (int t = 0; t < kThreads; ++t) {
                threads.emplace_back([&, t] {
                    Record record = in_flight("k");
                    record.owner = std::to_string(t);
                    const Append item{head, std::move(record)};
                    ++ready;
                    while (ready < kThreads) {
                    }
                    results[static_cast<std::size_t>(t)] = store->append({&item, 1}).front();
                });
            }
            threads.clear();

            REQUIRE(std::ranges::count_if(results, [](auto& r) { return r.has_value(); }) == 1);
            const auto winner =
                std::ranges::find_if(results, [](const auto& r) { return r.has_value(); });
            for (const auto& result : results) {
                if (!result) {
                    CHECK(result.error().code == Code::sequence_conflict);
                    CHECK(result.error().head_sequence == **winner);
                }
            }
            CHECK(head_of(*store, "k")->owner == std::to_string(winner - results.begin()));
            head = **winner;
        }
        CHECK(history_of(*store, "k").size() == (store.keeps_versions() ? kRounds : 1));
    });
}

TEST_CASE("append: threads on streams of their own never disturb each other") {
    // Guards against a group commit that hands a caller the result of its neighbour.
    on_each_store([](TestStore& store) {
        constexpr int kThreads = 8;
        constexpr int kAppends = 30;
        std::vector<std::vector<std::uint64_t>> sequences(kThreads);
        std::vector<std::jthread> threads;
        for (std::size_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                std::uint64_t head = 0;
                for (int i = 0; i < kAppends; ++i) {
                    const Append item{head, completed(std::to_string(t), std::to_string(i))};
                    head = store->append({&item, 1}).front().value_or(0);
                    sequences[t].push_back(head);
                }
            });
        }
        threads.clear();

        std::set<std::uint64_t> all;
        for (std::size_t t = 0; t < kThreads; ++t) {
            const auto history = history_of(*store, std::to_string(t));
            REQUIRE(history.size() == (store.keeps_versions() ? kAppends : 1));
            for (std::size_t i = 0; i < history.size(); ++i) {
                const std::size_t number = kAppends - history.size() + i;
                CHECK(history[i].sequence == sequences[t][number]);
                CHECK(history[i].receipt == std::to_string(number));
            }
            CHECK(std::ranges::is_sorted(sequences[t]));
            all.insert(sequences[t].begin(), sequences[t].end());
        }
        CHECK(all.size() == kThreads * kAppends);
        CHECK(!all.contains(0));
    });
}

TEST_CASE("batch: items succeed or fail each on its own, in order") {
    // Guards against a batch that fails as one, or applies its items in another order.
    on_each_store([](TestStore& store) {
        const std::uint64_t old = must_append(*store, 0, in_flight("b"));
        Record bad = in_flight("bad");
        bad.ns = "";
        const std::vector<Append> batch = {
            {0, in_flight("a")},            // lands
            {0, in_flight("b")},            // conflict with `old`
            {0, bad},                       // invalid
            {0, completed("a", "second")},  // conflict with the first item
            {old, completed("b", "r")},     // lands
            {0, in_flight("c")},            // lands
        };
        const auto results = store->append(batch, Batch::each);
        REQUIRE(results.size() == batch.size());
        REQUIRE(results[0].has_value());
        check_error(results[1], Code::sequence_conflict);
        CHECK(results[1].error().head_sequence == old);
        check_error(results[2], Code::invalid_argument, "namespace");
        check_error(results[3], Code::sequence_conflict);
        CHECK(results[3].error().head_sequence == *results[0]);
        REQUIRE(results[4].has_value());
        REQUIRE(results[5].has_value());
        CHECK(old < *results[0]);
        CHECK(*results[0] < *results[4]);
        CHECK(*results[4] < *results[5]);
        CHECK(head_of(*store, "b")->receipt == "r");
    });
}

TEST_CASE("atomic batch: lands whole, across streams") {
    // Guards against an atomic batch that loses items or their order.
    on_each_store([](TestStore& store) {
        const std::uint64_t old = must_append(*store, 0, in_flight("b"));
        const std::vector<Append> batch = {
            {0, in_flight("a")}, {old, completed("b", "r")}, {0, in_flight("b", "another")}};
        const auto results = store->append(batch, Batch::atomic);
        REQUIRE(results.size() == 3);
        for (const auto& result : results) {
            REQUIRE_MESSAGE(result.has_value(), result.error().message);
        }
        CHECK(*results[0] < *results[1]);
        CHECK(*results[1] < *results[2]);
        CHECK(head_sequence(*store, "a") == *results[0]);
        CHECK(head_sequence(*store, "b") == *results[1]);
        CHECK(head_of(*store, "b", "another")->sequence == *results[2]);
    });
}

TEST_CASE("atomic batch: one failing item keeps all of them out") {
    // Guards against half of a "complete the claim and commit the offset" being stored.
    on_each_store([](TestStore& store) {
        const std::uint64_t old = must_append(*store, 0, in_flight("b"));
        const std::vector<Append> batch = {
            {0, in_flight("a")}, {0, in_flight("b")}, {0, in_flight("c")}};
        const auto results = store->append(batch, Batch::atomic);
        REQUIRE(results.size() == 3);
        const std::uint64_t heads[] = {0, old, 0};
        for (std::size_t i = 0; i < 3; ++i) {
            check_error(results[i], Code::sequence_conflict);
            CHECK(results[i].error().head_sequence == heads[i]);
        }
        CHECK(!head_of(*store, "a"));
        CHECK(!head_of(*store, "c"));
        CHECK(history_of(*store, "b").size() == 1);

        std::vector<Append> invalid = {{0, in_flight("a")}, {0, in_flight("")}};
        const auto refused = store->append(invalid, Batch::atomic);
        check_error(refused[0], Code::invalid_argument, "key");
        check_error(refused[1], Code::invalid_argument, "key");
        CHECK(!head_of(*store, "a"));
    });
}

TEST_CASE("atomic batch: no stream twice, and not too many bytes") {
    // Guards against a frame in which a stream has two heads, or that no reader would accept.
    on_each_store([](TestStore& store) {
        const std::vector<Append> twice = {
            {0, in_flight("a")}, {0, in_flight("b")}, {0, in_flight("a")}};
        const auto refused = store->append(twice, Batch::atomic);
        REQUIRE(refused.size() == 3);
        check_error(refused[2], Code::invalid_argument, "twice");
        CHECK(!head_of(*store, "a"));
        CHECK(!head_of(*store, "b"));

        std::vector<Append> large;
        const std::string receipt(kReceiptBytesMax, 'r');
        for (int i = 0; i < 4; ++i) {  // the encoding's own bytes bring them above the limit
            large.push_back({0, completed(std::to_string(i), receipt)});
        }
        for (const auto& result : store->append(large, Batch::atomic)) {
            check_error(result, Code::invalid_argument, "64");
        }
        CHECK(!head_of(*store, "0"));
    });
}

TEST_CASE("batch: empty ones are fine, too large ones are refused whole") {
    // Guards against a crash on an empty span, and a batch that is cut off at the limit.
    on_each_store([](TestStore& store) {
        CHECK(store->append({}, Batch::each).empty());
        CHECK(store->append({}, Batch::atomic).empty());
        CHECK(store->heads({}).empty());

        std::vector<Append> batch(kBatchItemsMax + 1, Append{0, in_flight("k")});
        for (const Batch mode : {Batch::each, Batch::atomic}) {
            const auto results = store->append(batch, mode);
            REQUIRE(results.size() == batch.size());
            CHECK(std::ranges::all_of(results, [](const auto& result) {
                return !result && result.error().code == Code::invalid_argument;
            }));
        }
        CHECK(!head_of(*store, "k"));
    });
}

TEST_CASE("bad records are refused by name, and leave nothing") {
    // Guards against a record in the log that no reader can decode.
    on_each_store([](TestStore& store) {
        const auto refuse = [&](std::string_view word, const auto& spoil) {
            Record record = in_flight("k");
            spoil(record);
            check_error(append_one(*store, 0, record), Code::invalid_argument, word);
        };
        refuse("key", [](Record& r) { r.key = ""; });
        refuse("key", [](Record& r) { r.key.assign(kKeyBytesMax + 1, 'k'); });
        refuse("namespace", [](Record& r) { r.ns = ""; });
        refuse("namespace", [](Record& r) { r.ns.assign(kNamespaceBytesMax + 1, 'n'); });
        refuse("namespace", [](Record& r) { r.ns = "tab\t"; });
        refuse("namespace", [](Record& r) { r.ns = "caf\xc3\xa9"; });
        refuse("owner", [](Record& r) { r.owner.assign(kLabelBytesMax + 1, 'o'); });
        refuse("fingerprint", [](Record& r) { r.fingerprint.assign(kLabelBytesMax + 1, 'f'); });
        refuse("event_id", [](Record& r) { r.event_id.assign(kLabelBytesMax + 1, 'e'); });
        refuse("metadata", [](Record& r) { r.metadata.assign(kMetadataBytesMax + 1, 'm'); });
        refuse("receipt", [](Record& r) {
            r.ttl_ms = 0;
            r.receipt = std::string(kReceiptBytesMax + 1, 'r');
        });
        refuse("receipt", [](Record& r) {
            r.kind = Kind::tombstone;
            r.ttl_ms = 0;
            r.receipt = "r";
        });
        refuse("timestamp_ms", [](Record& r) { r.timestamp_ms = -1; });
        refuse("expires_at_ms", [](Record& r) { r.expires_at_ms = -1; });
        refuse("attempt", [](Record& r) { r.attempt = 0; });
        CHECK(scan_all(*store, {}).empty());
        must_append(*store, 0, in_flight("k"));
    });
}

}  // namespace
}  // namespace dedup::test
