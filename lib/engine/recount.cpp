#include <algorithm>
#include <utility>

#include "engine/count.hpp"
#include "record/try.hpp"

namespace dedup {

Result<Recounted> recount(const Reader& reader, const View& view, const SealedSegment& sealed,
                          const Horizon& horizon, std::uint64_t as_of) {
    Recounted counted;
    auto done = reader.visit_entries(sealed, [&](const IndexEntry& entry) -> Result<void> {
        FrameBuffer buffer;
        Located at;
        if (const auto read = reader.read_entry(*sealed.segment, entry, at, buffer);
            !read || !*read) {
            ++counted.damaged;
            return read ? Result<void>() : std::unexpected(read.error());
        }
        const RecordView& record = at.record;
        if (horizon.removes(record.state(), entry.sequence, record.expires_at_ms)) {
            ++counts_of(counted.removed, record.ns)[record.state()];
            return {};
        }
        if (record.expires_at_ms != 0) {
            counted.expires_min_ms = std::min(counted.expires_min_ms, record.expires_at_ms);
        }
        const auto head = reader.was_head(view, at, as_of);
        if (!head) {
            return std::unexpected(head.error());
        }
        ++counts_of(*head ? counted.live : counted.superseded, record.ns)[record.state()];
        return {};
    });
    if (!done) {
        return std::unexpected(done.error());
    }
    return counted;
}

bool may_show(const Reader& reader, const SealedSegment& sealed, const Horizon& horizon,
              std::uint64_t live) {
    if (sealed.row.expires_max_ms < horizon.expired_before_ms ||
        sealed.row.streams.total() == live) {
        return false;
    }
    std::uint64_t left = 0;
    FrameBuffer buffer;
    for (std::uint64_t i = 0; i < sealed.index.size() && left <= live; ++i) {
        const auto entry = sealed.index.entry(i);
        if (!entry) {
            return true;
        }
        if (horizon.surely_removes(*entry)) {
            continue;
        }
        Located at;
        const auto removable = horizon.may_remove(*entry)
                                   ? reader.read_entry(*sealed.segment, *entry, at, buffer)
                                   : false;
        left += !removable.value_or(false) ||
                !horizon.removes(at.record.state(), entry->sequence, at.record.expires_at_ms);
    }
    return left > live;
}

namespace {

// Calls visit(namespace, state) for all that are in either.
template <class Visit>
void for_each_count(const Tally& one, const Tally& other, const Visit& visit) {
    for (const Tally* const tally : {&one, &other}) {
        for (const auto& [ns, counts] : *tally) {
            for (const State state : {State::in_flight, State::completed, State::released}) {
                visit(ns, state);
            }
        }
    }
}

std::uint64_t count_in(const Tally& tally, std::string_view ns, State state) {
    const auto at = tally.find(ns);
    return at == tally.end() ? 0 : at->second[state];
}

}  // namespace

// Some of the streams that newer segments supersede may have been removed since. Then that many of
// the others count as removed instead, so that the live ones come out right.
Counted counted_anew(const Recounted& now, const Tally& in_unsealed) {
    Counted counted;
    counted.superseded.emplace();
    counted.expires_min_ms = now.expires_min_ms;
    for_each_count(now.superseded, in_unsealed, [&](const std::string& ns, State state) {
        const std::uint64_t all = count_in(now.superseded, ns, state);
        const std::uint64_t newer = count_in(in_unsealed, ns, state);
        counts_of(*counted.superseded, ns)[state] = std::max(all, newer) - newer;
    });
    for_each_count(now.removed, in_unsealed, [&](const std::string& ns, State state) {
        const std::uint64_t superseded = count_in(now.superseded, ns, state);
        const std::uint64_t newer = count_in(in_unsealed, ns, state);
        const std::uint64_t twice = newer - std::min(newer, superseded);
        const std::uint64_t removed = count_in(now.removed, ns, state);
        counts_of(counted.removed, ns)[state] = removed - std::min(removed, twice);
    });
    return counted;
}

}  // namespace dedup
