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
    for (int i = 0; i < 20'000; ++i) {
        const StreamId id{random() % 3000 << (random() % 2 * 32)};  // equal tags, and equal homes
        const std::uint32_t stream = random() % 2;                  // two streams may share an id
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

}  // namespace
}  // namespace dedup::test
