// Who may write to a store.
#pragma once

#include <memory>

#include "env/env.hpp"
#include "env/places.hpp"

namespace dedup {

// Env::lock, of a lock file in the store that `places` are of.
[[nodiscard]] Result<std::unique_ptr<Lock>> lock_file(Places& places, const Path& path,
                                                      const LockWait& wait);

// Env::lock_out.
[[nodiscard]] Result<std::unique_ptr<Lock>> lock_out_writers(const Path& path);

}  // namespace dedup
