// A store in memory, for tests and simulation. Nothing survives its destruction.
#pragma once

#include <memory>

#include "dedup/store.hpp"

namespace dedup {

// Fulfils the whole contract of StreamStore except durability. Its bytes are an estimate. It closes
// itself should memory run out in the middle of an atomic batch, of which nobody may see a part.
// `trust_clock`: as in OpenOptions.
[[nodiscard]] DEDUP_API std::unique_ptr<StreamStore> make_memory_store(
    Clock clock = system_now_ms, std::chrono::milliseconds grace = kDefaultGrace,
    const Capacity& capacity = {}, bool trust_clock = false);

}  // namespace dedup
