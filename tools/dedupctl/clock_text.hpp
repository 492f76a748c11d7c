// What a store knows of its clock, as text and as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/time_text.hpp"
#include "dedup/clock.hpp"
#include "dedup/sweep.hpp"
#include "output.hpp"
#include "table.hpp"

namespace dedupctl {

// More than this, and people are told.
inline constexpr milliseconds kAheadWorthSaying = std::chrono::minutes{1};

// Tells people on standard error, once, if the store's time is ahead of the system's.
void warn_if_ahead(std::int64_t store_ms, std::int64_t system_ms);

[[nodiscard]] Json clock_json(const dedup::ClockHistory& clock);
// Null if nothing is withheld.
[[nodiscard]] Json withheld_json(const std::optional<dedup::SweepWithheld>& withheld);

// "the clock jumped from ... to ...; sweeps remove nothing until ...": without the way out.
[[nodiscard]] std::string withheld_text(const dedup::SweepWithheld& withheld);
// The way out.
[[nodiscard]] std::string withheld_hint(const dedup::SweepWithheld& withheld);

void add_clock_rows(Table& table, const dedup::ClockHistory& clock);

}  // namespace dedupctl
