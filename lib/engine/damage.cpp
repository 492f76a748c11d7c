#include "engine/damage.hpp"

namespace dedup {

Result<void> Damage::note(const Segment& segment, std::uint64_t offset, const Error& error) {
    char byte = 0;
    if (error.code != Code::corruption && !segment.file().read(0, {&byte, 1})) {
        return std::unexpected(error);
    }
    const MutexLock lock(mutex_);
    places_.try_emplace({segment.id(), offset}, error.message);
    return {};
}

bool Damage::has(std::uint64_t segment_id) const {
    const MutexLock lock(mutex_);
    const auto at = places_.lower_bound({segment_id, 0});
    return at != places_.end() && at->first.first == segment_id;
}

void Damage::forget(std::span<const std::uint64_t> segment_ids) {
    const MutexLock lock(mutex_);
    for (const std::uint64_t id : segment_ids) {
        places_.erase(places_.lower_bound({id, 0}), places_.lower_bound({id + 1, 0}));
    }
}

std::pair<std::uint64_t, std::string> Damage::places() const {
    const MutexLock lock(mutex_);
    return {places_.size(), places_.empty() ? "" : places_.begin()->second};
}

}  // namespace dedup
