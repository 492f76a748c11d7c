// Sealed indexes and filters against a sorted array, with even, skewed and damaged contents.

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "index/filter.hpp"
#include "index/sealed_index.hpp"
#include "support/blob.hpp"

namespace dedup::test {
namespace {

std::vector<IndexEntry> entries_of(const std::vector<std::uint64_t>& hashes) {
    std::vector<IndexEntry> entries;
    for (const std::uint64_t hash : hashes) {
        entries.push_back({{hash}, entries.size() + 1, 80, 0});
    }
    std::ranges::sort(entries, {}, [](const IndexEntry& entry) { return entry.id; });
    return entries;
}

std::string index_blob(const std::vector<IndexEntry>& entries) {
    return make_blob(index_data(entries), 1);
}

SealedIndex open_index(const std::string& blob, std::size_t entries) {
    const std::uint64_t bytes = index_bytes(entries);
    return {CheckedBlob(blob, bytes, 1, std::make_shared<CheckedBlocks>(bytes)), entries};
}

TEST_CASE("a search finds the place that a plain search finds, however the hashes lie") {
    // Guards against interpolation that misses an entry: a miss is a key taken for new.
    std::mt19937_64 random(5);
    std::vector<std::vector<std::uint64_t>> sets(6);
    for (int i = 0; i < 5000; ++i) {
        sets[0].push_back(random());                             // even, as hashes are
        sets[1].push_back(random() % 1000);                      // all at the low end, many equal
        sets[2].push_back(UINT64_MAX - random() % 9);            // all at the high end
        sets[3].push_back(std::uint64_t{1} << (random() % 64));  // exponential
        sets[4].push_back(i < 2500 ? 0 : UINT64_MAX);
    }
    sets[5] = {42};
    sets.emplace_back();
    for (const auto& hashes : sets) {
        const auto entries = entries_of(hashes);
        const std::string blob = index_blob(entries);
        const SealedIndex index = open_index(blob, entries.size());
        std::vector<StreamId> questions = {{0}, {1}, {UINT64_MAX}};
        for (const IndexEntry& entry : entries) {
            questions.push_back(entry.id);
            questions.push_back({entry.id.xxh - 1});
            questions.push_back({entry.id.xxh + 1});
        }
        for (const StreamId& id : questions) {
            const auto expected = std::ranges::lower_bound(
                entries, id, {}, [](const IndexEntry& entry) { return entry.id; });
            REQUIRE(index.lower_bound(id) ==
                    static_cast<std::uint64_t>(expected - entries.begin()));
        }
    }
}

TEST_CASE("a flipped byte in an index never leads a search astray") {
    // Guards against a key that is taken for new because a bit of the index has rotted.
    std::mt19937_64 random(6);
    std::vector<std::uint64_t> hashes(1000);
    std::ranges::generate(hashes, std::ref(random));
    const auto entries = entries_of(hashes);
    const std::string blob = index_blob(entries);
    for (std::size_t at = kBlobPadBytes; at < blob.size(); at += 61) {
        std::string damaged = blob;
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        const SealedIndex index = open_index(damaged, entries.size());
        bool noticed = false;
        for (std::uint64_t i = 0; i < entries.size(); ++i) {
            const auto found = index.lower_bound(entries[i].id);
            const auto entry = index.entry(i);
            noticed = noticed || !found || !entry;
            REQUIRE((!found || *found == i));
            REQUIRE((!entry || *entry == entries[i]));
        }
        REQUIRE(noticed);
    }
}

TEST_CASE("a filter knows every key that it was built from, and few others") {
    // Guards against false negatives, each of which would be a key taken for new.
    std::mt19937_64 random(7);
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{100'000}}) {
        std::vector<std::uint64_t> hashes(count);
        std::ranges::generate(hashes, std::ref(random));
        const auto entries = entries_of(hashes);
        // The second of a run: each must keep to its own room.
        const std::vector<std::uint64_t> counts = {3, count, 5};
        const auto run = FilterRun::allocate(counts, JointFilter::bytes_for(count));
        REQUIRE(run);
        build_filter(entries, run->data(1));
        const std::uint64_t joint_bytes = JointFilter::bytes_for(count);
        for (const IndexEntry& entry : entries) {
            FilterBits(entry.id).add_to<JointFilter>(run->joint_data(), joint_bytes);
        }
        const Filter filter = run->filters()[1];
        for (const IndexEntry& entry : entries) {
            const FilterBits bits(entry.id);
            REQUIRE(bits.in(filter));
            REQUIRE(bits.in(run->joint()));
            REQUIRE_FALSE(bits.in(run->filters()[0]));
            REQUIRE_FALSE(bits.in(run->filters()[2]));
        }
        int false_positives = 0;
        int joint_false_positives = 0;
        for (int i = 0; i < 100'000; ++i) {
            const FilterBits bits({random()});
            false_positives += bits.in(filter);
            joint_false_positives += bits.in(run->joint());
        }
        CHECK(false_positives < 1'000);  // below 1 %
        CHECK(joint_false_positives < 7'000);
    }
}

}  // namespace
}  // namespace dedup::test
