// What can still be told of frames whose checksum is wrong.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dedup/record.hpp"
#include "log/segment.hpp"

namespace dedup {

// A record in a damaged frame, as far as it could be made out. Nothing of it is proven, so it
// serves for one thing only: to tell whoever asks for this key that it may be lost.
struct DamagedRecord {
    std::uint32_t offset = 0;  // of its frame
    std::uint64_t sequence = 0;
    std::string ns;
    std::string key;               // empty: nobody can tell, and the record is
    std::uint64_t unnamed_id = 0;  // found under this id by nobody, but counted
    State state = State::in_flight;
    std::int64_t expires_at_ms = 0;
};

// The records between `begin` and `end` of a segment, where no valid frame begins.
// Errors: io.
[[nodiscard]] Result<std::vector<DamagedRecord>> read_damaged(const Segment& segment,
                                                              std::uint64_t begin,
                                                              std::uint64_t end);

}  // namespace dedup
