// The heads of all streams, a page at a time.
#pragma once

#include "dedup/store.hpp"
#include "engine/reader.hpp"

namespace dedup {

// What a scan does about a record that cannot be read.
enum class OnDamage : std::uint8_t {
    stop,  // gives its error
    pass,  // notes it, and goes on behind it
};

// See StreamStore::scan.
[[nodiscard]] Result<ScanPage> scan(const Reader& reader, const ScanOptions& options,
                                    OnDamage on_damage);

}  // namespace dedup
