// Memory that runs out when a test wants it to: in this executable operator new, and what C asks
// malloc for, can be made to fail.
#pragma once

#include <cstdint>

namespace dedup::test {

// Whose allocations are counted, and fail.
enum class Whose : std::uint8_t { mine, others, all };

// While one lives, allocations number `first` (from 1), and those behind it up to `last`, fail.
class FailingAllocations {
  public:
    FailingAllocations(Whose whose, std::uint64_t first, std::uint64_t last);
    ~FailingAllocations();
    FailingAllocations(const FailingAllocations&) = delete;
    FailingAllocations& operator=(const FailingAllocations&) = delete;

    // So far; how many allocations there were, and how many of them failed.
    [[nodiscard]] static std::uint64_t counted();
    [[nodiscard]] static std::uint64_t failed();
};

// What this thread does meanwhile is the test's own, and does not fail.
class UnfailingScope {
  public:
    UnfailingScope();
    ~UnfailingScope();
    UnfailingScope(const UnfailingScope&) = delete;
    UnfailingScope& operator=(const UnfailingScope&) = delete;
};

}  // namespace dedup::test
