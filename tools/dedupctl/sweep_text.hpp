// The report of a sweep as tables and as JSON.
#pragma once

#include <cstdint>

#include "dedup/sweep.hpp"
#include "output.hpp"
#include "table.hpp"

namespace dedupctl {

// Every field of the report.
[[nodiscard]] Json sweep_json(const dedup::SweepReport& report);

// The whole report, for people.
void print_sweep(Output& out, const dedup::SweepReport& report, std::int64_t now_ms);

// Sweeps one a row. The columns' widths are fixed, so that rows printed hours apart stand under
// each other.
[[nodiscard]] Table sweep_table();
void add_sweep_row(Table& table, const dedup::SweepReport& report);

}  // namespace dedupctl
