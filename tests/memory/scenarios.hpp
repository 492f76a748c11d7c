// What is done while memory runs out.
#pragma once

#include <span>

#include "memory/allocations.hpp"
#include "memory/life.hpp"

namespace dedup::test {

struct Scenario {
    const char* name;
    Whose whose;
    // Runs in a child that ends then as if it had been killed; leaves the store as it is to be
    // found, at a path that is empty.
    void (*begin)(Life& life);
    // Before memory runs out, in the process where it will.
    void (*prepare)(Life& life);
    void (*run)(Life& life);
};

[[nodiscard]] std::span<const Scenario> scenarios();

}  // namespace dedup::test
