// The in-memory index against a plain map.

#include <doctest/doctest.h>

#include <map>
#include <random>

#include "index/delta.hpp"

namespace dedup::test {
namespace {

TEST_CASE("a delta holds what a map holds, while it grows and ids collide") {
    std::minstd_rand random(3);
    Delta delta(0);
    std::map<std::pair<std::uint64_t, std::uint32_t>, IndexEntry> model;  // by id and stream
    std::uint32_t offset = 1;
    for (int i = 0; i < 5'000; ++i) {
        const StreamId id{random() % 800 << (random() % 2 * 32)};  // equal tags, and equal homes
        const std::uint32_t stream = random() % 2;                 // two streams may share an id
        IndexEntry& known = model[{id.xxh, stream}];
        const std::uint64_t replaced = known.sequence;
        known = {id, static_cast<std::uint64_t>(i + 1), offset++ / 2, stream};  // two to a frame
        delta.put(known, replaced);
    }
    REQUIRE(delta.size() == model.size());
    for (const auto& [name, entry] : model) {
        const IndexEntry* found =
            delta.find(entry.id, [&](const IndexEntry& at) { return at.packed == name.second; });
        REQUIRE(found != nullptr);
        REQUIRE(*found == entry);
    }
    const auto sorted = delta.sorted();
    REQUIRE(sorted.size() == model.size());
    for (std::size_t i = 1; i < sorted.size(); ++i) {
        REQUIRE(sorted[i - 1].id <= sorted[i].id);
    }
    CHECK(delta.find({99'999}) == nullptr);
    CHECK(delta.sorted() == sorted);
    delta.clear();
    CHECK(delta.size() == 0);
    CHECK(delta.find(sorted.front().id) == nullptr);
}

TEST_CASE("a delta that is small at first grows to its whole size at once") {
    Delta delta(2, 1000);
    CHECK(delta.memory_bytes() < 1024);
    for (std::uint64_t i = 1; i <= 3; ++i) {
        delta.put({{i << 40 | i}, i, 1, 0}, 0);
    }
    CHECK(delta.has_room(997));
    const std::size_t grown = delta.memory_bytes();
    for (std::uint64_t i = 4; i <= 1000; ++i) {
        delta.put({{i << 40 | i}, i, 1, 0}, 0);
    }
    CHECK(delta.memory_bytes() == grown);
    for (std::uint64_t i = 1; i <= 1000; ++i) {
        CHECK(delta.find({i << 40 | i})->sequence == i);
    }
}

}  // namespace
}  // namespace dedup::test
