#include "engine/view.hpp"

namespace dedup {

std::shared_ptr<View> with_sealed(const View& view, SnapshotPtr sealed) {
    auto after = std::make_shared<View>();
    after->horizon = view.horizon;
    const std::uint64_t last = sealed->segments().empty() ? 0 : sealed->segments().back().row.id;
    for (const auto& unsealed : view.unsealed) {
        if (unsealed->segment->id() > last) {
            after->unsealed.push_back(unsealed);
        }
    }
    after->sealed = std::move(sealed);
    return after;
}

UnsealedEntries probe(const View& view, const StreamId& id) {
    UnsealedEntries found;
    for (const auto& unsealed : view.unsealed) {
        (void)unsealed->delta.find(id, [&](const IndexEntry& entry) {
            UnsealedEntry& at =
                found.newest.segment == nullptr ? found.newest : found.older.emplace_back();
            at = {unsealed->segment.get(), entry};
            return false;
        });
    }
    return found;
}

Census UnsealedNumbers::census(std::size_t part) const {
    const std::uint64_t id = parts[part].row.id;
    return {parts[part].streams, tally_of(superseded, id), tally_of(reclaimed, id)};
}

bool UnsealedNumbers::removes_all(std::size_t part, const Horizon& horizon) const {
    return sequence <= horizon.sequence &&
           parts[part].row.expires_max_ms < horizon.expired_before_ms;
}

}  // namespace dedup
