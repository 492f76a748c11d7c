// The contract of StreamStore: what readers see, and what keys are.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "contract/contract.hpp"
#include "dedup/scan.hpp"

namespace dedup::test {
namespace {

TEST_CASE("names that no stream can have are refused by name when read, too") {
    // Guards against "absent" as the answer to a question that makes no sense.
    on_each_store([](TestStore& store) {
        const std::string long_key(kKeyBytesMax + 1, 'k');
        for (const StreamKey stream : {StreamKey{"", "key"}, StreamKey{"a\nb", "key"},
                                       StreamKey{"ns", ""}, StreamKey{"ns", long_key}}) {
            check_error(store->head(stream), Code::invalid_argument);
            check_error(store->history(stream), Code::invalid_argument);
        }
    });
}

TEST_CASE("heads: one answer a stream, in order, also for absent and repeated ones") {
    // Guards against answers that slip to their neighbour when a stream is absent.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, in_flight("a"));
        must_append(*store, 0, completed("b", "receipt"));
        const std::vector<StreamKey> streams = {
            {kNs, "none"}, {kNs, "b"}, {"other", "a"}, {kNs, "a"}, {kNs, "b"}};
        const auto heads = store->heads(streams);
        REQUIRE(heads.size() == streams.size());
        REQUIRE(std::ranges::all_of(heads, [](const auto& head) { return head.has_value(); }));
        CHECK(!*heads[0]);
        CHECK((*heads[1])->receipt == "receipt");
        CHECK(!*heads[2]);
        CHECK((*heads[3])->key == "a");
        CHECK(*heads[4] == *heads[1]);
    });
}

TEST_CASE("records come back as they were appended") {
    // Guards against a field that is lost on its way through the store.
    on_each_store([](TestStore& store) {
        Record record = completed("k\0\xff"s, "receipt\0with\nall"s);
        record.timestamp_ms = 123'456;
        record.expires_at_ms = 0;
        record.attempt = 3;
        record.owner = "worker-7";
        record.fingerprint = "sha256:\x01\x02";
        record.event_id = "evt_1";
        record.metadata = std::string(kMetadataBytesMax, '\0');
        record.conflict = {.count = 12, .fingerprints = {"a", "b"}};
        record.claim_sequence = 5;
        record.sequence = must_append(*store, 0, record);
        CHECK(head_of(*store, record.key) == record);

        Record empty_receipt = completed("empty", "");
        empty_receipt.sequence = must_append(*store, 0, empty_receipt);
        empty_receipt.claim_sequence = empty_receipt.sequence;
        CHECK(head_of(*store, "empty") == empty_receipt);
    });
}

TEST_CASE("history: every version that is kept, oldest first, up to the head") {
    // Guards against an `inspect` that shows a story in the wrong order or with holes.
    on_each_store([](TestStore& store) {
        CHECK(history_of(*store, "k").empty());
        std::vector<std::uint64_t> sequences;
        for (int i = 0; i < 20; ++i) {
            Record record = completed("k", std::to_string(i));
            sequences.push_back(
                must_append(*store, sequences.empty() ? 0 : sequences.back(), record));
            must_append(*store, 0, in_flight("other" + std::to_string(i)));
        }
        const auto history = history_of(*store, "k");
        REQUIRE(history.size() == (store.keeps_versions() ? sequences.size() : 1));
        for (std::size_t i = 0; i < history.size(); ++i) {
            const std::size_t number = sequences.size() - history.size() + i;
            CHECK(history[i].sequence == sequences[number]);
            CHECK(history[i].receipt == std::to_string(number));
        }
        CHECK(std::ranges::is_sorted(sequences));
    });
}

TEST_CASE("history: within limits, the newest versions") {
    // Guards against a history that is read into memory whole, however long it is.
    on_each_store([](TestStore& store) {
        std::uint64_t last = 0;
        for (int i = 0; i < 20; ++i) {
            last = must_append(*store, last, completed("k", std::string(100, 'r')));
        }
        const auto count = [&](const HistoryLimits& limits) {
            const auto versions = store->history({kNs, "k"}, limits);
            REQUIRE(versions.has_value());
            CHECK(versions->back().record.sequence == last);
            CHECK(std::ranges::is_sorted(
                *versions, {}, [](const Version& version) { return version.record.sequence; }));
            return versions->size();
        };
        const std::size_t kept = store.keeps_versions() ? 20 : 1;
        CHECK(count({}) == kept);
        for (const std::size_t max : {1U, 3U, 19U, 20U, 21U}) {
            CHECK(count({.versions_max = max}) == std::min(max, kept));
        }
        CHECK(count({.bytes_max = 0}) == 1);
        CHECK(count({.bytes_max = 100}) == 1);
        CHECK(count({.bytes_max = 101}) == std::min<std::size_t>(2, kept));
        CHECK(count({.bytes_max = 2000}) == kept);
    });
}

