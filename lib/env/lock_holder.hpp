// Who holds the lock of a store: what its file says, and what the system knows of it.
#pragma once

#include <string>

#include "env/env.hpp"

namespace dedup {

// What whoever takes the lock writes into its file, for people and for describe_holder. The first
// line is the pid.
[[nodiscard]] std::string lock_text();

// The error for a store whose lock somebody else holds. `locked_fd` is an open file or directory
// that is locked, `text` what stands in the lock file. Names a process that lives, or says that
// the writer is gone. Only for people: it is not known what becomes of the holder meanwhile.
[[nodiscard]] Error busy_error(const Path& store, int locked_fd, std::string_view text);

}  // namespace dedup
