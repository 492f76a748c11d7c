// The same as the public functions, in any environment and at paths that are fixed.
#pragma once

#include <optional>

#include "dedup/backup.hpp"
#include "store/log_store.hpp"

namespace dedup {

[[nodiscard]] Result<BackupReport> backup(Env& env, const Path& store, const Path& target,
                                          const BackupOptions& options, const Progress& progress);

[[nodiscard]] Result<RestoreReport> restore(Env& env, const Path& backup, const Path& target,
                                            const RestoreOptions& options,
                                            const Progress& progress);

}  // namespace dedup
