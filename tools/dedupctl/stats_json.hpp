// What a store holds, in the words of `stats --json`.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "dedup/store.hpp"
#include "output.hpp"

namespace dedupctl {

// What a sweep would do now. That it cannot be said must not hide the rest of the numbers.
using NextSweep = dedup::Result<dedup::SweepReport>;

[[nodiscard]] double bytes_per_key(const dedup::StoreStats& stats);

// What of the log could not be read, and the first place: the sweep to come reads more of it.
[[nodiscard]] std::pair<std::uint64_t, std::string> known_damage(const dedup::StoreStats& stats,
                                                                 const NextSweep* next);

// `next` may be null: that was not asked for.
[[nodiscard]] Json stats_json(const std::string& store, const dedup::StoreStats& stats,
                              const NextSweep* next);

}  // namespace dedupctl
