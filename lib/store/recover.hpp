// Opening a store for writing: repairing what a crash left.
//
// What a process that died has written is read whether or not it has been flushed, and after a
// flush that failed it is read although it is not on the disk. So recovery changes nothing by what
// it has read before that is durable. The order: read; make the newest segment durable, then the
// names; then change the catalog; then remove files.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/log_clock.hpp"
#include "store/engine.hpp"

namespace dedup {

// What recovery has found, for stats().
struct Recovered {
    std::uint64_t torn_bytes_dropped = 0;
    bool catalog_rebuilt = false;
};

// Opens the store whose log has the segments `ids`, which are some. Its lock is held, and there are
// no other threads. Starts none.
[[nodiscard]] Result<Recovered> recover(StoreContext& context, ShownView& shown,
                                        const Reader& reader, StoreCatalog& catalog,
                                        LogClock& clock, Engine& engine,
                                        const std::vector<std::uint64_t>& ids);

}  // namespace dedup
