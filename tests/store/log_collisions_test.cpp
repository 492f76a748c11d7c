// Streams that share an id in one frame.
//
// An atomic batch is one frame, so an entry's place does not tell two of its streams apart. If one
// entry stood for the other, a stream would show an old record, and a dead fence would be alive.

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

LogStoreInternals all_ids_equal() {
    LogStoreInternals internals;
    internals.id_mask = 0;
    return internals;
}

struct Heads {
    std::map<std::string, std::uint64_t> sequences;
    std::map<std::string, std::uint64_t> previous;  // sequences, of the versions before
    std::map<std::string, std::string> receipts;
};

// Appends a new version of some of the keys in one atomic batch.
void append_versions(StreamStore& store, const std::vector<std::string>& keys, int version,
                     Heads& heads) {
    std::vector<Append> batch;
    for (const std::string& key : keys) {
        heads.receipts[key] = key + "-" + std::to_string(version);
        batch.push_back({heads.sequences[key], completed_record(key, heads.receipts[key])});
    }
    const auto results = store.append(batch, Batch::atomic);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        REQUIRE_MESSAGE(results[i], (results[i] ? "" : results[i].error().message));
        heads.previous[keys[i]] = std::exchange(heads.sequences[keys[i]], *results[i]);
    }
}

void check_all(StreamStore& store, const Heads& heads) {
    for (const auto& [key, receipt] : heads.receipts) {
        INFO(key);
        CHECK(receipt_of(store, key) == receipt);
        const auto head = store.head({"test", key});
        REQUIRE(head);
        CHECK((*head)->sequence == heads.sequences.at(key));
        // The one before is no head any more.
        const Append stale{heads.previous.at(key), completed_record(key, "stale")};
        CHECK_FALSE(store.append({&stale, 1})[0]);
    }
    const auto stats = store.stats();
    REQUIRE(stats);
    CHECK(stats->completed == heads.receipts.size());
    const auto page = store.scan({.ns = "test"});
    REQUIRE(page);
    CHECK(page->heads.size() == heads.receipts.size());
}

TEST_CASE("equal ids in one atomic batch: each stream keeps its own head") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    Heads heads;
    {
        const auto store = must_open(path, small_segments(), posix_env(), all_ids_equal());
        append_versions(*store, {"A", "B", "C"}, 1, heads);
        check_all(*store, heads);
        append_versions(*store, {"B"}, 2, heads);  // alone: it must not take A's place
        check_all(*store, heads);
        append_versions(*store, {"C", "A"}, 3, heads);
        append_versions(*store, {"C"}, 4, heads);
        check_all(*store, heads);
        crash_copy(path, dir.path() / "replayed");
        // Enough for the segment with the batches to be sealed.
        while (store->stats()->segments_sealed == 0) {
            append_versions(*store, {std::string(900, 'f')}, 0, heads);
        }
        wait_until_sealed(*store);
        check_all(*store, heads);
        REQUIRE(store->close());
    }
    const auto again = must_open(path, small_segments(), posix_env(), all_ids_equal());
    check_all(*again, heads);
}

TEST_CASE("equal ids in one atomic batch: the same after a replay and in the catalog") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::minstd_rand random(11);
    const std::vector<std::string> keys = {"a", "b", "c", "d", "e", "f"};
    Heads heads;
    for (int life = 0; life < 6; ++life) {
        const auto store = must_open(path, small_segments(), posix_env(), all_ids_equal());
        for (int i = 0; i < 60; ++i) {
            std::vector<std::string> some;
            for (const std::string& key : keys) {
                if (random() % 2 == 0) {
                    some.push_back(key + std::string(life % 2 == 0 ? 0 : 200, '.'));
                }
            }
            if (!some.empty()) {
                append_versions(*store, some, life * 100 + i, heads);
            }
        }
        check_all(*store, heads);
        crash_copy(path, dir.path() / std::to_string(life));
        const auto copy = must_open(dir.path() / std::to_string(life), small_segments(),
                                    posix_env(), all_ids_equal());
        check_all(*copy, heads);  // replayed, and of another lock
        REQUIRE(store->close());
    }
}

}  // namespace
}  // namespace dedup::test
