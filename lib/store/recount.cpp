// What lies in a sealed segment, entry by entry.
//
// This is the definition of a census: it follows from the log and the horizon alone. A sweep and a
// seal keep the numbers up to date without reading the records; a catalog that is made anew takes
// them from here, and `verify` compares.

#include <fmt/format.h>

#include <algorithm>

#include "store/count.hpp"
#include "store/log_store.hpp"

namespace dedup {

// Counts the entries of a segment as of `sequence`.
Result<Recounted> LogStore::recount(const View& view, const SealedSegment& sealed,
                                    const Horizon& horizon, std::uint64_t as_of) const {
    Recounted counted;
    auto done = visit_entries(sealed, [&](const IndexEntry& entry) -> Result<void> {
        FrameBuffer buffer;
        Located at;
        if (const auto read = read_entry(*sealed.segment, entry, at, buffer); !read || !*read) {
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
        const auto head = was_head(view, at, as_of);
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

// Whether the segment may hold a record that `horizon` leaves and that is not its stream's head. It
// would show if all newer records of its stream went. `live` heads are in the segment.
bool LogStore::may_show(const SealedSegment& sealed, const Horizon& horizon,
                        std::uint64_t live) const {
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
        const auto removable =
            horizon.may_remove(*entry) ? read_entry(*sealed.segment, *entry, at, buffer) : false;
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

// What a catalog that is made anew says of a segment. `in_tail` of its streams are superseded by
// the unsealed segments, which go on saying so. Some of these may have been removed since; then
// that many of the others count as removed instead, so that the live ones come out right.
Counted counted_anew(const Recounted& now, const Tally& in_tail) {
    Counted counted;
    counted.superseded.emplace();
    counted.expires_min_ms = now.expires_min_ms;
    for_each_count(now.superseded, in_tail, [&](const std::string& ns, State state) {
        const std::uint64_t all = count_in(now.superseded, ns, state);
        const std::uint64_t tail = count_in(in_tail, ns, state);
        counts_of(*counted.superseded, ns)[state] = std::max(all, tail) - tail;
    });
    for_each_count(now.removed, in_tail, [&](const std::string& ns, State state) {
        const std::uint64_t superseded = count_in(now.superseded, ns, state);
        const std::uint64_t tail = count_in(in_tail, ns, state);
        const std::uint64_t twice = tail - std::min(tail, superseded);
        const std::uint64_t removed = count_in(now.removed, ns, state);
        counts_of(counted.removed, ns)[state] = removed - std::min(removed, twice);
    });
    return counted;
}

// Adds to `problems` what a catalog says wrongly of a segment and a sweep would act on: a segment
// without live streams is dropped, and one whose records have all expired is not read.
Result<void> LogStore::check_counts(const Now& now, const SealedSegment& sealed,
                                    std::vector<std::string>& problems) const {
    const auto state = catalog_->sweep_state();
    if (!state) {
        return std::unexpected(state.error());
    }
    if (state->counted != now.view->horizon) {
        return {};  // a sweep has not counted yet
    }
    const auto counted = recount(*now.view, sealed, state->counted, now.tail.sequence);
    if (!counted || counted->damaged != 0) {
        return counted ? Result<void>() : std::unexpected(counted.error());
    }
    const auto problem = [&](std::string what) {
        problems.push_back(fmt::format("{}: {}", sealed.segment->path().string(), what));
    };
    const StateCounts in_tail = total(tally_of(now.tail.superseded, sealed.row.id));
    StateCounts live = sealed.row.live();
    live -= in_tail;
    StateCounts superseded = sealed.row.superseded;
    superseded += in_tail;
    const StateCounts live_in_log = total(counted->live);
    const StateCounts superseded_in_log = total(counted->superseded);
    for (const State in : {State::in_flight, State::completed, State::released}) {
        if (live[in] != live_in_log[in]) {
            problem(fmt::format("the log has {} live streams {}, the catalog says {}",
                                live_in_log[in], dedup::name(in), live[in]));
        }
        // (Of them, the catalog goes on counting those that have expired.)
        if (superseded[in] < superseded_in_log[in]) {
            problem(fmt::format("the log has {} superseded records {}, the catalog says {}",
                                superseded_in_log[in], dedup::name(in), superseded[in]));
        }
    }
    if (counted->expires_min_ms < sealed.row.expires_min_ms) {
        problem(
            fmt::format("a record in it expires at {}, the catalog says that none does before {}",
                        counted->expires_min_ms, sealed.row.expires_min_ms));
    }
    return {};
}

}  // namespace dedup
