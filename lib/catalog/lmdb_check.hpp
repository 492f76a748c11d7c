// Checking an LMDB file before LMDB maps it.
//
// LMDB has no checksums and trusts its file: a flipped bit in one of its pages makes it read
// outside of the map, loop, or write over pages that are in use. What the catalog's values say is
// guarded by their own checksums; this guards the structure around them. Only tree pages and lists
// of free pages are read, a few kilobytes whatever the size of the store.
#pragma once

#include <optional>
#include <string>

#include "env/env.hpp"

namespace dedup {

// Checks the newest committed state of the file: that it is as long as it says, but for free pages
// at its end; that its pages are what their headers and counters claim; that keys ascend; and that
// no page serves two purposes.
// Works beside a live writer. Errors: corruption, io.
[[nodiscard]] Result<void> check_lmdb_file(const Path& path);

}  // namespace dedup
