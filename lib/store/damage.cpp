// What of the log cannot be read. It costs the keys that lie there: whoever asks for one of them
// gets the error, a sweep goes on around it, and the segment stays until all of it has expired.

#include "store/log_store.hpp"

namespace dedup {

// Notes that the record at this place cannot be read. Gives `error` back if that is no damage: not
// even the segment's first bytes can be read, so that it is the disk which fails.
Result<void> LogStore::note_damage(const Segment& segment, std::uint64_t offset,
                                   const Error& error) const {
    char byte = 0;
    if (error.code != Code::corruption && !segment.file().read(0, {&byte, 1})) {
        return std::unexpected(error);
    }
    const std::lock_guard lock(damage_mutex_);
    damaged_places_.try_emplace({segment.id(), offset}, error.message);
    return {};
}

bool LogStore::has_damage(std::uint64_t segment_id) const {
    const std::lock_guard lock(damage_mutex_);
    const auto at = damaged_places_.lower_bound({segment_id, 0});
    return at != damaged_places_.end() && at->first.first == segment_id;
}

// Segments that have been dropped have no damage any more.
void LogStore::forget_damage(std::span<const std::uint64_t> segment_ids) {
    const std::lock_guard lock(damage_mutex_);
    for (const std::uint64_t id : segment_ids) {
        damaged_places_.erase(damaged_places_.lower_bound({id, 0}),
                              damaged_places_.lower_bound({id + 1, 0}));
    }
}

// How many places there are, and what is wrong with the first.
std::pair<std::uint64_t, std::string> LogStore::damage() const {
    const std::lock_guard lock(damage_mutex_);
    return {damaged_places_.size(), damaged_places_.empty() ? "" : damaged_places_.begin()->second};
}

}  // namespace dedup
