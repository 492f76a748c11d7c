// What of the log cannot be read. It costs the keys that lie there: whoever asks for one of them
// gets the error, a sweep goes on around it, and the segment stays until all of it has expired.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "env/mutex.hpp"
#include "log/segment.hpp"

namespace dedup {

// Any thread may call any of these.
class Damage {
  public:
    // Notes that the record at this place cannot be read. Gives `error` back if that is no damage:
    // not even the segment's first bytes can be read, so that it is the disk which fails.
    [[nodiscard]] Result<void> note(const Segment& segment, std::uint64_t offset,
                                    const Error& error);
    [[nodiscard]] bool has(std::uint64_t segment_id) const;
    // Segments that have been dropped have no damage any more.
    void forget(std::span<const std::uint64_t> segment_ids);
    // How many places there are, and what is wrong with the first.
    [[nodiscard]] std::pair<std::uint64_t, std::string> places() const;

  private:
    mutable Mutex mutex_;
    // By segment and offset.
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::string> places_ DEDUP_GUARDED_BY(mutex_);
};

}  // namespace dedup
