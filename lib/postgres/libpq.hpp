// libpq, loaded when the first store in PostgreSQL is opened: its thirty libraries for TLS,
// Kerberos and LDAP would cost each process that uses a store in a directory a few milliseconds
// and as many megabytes.
#pragma once

#include "dedup/error.hpp"

namespace dedup::pg {

// Loads it, unless it is there. No function of libpq may be called before this has succeeded: also
// about a caller's connection, which may be that of a libpq within the program.
// Errors: unavailable, if this machine has none.
[[nodiscard]] Result<void> load_libpq();

}  // namespace dedup::pg
