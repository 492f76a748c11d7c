#include "engine/count.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "contract/sweep_tally.hpp"
#include "record/try.hpp"

namespace dedup {

Result<void> find_removed(const Reader& reader, const View& view, const Segment& segment,
                          const IndexEntry& entry, const Horizon& to, std::uint64_t as_of,
                          const Found& found) {
    const bool newer = entry.sequence > as_of;
    if (!newer && !to.may_remove(entry)) {
        return {};
    }
    FrameBuffer buffer;
    Located at;
    if (const auto read = reader.read_entry(segment, entry, at, buffer); !read || !*read) {
        return read ? Result<void>() : std::unexpected(read.error());  // damaged: so it stays
    }
    FrameBuffer older;
    if (newer) {
        const std::string ns(at.record.ns);
        const std::string key(at.record.key);
        while (at.entry.sequence > as_of) {
            // Once it leads to another segment, it is found there.
            if (at.link.segment != segment.id()) {
                return {};
            }
            const auto previous = reader.follow_link(view, at.link, {ns, key}, older);
            if (!previous && previous.error().code != Code::corruption) {
                return std::unexpected(previous.error());
            }
            if (!previous || !*previous) {
                return {};
            }
            at = **previous;
        }
        at.entry.id = entry.id;
    }
    if (!to.removes(at.record.state(), at.entry.sequence, at.record.expires_at_ms)) {
        return {};
    }
    if (!newer) {
        const auto head = reader.was_head(view, at, as_of);
        if (!head) {
            return std::unexpected(head.error());
        }
        if (!*head) {
            return {};
        }
    }
    return found(at);
}

Result<Tally> live_in_unsealed(const Reader& reader, const Now& now, std::size_t part,
                               const Horizon& to, const Found& found) {
    const auto& [view, numbers] = now;
    const Unsealed& unsealed = *numbers.parts[part].unsealed;
    Census census = numbers.census(part);
    if (to == Horizon()) {
        return census.live();
    }
    if (!found && numbers.removes_all(part, to)) {
        return Tally();
    }
    const auto count = [&](const Located& at) -> Result<void> {
        ++counts_of(census.removed, at.record.ns)[at.record.state()];
        return found ? found(at) : Result<void>();
    };
    auto done =
        reader.visit_entries(unsealed, numbers.parts[part].entries, [&](const IndexEntry& entry) {
            return find_removed(reader, *view, *unsealed.segment, entry, to, numbers.sequence,
                                count);
        });
    if (!done) {
        return std::unexpected(done.error());
    }
    return census.live();
}

Result<StateCounts> live_streams(const Reader& reader, const Now& now) {
    StateCounts sum;
    for (const SealedSegment& sealed : now.view->sealed->segments()) {
        sum += live_in(sealed, now.unsealed);
    }
    for (std::size_t part = 0; part < now.unsealed.parts.size(); ++part) {
        sum += total(DEDUP_TRY(live_in_unsealed(reader, now, part, now.view->horizon, {})));
    }
    return sum;
}

StateCounts live_in(const SealedSegment& sealed, const UnsealedNumbers& unsealed,
                    const std::map<std::uint64_t, Counted>& counted) {
    StateCounts live = sealed.row.live();
    live -= total(tally_of(unsealed.superseded, sealed.row.id));
    if (const auto at = counted.find(sealed.row.id); at != counted.end()) {
        live -= total(at->second.removed);
    }
    return live;
}

std::uint64_t log_bytes(const Reader& reader, const View& view) {
    std::uint64_t bytes = 0;
    for (const Part& part : reader.parts(view)) {
        bytes += part.row.bytes;
    }
    return bytes;
}

// Notes a stream that is removed now.
Result<void> Count::remove(const Located& at) {
    const RecordView& record = at.record;
    ++counts_of(removed, record.ns)[record.state()];
    ++report.records_scanned;
    // A stream that has expired too was not evicted.
    report.evicted += record.expires_at_ms == 0 || record.expires_at_ms >= to.expired_before_ms;
    if (record.state() == State::in_flight) {
        unanswered.offer(at);
    }
    return {};
}

// Keeps the claims with the lowest sequences.
void Count::Unanswered::offer(const Located& at) {
    if (!wants(at.entry.sequence)) {
        return;
    }
    claims.emplace(at.entry.sequence, unanswered_claim(at.record));
    if (claims.size() > claims_max) {
        claims.erase(std::prev(claims.end()));
    }
}

namespace {

// What is called for each entry of a segment in which all has expired, to list the claims in
// flight.
Reader::Visit offer_unanswered(const Reader& reader, Count& count, const Segment& segment) {
    return [&reader, &count, &segment](const IndexEntry& entry) -> Result<void> {
        // In the tail, the stream may have begun anew; then the entry tells nothing of what it was.
        const bool anew = entry.sequence > count.as_of;
        if (!anew &&
            (entry.state() != State::in_flight || !count.unanswered.wants(entry.sequence) ||
             count.from.surely_removes(entry))) {
            return {};
        }
        return find_removed(reader, *count.now.view, segment, entry, count.to, count.as_of,
                            [&](const Located& at) {
                                if (at.record.state() == State::in_flight &&
                                    !count.from.removes(at.record.state(), at.entry.sequence,
                                                        at.record.expires_at_ms)) {
                                    count.unanswered.offer(at);
                                }
                                return Result<void>();
                            });
    };
}

// A segment in which all has expired is counted by its census alone, but for the claims in flight,
// which are to be listed.
Result<void> count_sealed(const Reader& reader, Count& count, const SealedSegment& sealed) {
    const std::uint64_t id = sealed.row.id;
    auto census = decode_census(*sealed.census);
    if (!census) {
        return std::unexpected(reader.context().catalog_problem(
            fmt::format("the census of segment {} is damaged; close the store and remove that "
                        "directory: opening the store for writing makes it anew from the log",
                        sealed.row.id)));
    }
    add(census->superseded, tally_of(count.now.unsealed.superseded, id));
    Tally live = census->live();
    const bool all = sealed.row.expires_max_ms < count.to.expired_before_ms;
    const bool some = sealed.row.expires_min_ms < count.to.expired_before_ms ||
                      count.to.evicted_before > count.from.evicted_before;
    if (!count.rebuilt && (count.to == count.from || total(live).total() == 0 || !some)) {
        add(count.retained, live);
        return {};
    }
    ++count.report.segments_scanned;
    Counted& counted = count.counted[id];
    if (count.rebuilt) {
        const Recounted now =
            DEDUP_TRY(recount(reader, *count.now.view, sealed, count.to, UINT64_MAX));
        counted = counted_anew(now, tally_of(count.now.unsealed.superseded, id));
        return {};
    }
    if (all) {
        counted.expires_min_ms = INT64_MAX;
        counted.removed = std::move(live);
        add(count.removed, counted.removed);
        return total(counted.removed).in_flight == 0
                   ? Result<void>()
                   : reader.visit_entries(sealed, offer_unanswered(reader, count, *sealed.segment));
    }
    counted.expires_min_ms = INT64_MAX;
    const auto remove = [&](const Located& at) {
        if (count.from.removes(at.record.state(), at.entry.sequence, at.record.expires_at_ms)) {
            return Result<void>();
        }
        ++counts_of(counted.removed, at.record.ns)[at.record.state()];
        return count.remove(at);
    };
    auto done = reader.visit_entries(sealed, [&](const IndexEntry& entry) -> Result<void> {
        if (!count.to.surely_removes(entry) && entry.expiry() != kExpiryNever) {
            counted.expires_min_ms =
                std::min(counted.expires_min_ms, expiry_step_start(entry.expiry()));
        }
        if (count.from.surely_removes(entry)) {
            return {};
        }
        return find_removed(reader, *count.now.view, *sealed.segment, entry, count.to, count.as_of,
                            remove);
    });
    if (!done) {
        return done;
    }
    for (const auto& [ns, counts] : counted.removed) {
        counts_of(live, ns) -= counts;
    }
    add(count.retained, live);
    return {};
}

Result<void> count_unsealed(const Reader& reader, Count& count) {
    const auto remove = [&](const Located& at) {
        return count.from.removes(at.record.state(), at.entry.sequence, at.record.expires_at_ms)
                   ? Result<void>()
                   : count.remove(at);
    };
    const bool now = count.as_of == count.now.unsealed.sequence;
    for (std::size_t part = 0; part < count.now.unsealed.parts.size(); ++part) {
        const UnsealedNumbers::Of& of = count.now.unsealed.parts[part];
        const Unsealed& unsealed = *of.unsealed;
        if (now && count.now.unsealed.removes_all(part, count.from)) {
            continue;  // all of it has been counted before
        }
        ++count.report.segments_scanned;
        // As with a sealed segment, if nothing in it has been counted before.
        if (now && count.now.unsealed.removes_all(part, count.to) &&
            count.from.evicted_before == 0 &&
            of.row.expires_min_ms >= count.from.expired_before_ms) {
            const Tally all = count.now.unsealed.census(part).live();
            add(count.removed, all);
            if (total(all).in_flight != 0) {
                auto offered = reader.visit_entries(
                    unsealed, of.entries, offer_unanswered(reader, count, *unsealed.segment));
                if (!offered) {
                    return offered;
                }
            }
            continue;
        }
        const Tally live = DEDUP_TRY(
            live_in_unsealed(reader, count.now, part, count.to, now ? Found(remove) : Found()));
        add(count.retained, live);
        count.newest_live = part == 0 ? total(live) : count.newest_live;
        if (now) {
            continue;
        }
        // What a count that was cut short had to count then.
        auto done = reader.visit_entries(unsealed, of.entries, [&](const IndexEntry& entry) {
            return find_removed(reader, *count.now.view, *unsealed.segment, entry, count.to,
                                count.as_of, remove);
        });
        if (!done) {
            return done;
        }
    }
    return {};
}

}  // namespace

Result<void> run_count(const Reader& reader, Count& count) {
    for (const SealedSegment& sealed : count.now.view->sealed->segments()) {
        if (auto done = count_sealed(reader, count, sealed); !done) {
            return done;
        }
    }
    if (auto done = count_unsealed(reader, count); !done) {
        return done;
    }
    SweepReport& report = count.report;
    report.removed = total(count.removed);
    report.retained = total(count.retained);
    for (const auto& [ns, counts] : count.removed) {
        if (counts.total() != 0) {
            report.namespaces.push_back({ns, counts, counts_of(count.retained, ns)});
        }
    }
    for (auto& [sequence, claim] : count.unanswered.claims) {
        report.unanswered.push_back(std::move(claim));
    }
    if (!count.tells_next && report.removed.total() == 0) {
        return {};
    }
    const auto next = next_expiry(reader, *count.now.view, count.to);
    if (!next) {
        return std::unexpected(next.error());
    }
    report.next_expiry_ms = *next;
    return {};
}

}  // namespace dedup
