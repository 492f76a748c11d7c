// Remembers ids that no sealed segment has.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "log/stream_id.hpp"

namespace dedup {

// A claim of a new key asks the filters of all sealed segments twice: when the claim looks for the
// key, and when the leader of its group compares the head with the expected one. The second time
// the answer is here. Each id has one place, where a later one takes over. Any number of threads
// may use it at once.
class AbsentIds {
  public:
    [[nodiscard]] bool has(const StreamId& id) {
        return id.xxh != 0 && place(id).load(std::memory_order_relaxed) == id.xxh;
    }
    void add(const StreamId& id) { place(id).store(id.xxh, std::memory_order_relaxed); }

  private:
    static constexpr std::size_t kPlaces = 8192;  // 64 KiB

    [[nodiscard]] std::atomic<std::uint64_t>& place(const StreamId& id) {
        return ids_[id.xxh % kPlaces];
    }

    std::array<std::atomic<std::uint64_t>, kPlaces> ids_{};
};

}  // namespace dedup