TEST_CASE("scan: pages give every head exactly once, in the store's own order") {
    // Guards against a page border that loses or repeats a stream.
    on_each_store([](TestStore& store) {
        std::map<std::string, std::uint64_t> heads;
        std::vector<Append> batch;
        for (int i = 0; i < 300; ++i) {
            batch.push_back({0, in_flight("key-" + std::to_string(i))});
        }
        const auto landed = store->append(batch);
        for (std::size_t i = 0; i < batch.size(); ++i) {
            REQUIRE(landed[i].has_value());
            heads[batch[i].record.key] = *landed[i];
        }
        for (int i = 0; i < 300; i += 3) {  // some heads are superseded
            auto& head = heads["key-" + std::to_string(i)];
            head = must_append(*store, head, completed("key-" + std::to_string(i), "r"));
        }

        for (const std::size_t heads_max : {1U, 7U, 150U, 299U, 300U, 1'000U}) {
            const auto scanned = scan_all(*store, pages_of(heads_max));
            REQUIRE(scanned.size() == heads.size());
            CHECK((!store.keeps_versions() ||
                   std::ranges::is_sorted(scanned, {}, &Record::sequence)));
            for (const Record& record : scanned) {
                CHECK(heads.at(record.key) == record.sequence);
            }
        }
        CHECK(scan_all(*store, {}).size() == heads.size());
    });
}

TEST_CASE("scan: filters by namespace and by prefix") {
    // Guards against `ls --prefix` that shows a neighbour's keys or misses its own.
    on_each_store([](TestStore& store) {
        for (const std::string_view ns : {"one", "two"}) {
            for (const std::string_view key : {"order-1", "order-2", "ord", "invoice-1", "\xff"}) {
                must_append(*store, 0, in_flight(key, ns));
            }
        }
        const auto count = [&](std::string ns, std::string prefix, std::size_t heads_max) {
            ScanOptions options = pages_of(heads_max);
            options.ns = ns;
            options.key_prefix = prefix;
            const auto records = scan_all(*store, options);
            for (const Record& record : records) {
                CHECK((ns.empty() || record.ns == ns));
                CHECK(record.key.starts_with(prefix));
            }
            return records.size();
        };
        for (const std::size_t heads_max : {1U, 2U, 100U}) {
            CHECK(count("", "", heads_max) == 10);
            CHECK(count("one", "", heads_max) == 5);
            CHECK(count("one", "order-", heads_max) == 2);
            CHECK(count("", "ord", heads_max) == 6);
            CHECK(count("", "\xff", heads_max) == 2);
            CHECK(count("three", "", heads_max) == 0);
            CHECK(count("two", "order-1x", heads_max) == 0);
        }
    });
}

TEST_CASE("scan: appends between pages hide no stream") {
    // Guards against a stream that moves across the cursor and is never shown.
    on_each_store([](TestStore& store) {
        std::map<std::string, std::uint64_t> heads;
        for (int i = 0; i < 40; ++i) {
            const std::string key = std::to_string(i);
            heads[key] = must_append(*store, 0, in_flight(key));
        }
        std::map<std::string, int> seen;
        ScanOptions options = pages_of(5);
        for (int changed = 0;; ++changed) {
            const auto page = store->scan(options);
            REQUIRE_MESSAGE(page.has_value(), page.error().message);
            for (const Version& version : page->heads) {
                ++seen[version.record.key];
            }
            options.cursor = page->cursor;
            if (options.cursor.empty()) {
                break;
            }
            if (changed < 6) {  // one that was given, and one that was not yet
                for (const int i : {changed, 39 - changed}) {
                    const std::string key = std::to_string(i);
                    heads[key] = must_append(*store, heads[key], completed(key, "r"));
                }
            }
        }
        CHECK(seen.size() == heads.size());
        for (int i = 6; i < 34; ++i) {  // these did not change
            CHECK(seen[std::to_string(i)] == 1);
        }
    });
}

TEST_CASE("scan: all pages, until there are no more or the caller has enough") {
    // Guards against a walk that leaves a page out, begins again, or hides an error.
    on_each_store([](TestStore& store) {
        for (int i = 0; i < 20; ++i) {
            must_append(*store, 0, in_flight(std::to_string(i)));
        }
        std::map<std::string, int> seen;
        CHECK(for_each_page(*store, pages_of(3), [&](const ScanPage& page) {
            for (const Version& version : page.heads) {
                ++seen[version.record.key];
            }
        }));
        CHECK(seen.size() == 20);
        CHECK(std::ranges::all_of(seen, [](const auto& key) { return key.second == 1; }));
        int pages = 0;
        CHECK(for_each_page(*store, pages_of(3), [&](const ScanPage&) { return ++pages < 2; }));
        CHECK(pages == 2);
        ScanOptions options;
        options.cursor = "nonsense";
        check_error(for_each_page(*store, options, [&](const ScanPage&) { ++pages; }),
                    Code::invalid_argument, "cursor");
        CHECK(pages == 2);
    });
}

TEST_CASE("scan: an empty store, and arguments that make no sense") {
    // Guards against a scan that starts over, or loops, on a cursor that it cannot read.
    on_each_store([](TestStore& store) {
        const auto page = store->scan({});
        REQUIRE(page.has_value());
        CHECK(page->heads.empty());
        CHECK(page->cursor.empty());
        for (const std::string& cursor : {"nonsense"s, "-1"s, " "s, "\0"s, std::string(500, '9')}) {
            ScanOptions options;
            options.cursor = cursor;
            check_error(store->scan(options), Code::invalid_argument, "cursor");
        }
        check_error(store->scan(pages_of(0)), Code::invalid_argument, "heads_max");
    });
}

TEST_CASE("keys: one key in two namespaces is two streams") {
    // Guards against a duplicate answer that comes from somebody else's namespace.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, completed("k", "one", "one"));
        CHECK(!head_of(*store, "k", "two"));
        must_append(*store, 0, completed("k", "two", "two"));
        CHECK(head_of(*store, "k", "one")->receipt == "one");
        CHECK(head_of(*store, "k", "two")->receipt == "two");
        // Neither may the border between namespace and key move.
        must_append(*store, 0, completed("bc", "1", "a"));
        CHECK(!head_of(*store, "c", "ab"));
    });
}

