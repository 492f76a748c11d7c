// The rule of a bounded store, as a table.

#include <doctest/doctest.h>

#include <optional>
#include <vector>

#include "contract/capacity.hpp"

namespace dedup::test {
namespace {

struct Case {
    const char* what;
    Capacity capacity;
    Usage usage;
    Room wanted;
    std::optional<Room> evicted;  // nullopt: refused
};

TEST_CASE("capacity rule: what goes for an append, or that nothing would help") {
    const std::vector<Case> cases = {
        {"no bound", {}, {{9, 900}, {9, 900}, {9, 900}}, {1, 1'000'000}, Room{}},
        {"room", {.keys_max = 10}, {{9, 0}, {9, 0}, {0, 0}}, {1, 50}, Room{}},
        {"nothing may go", {.keys_max = 10}, {{10, 0}, {10, 0}, {0, 0}}, {1, 50}, std::nullopt},
        {"one of a few", {.keys_max = 10}, {{10, 0}, {10, 0}, {4, 0}}, {1, 50}, Room{1, 0}},
        {"the last one", {.keys_max = 10}, {{10, 0}, {10, 0}, {1, 0}}, {1, 50}, Room{1, 0}},
        {"a sixty-fourth", {.keys_max = 640}, {{640, 0}, {640, 0}, {640, 0}}, {1, 5}, Room{11, 0}},
        {"more than there can be", {.keys_max = 4}, {{4, 0}, {4, 0}, {4, 0}}, {5, 5}, std::nullopt},
        {"as many as there can be", {.keys_max = 4}, {{4, 0}, {4, 0}, {4, 0}}, {4, 5}, Room{4, 0}},
        {"already beyond", {.keys_max = 4}, {{6, 0}, {6, 0}, {6, 0}}, {1, 5}, Room{3, 0}},
        {"garbage is enough",
         {.bytes_max = 1'600},
         {{9, 1'600}, {9, 500}, {9, 500}},
         {1, 100},
         Room{}},
        {"some and garbage",
         {.bytes_max = 1'600},
         {{9, 1'600}, {9, 1'550}, {9, 1'550}},
         {1, 100},
         Room{0, 150}},
        {"an item larger than the bound",
         {.bytes_max = 1'600},
         {{0, 80}, {0, 80}, {0, 0}},
         {1, 1'521},
         std::nullopt},
        {"an item as large as the bound",
         {.bytes_max = 1'600},
         {{3, 500}, {3, 500}, {3, 420}},
         {1, 1'520},
         Room{0, 420}},
        {"in flight leaves too little",
         {.bytes_max = 1'600},
         {{9, 1'600}, {9, 1'500}, {1, 100}},
         {1, 300},
         std::nullopt},
        {"both bounds",
         {.keys_max = 10, .bytes_max = 1'600},
         {{10, 1'600}, {10, 1'600}, {10, 1'600}},
         {1, 100},
         Room{1, 200}},
        {"one of both bounds",
         {.keys_max = 100, .bytes_max = 1'600},
         {{10, 1'600}, {10, 1'600}, {10, 1'600}},
         {1, 100},
         Room{0, 200}},
        {"numbers near the end",
         {.bytes_max = UINT64_MAX},
         {{1, UINT64_MAX}, {1, UINT64_MAX}, {1, UINT64_MAX}},
         {1, 10},
         Room{0, (std::uint64_t{1} << 60) + 9}},
    };
    for (const Case& each : cases) {
        INFO(each.what);
        const auto plan = plan_eviction("it", each.capacity, each.usage, each.wanted);
        REQUIRE(plan.has_value() == each.evicted.has_value());
        if (plan) {
            CHECK(plan->keys == each.evicted->keys);
            CHECK(plan->bytes == each.evicted->bytes);
        } else {
            CHECK(plan.error().code == Code::out_of_space);
            const std::string needs = each.capacity.keys_max != 0
                                          ? std::to_string(each.wanted.keys) + " new keys"
                                          : std::to_string(each.wanted.bytes) + " bytes";
            CHECK(plan.error().message.find("needs " + needs) != std::string::npos);
        }
    }
}

}  // namespace
}  // namespace dedup::test
