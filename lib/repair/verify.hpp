// Checking a store: every frame against its checksum, every record against the indexes, and every
// index entry against the log. Of a store that does not open, the log alone.
#pragma once

#include "store/log_store.hpp"

namespace dedup {

// Of an open store. Errors: closed, corruption or io of what is needed to read on; all else is a
// problem in the report.
[[nodiscard]] Result<VerifyReport> verify(LogStore& store, const Progress& progress = {});

// The same as the public one, in any environment.
[[nodiscard]] Result<VerifyReport> verify(Env& env, const Path& path,
                                          const Progress& progress = {});

}  // namespace dedup