TEST_CASE("keys: any bytes, never trimmed or folded") {
    // Guards against two keys that are taken for one because they look alike.
    on_each_store([](TestStore& store) {
        std::vector<std::string> keys = {"k",
                                         " k",
                                         "k ",
                                         "K",
                                         "k\n",
                                         "k\0"s,
                                         "\0"s,
                                         "\0\0"s,
                                         "\xff\xfe"s,
                                         "k/../k",
                                         "%00"s,
                                         "k:0"s,
                                         "\xc3\xa9"s,
                                         "e\xcc\x81"s,
                                         "\x80"s,
                                         std::string(kKeyBytesMax, 'k'),
                                         std::string(kKeyBytesMax - 1, 'k')};
        for (int byte = 0; byte < 256; ++byte) {
            keys.push_back("byte"s + static_cast<char>(byte));
        }
        std::vector<Append> batch;
        for (const std::string& key : keys) {
            batch.push_back({0, completed(key, "receipt of " + key)});
        }
        for (const auto& result : store->append(batch)) {
            CHECK_MESSAGE(result.has_value(), result.error().message);
        }
        for (const std::string& key : keys) {
            REQUIRE(head_of(*store, key).has_value());
            CHECK(head_of(*store, key)->key == key);
            CHECK(head_of(*store, key)->receipt == "receipt of " + key);
        }
    });
}

// Two keys with one FNV-1a value, hence one stream name; found by a search for distinguished
// points.
constexpr std::string_view kCollidingA = "5mc4mmqtgfpga";
constexpr std::string_view kCollidingB = "obvhalzhbrwfn";
static_assert(kCollidingA != kCollidingB && fnv1a_64(kCollidingA) == fnv1a_64(kCollidingB));

TEST_CASE("keys: two with one FNV-1a value live side by side") {
    // Guards against a false duplicate: a hash taken for the key.
    on_each_store([](TestStore& store) {
        CHECK(stream_name(kNs, kCollidingA) == stream_name(kNs, kCollidingB));
        const std::uint64_t a = must_append(*store, 0, completed(kCollidingA, "a"));
        CHECK(!head_of(*store, kCollidingB));
        CHECK(history_of(*store, kCollidingB).empty());
        check_error(append_one(*store, a, completed(kCollidingB, "b")), Code::sequence_conflict);
        must_append(*store, 0, completed(kCollidingB, "b"));
        must_append(*store, a, completed(kCollidingA, "aa"));
        CHECK(head_of(*store, kCollidingA)->receipt == "aa");
        CHECK(head_of(*store, kCollidingB)->receipt == "b");
        CHECK(history_of(*store, kCollidingA).size() == (store.keeps_versions() ? 2 : 1));
        CHECK(history_of(*store, kCollidingB).size() == 1);
        CHECK(scan_all(*store, pages_of(1)).size() == 2);
    });
}

TEST_CASE("a receipt of the largest size comes back whole") {
    // Guards against a limit somewhere on the way that is lower than the one promised.
    on_each_store([](TestStore& store) {
        std::string receipt(kReceiptBytesMax, '\0');
        std::uint64_t state = 1;
        for (char& byte : receipt) {
            state = state * 6'364'136'223'846'793'005 + 1'442'695'040'888'963'407;
            byte = static_cast<char>(state >> 56);
        }
        must_append(*store, 0, completed("k", receipt));
        must_append(*store, 0, completed("after", "small"));
        CHECK((head_of(*store, "k")->receipt == receipt));  // in brackets: not to be printed
        if (store.durable()) {
            store.reopen();
            CHECK((head_of(*store, "k")->receipt == receipt));
            CHECK(head_of(*store, "after")->receipt == "small");
        }
    });
}

}  // namespace
}  // namespace dedup::test
