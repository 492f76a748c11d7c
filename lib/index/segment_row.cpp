#include "index/segment_row.hpp"

#include <algorithm>

namespace dedup {

std::uint64_t SegmentRow::bytes_of(const StateCounts& counts) const {
    std::uint64_t sum = 0;
    for (const State state : {State::in_flight, State::completed, State::released}) {
        if (versions[state] != 0) {
            sum += version_bytes[state] / versions[state] * counts[state];
        }
    }
    return std::min(sum, bytes);
}

}  // namespace dedup
