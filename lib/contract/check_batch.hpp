// What makes a batch impossible whatever the store holds: the same for every engine.
#pragma once

#include <span>

#include "dedup/store.hpp"

namespace dedup {

// Errors: invalid_argument. In Batch::each it looks at the number of items only: a bad item is that
// item's error, see check_record.
[[nodiscard]] Result<void> check_batch(std::span<const Append> batch, Batch mode);

[[nodiscard]] Error atomic_batch_too_large();

// The stream of `item` has another head than it expects.
[[nodiscard]] Error sequence_conflict(const Append& item, std::uint64_t head);

}  // namespace dedup
