// The items of a dump for programs.
#pragma once

#include "dedup/dump.hpp"
#include "output.hpp"

namespace dedupctl {

// One object for each item. Its member "item" says which it is.
[[nodiscard]] Json dump_json(const dedup::DumpItem& item);

}  // namespace dedupctl
