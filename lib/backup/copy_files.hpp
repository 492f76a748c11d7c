// Copying the files of a store into a directory that is becoming its copy.
#pragma once

#include <cstdint>
#include <optional>

#include "dedup/backup.hpp"
#include "store/log_store.hpp"

namespace dedup {

// Where files come from and go to.
struct CopyPlace {
    Env& env;
    Path to;                         // the directory of the new copy, made and locked
    std::optional<Path> older = {};  // a copy of the same store, whose files can be shared
    bool link = false;               // with the store, too
};

// Copies what `store`, open for reading, shows, as far as its last call has followed the writer:
// segments, indexes and the catalog. Adds what it does to `report`. All of it is durable then,
// with the names in the two directories. Errors: io, out_of_space, corruption.
[[nodiscard]] Result<void> copy_files(LogStore& store, const CopyPlace& place, BackupReport& report,
                                      const Progress& progress);

}  // namespace dedup
