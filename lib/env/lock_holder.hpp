// Who holds the lock of a store: what its file says, and what the system knows of it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <string>
#include <string_view>

#include "env/env.hpp"

namespace dedup {

// What whoever takes the lock writes into its file, for people and for describe_holder. The first
// line is the pid.
[[nodiscard]] std::string lock_text();

// What lock_text() says, read again; 0 and empty where it does not.
struct Holder {
    pid_t pid = 0;
    std::uint64_t start = 0;
    std::uint64_t pid_namespace = 0;
    std::time_t since = 0;
    std::string host = {};
};
[[nodiscard]] Holder holder_in(std::string_view text);

// The error for a store whose lock somebody else holds. `locked_fd` is an open file or directory
// that is locked, `text` what stands in the lock file. Names a process that lives, or says that
// the writer is gone. Only for people: it is not known what becomes of the holder meanwhile.
[[nodiscard]] Error busy_error(const Path& store, int locked_fd, std::string_view text);

}  // namespace dedup
