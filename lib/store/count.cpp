// Finding what a horizon removes.
//
// A stream is removed if its head was, at the moment when the horizon was set, behind it. Appends
// go on while that is counted, and some begin such streams anew. So all is counted as of a
// sequence: a stream's head then was the newest of its records with no higher one, and the links of
// those with higher ones lead to it.

#include <fmt/format.h>

#include <algorithm>

#include "store/count.hpp"
#include "store/log_store.hpp"

namespace dedup {
namespace {

// How many entries are looked at before appends may go on, and the store may close.
constexpr std::size_t kEntriesAtOnce = 4096;

}  // namespace

Result<LogStore::Now> LogStore::tail_now() {
    Now now;
    // So that the view is the one whose numbers are taken.
    if (const auto ready = view_for_reading(); !ready) {
        return std::unexpected(ready.error());
    }
    const std::lock_guard lock(view_mutex_);
    if (!view_) {
        return std::unexpected(closed_error());
    }
    now.view = view_;
    now.tail = tail_numbers(*view_);
    return now;
}

Census TailNumbers::census(std::size_t part) const {
    const std::uint64_t id = parts[part].row.id;
    return {parts[part].streams, tally_of(superseded, id), tally_of(reclaimed, id)};
}

bool TailNumbers::removes_all(std::size_t part, const Horizon& horizon) const {
    return sequence <= horizon.sequence &&
           parts[part].row.expires_max_ms < horizon.expired_before_ms;
}

TailNumbers LogStore::tail_numbers(const View& view) const {
    TailNumbers tail;
    tail.sequence = applied_sequence_;
    for (const auto& unsealed : view.unsealed) {
        tail.parts.push_back({unsealed, unsealed->streams, unsealed->delta.size(), unsealed->row});
        for (const auto& [id, tally] : unsealed->superseded) {
            add(tail.superseded[id], tally);
        }
        for (const auto& [id, tally] : unsealed->reclaimed) {
            add(tail.reclaimed[id], tally);
        }
    }
    return tail;
}

// Calls visit for each entry, until it fails.
Result<void> LogStore::visit_entries(
    const SealedSegment& sealed,
    const std::function<Result<void>(const IndexEntry&)>& visit) const {
    for (std::uint64_t i = 0; i < sealed.index.size(); ++i) {
        if (i % kEntriesAtOnce == 0 && closed_) {
            return std::unexpected(closed_error());
        }
        const auto entry = sealed.index.entry(i);
        if (!entry) {
            return std::unexpected(damaged_index(sealed));
        }
        if (auto done = visit(*entry); !done) {
            return done;
        }
    }
    return {};
}

// The same for the first `size` entries of a delta that may be growing. They are looked at some at
// a time, so that appends need not wait.
Result<void> LogStore::visit_entries(
    const Unsealed& unsealed, std::size_t size,
    const std::function<Result<void>(const IndexEntry&)>& visit) const {
    std::vector<IndexEntry> some;
    for (std::size_t at = 0; at < size; at += kEntriesAtOnce) {
        if (closed_) {
            return std::unexpected(closed_error());
        }
        readers_.shared([&] {
            const auto part =
                unsealed.delta.entries().subspan(at, std::min(kEntriesAtOnce, size - at));
            some.assign(part.begin(), part.end());
        });
        for (const IndexEntry& entry : some) {
            if (auto done = visit(entry); !done) {
                return done;
            }
        }
    }
    return {};
}

// Sealed segments first, oldest first. They live as long as the view.
std::vector<LogStore::Entries> LogStore::all_entries(const View& view) const {
    std::vector<Entries> all;
    for (const SealedSegment& sealed : view.sealed->segments()) {
        const SegmentRow& row = sealed.row;
        all.push_back({sealed.segment.get(), &sealed, nullptr, 0, row.expires_min_ms,
                       row.expires_max_ms, row.live().total() != 0});
    }
    const std::lock_guard lock(view_mutex_);
    for (const auto& unsealed : view.unsealed) {
        all.push_back({unsealed->segment.get(), nullptr, unsealed.get(), unsealed->delta.size(),
                       unsealed->row.expires_min_ms, unsealed->row.expires_max_ms});
    }
    return all;
}

Result<void> LogStore::visit_entries(
    const Entries& entries, const std::function<Result<void>(const IndexEntry&)>& visit) const {
    return entries.sealed != nullptr ? visit_entries(*entries.sealed, visit)
                                     : visit_entries(*entries.unsealed, entries.size, visit);
}

// Reads the record of an entry, which names it by its sequence. False: it cannot be read, which is
// noted.
Result<bool> LogStore::read_entry(const Segment& segment, const IndexEntry& entry, Located& at,
                                  FrameBuffer& buffer) const {
    at.segment = &segment;
    at.entry = entry;
    if (const auto read = try_read_entry(at, buffer); !read) {
        const auto noted = note_damage(segment, entry.offset, read.error());
        return noted ? Result<bool>(false) : std::unexpected(noted.error());
    }
    return true;
}

Result<void> LogStore::try_read_entry(Located& at, FrameBuffer& buffer) const {
    const auto frame = at.segment->read_frame(at.entry.offset, buffer);
    if (!frame) {
        return std::unexpected(frame.error());
    }
    FrameRecords records(*frame, at.segment->id());
    FrameRecord record;
    for (auto more = records.next(record); more && *more; more = records.next(record)) {
        if (record.sequence != at.entry.sequence) {
            continue;
        }
        const auto decoded = decode_view(record.encoded);
        if (!decoded) {
            return std::unexpected(
                at.segment->corruption(at.entry.offset, decoded.error().message));
        }
        at.record = *decoded;
        at.link = record.link;
        at.frame_bytes = frame->bytes();
        return {};
    }
    return std::unexpected(at.segment->corruption(
        at.entry.offset, "the frame does not have the record that an index says"));
}

// The record of `stream` that a link leads to; nullopt if it is not there any more. Errors:
// corruption, io; they are noted as damage.
Result<std::optional<Located>> LogStore::follow_link(const View& view, const Link& link,
                                                     StreamKey stream, FrameBuffer& buffer) const {
    Located at;
    for (const auto& unsealed : view.unsealed) {
        if (unsealed->segment->id() == link.segment) {
            at.segment = unsealed->segment.get();
        }
    }
    if (const SealedSegment* const sealed = view.sealed->find(link.segment)) {
        at.segment = sealed->segment.get();
    }
    if (at.segment == nullptr) {
        return std::nullopt;
    }
    at.entry.offset = link.offset;
    auto read = read_record(at, stream, buffer);
    if (read && !*read) {
        read = std::unexpected(
            at.segment->corruption(link.offset, "a link to it comes from another stream"));
    }
    if (!read) {
        if (auto noted = note_damage(*at.segment, link.offset, read.error()); !noted) {
            return std::unexpected(noted.error());
        }
        return std::unexpected(Error{Code::corruption, read.error().message});
    }
    return at;
}

// Whether two places are one. (A moved record is in two segments, with one sequence.)
bool LogStore::same_place(const Located& one, const Located& other) {
    return one.segment->id() == other.segment->id() && one.entry.sequence == other.entry.sequence;
}

// The newest record of the stream that `at` belongs to. One of its id that cannot be read is taken
// for it, and noted. `unsealed` is what probe() has found.
Result<std::optional<Located>> LogStore::newest_of(const View& view, const Located& at,
                                                   Candidates unsealed, FrameBuffer& buffer) const {
    const StreamKey stream{at.record.ns, at.record.key};
    return find_newest(view, at.entry.id, std::move(unsealed), [&](Located& found) -> Result<bool> {
        if (same_place(found, at)) {
            return true;
        }
        auto read = read_record(found, stream, buffer);
        if (!read) {
            const auto noted = note_damage(*found.segment, found.entry.offset, read.error());
            return noted ? Result<bool>(true) : std::unexpected(noted.error());
        }
        return read;
    });
}

// Whether `at` was its stream's head when `as_of` was the last sequence. Not if that cannot be told
// because of damage: then nothing is removed.
Result<bool> LogStore::was_head(const View& view, const Located& at, std::uint64_t as_of) const {
    FrameBuffer buffer;
    auto newest = newest_of(view, at, locked_probe(view, at.entry.id), buffer);
    if (!newest) {
        return std::unexpected(newest.error());
    }
    while (*newest && !same_place(**newest, at) && (*newest)->entry.sequence > as_of &&
           (*newest)->link.segment != 0) {
        const Link link = (*newest)->link;
        newest = follow_link(view, link, {at.record.ns, at.record.key}, buffer);
        if (!newest && newest.error().code == Code::corruption) {
            return false;
        }
        if (!newest) {
            return std::unexpected(newest.error());
        }
    }
    return *newest && same_place(**newest, at);
}

// Calls found(head) if the stream of `entry` was removed by `to`, and its head as of `as_of` lies
// in `segment`.
Result<void> LogStore::find_removed(const View& view, const Segment& segment,
                                    const IndexEntry& entry, const Horizon& to, std::uint64_t as_of,
                                    const Found& found) const {
    const bool newer = entry.sequence > as_of;
    if (!newer && !to.may_remove(entry)) {
        return {};
    }
    FrameBuffer buffer;
    Located at;
    if (const auto read = read_entry(segment, entry, at, buffer); !read || !*read) {
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
            const auto previous = follow_link(view, at.link, {ns, key}, older);
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
        const auto head = was_head(view, at, as_of);
        if (!head) {
            return std::unexpected(head.error());
        }
        if (!*head) {
            return {};
        }
    }
    return found(at);
}

// The streams of an unsealed segment that `to` leaves. `found` gets those that it removes, whether
// now or earlier, but for those that have begun anew.
Result<Tally> LogStore::live_in_tail(const View& view, const TailNumbers& tail, std::size_t part,
                                     const Horizon& to, const Found& found) const {
    const Unsealed& unsealed = *tail.parts[part].unsealed;
    Census census = tail.census(part);
    if (to == Horizon()) {
        return census.live();
    }
    if (!found && tail.removes_all(part, to)) {
        return Tally();
    }
    const auto count = [&](const Located& at) -> Result<void> {
        ++counts_of(census.removed, at.record.ns)[at.record.state()];
        return found ? found(at) : Result<void>();
    };
    auto done = visit_entries(unsealed, tail.parts[part].entries, [&](const IndexEntry& entry) {
        return find_removed(view, *unsealed.segment, entry, to, tail.sequence, count);
    });
    if (!done) {
        return std::unexpected(done.error());
    }
    return census.live();
}

Result<StateCounts> LogStore::live_streams(const View& view, const TailNumbers& tail) const {
    StateCounts sum;
    for (const SealedSegment& sealed : view.sealed->segments()) {
        sum += sealed.row.live();
        sum -= total(tally_of(tail.superseded, sealed.row.id));
    }
    for (std::size_t part = 0; part < tail.parts.size(); ++part) {
        const auto live = live_in_tail(view, tail, part, view.horizon, {});
        if (!live) {
            return std::unexpected(live.error());
        }
        sum += total(*live);
    }
    return sum;
}

// Notes a stream that is removed now.
Result<void> LogStore::Count::remove(const Located& at) {
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
void LogStore::Count::Unanswered::offer(const Located& at) {
    if (!wants(at.entry.sequence)) {
        return;
    }
    const RecordView& record = at.record;
    claims.emplace(
        at.entry.sequence,
        UnansweredClaim{std::string(record.ns), std::string(record.key), std::string(record.owner),
                        record.claim_sequence, record.timestamp_ms, record.expires_at_ms});
    if (claims.size() > claims_max) {
        claims.erase(std::prev(claims.end()));
    }
}

// A segment in which all has expired is counted by its census alone, but for the claims in flight,
// which are to be listed.
Result<void> LogStore::count_sealed(Count& count, const SealedSegment& sealed) const {
    const std::uint64_t id = sealed.row.id;
    auto census = decode_census(*sealed.census);
    if (!census) {
        return std::unexpected(catalog_problem(
            fmt::format("the census of segment {} is damaged; close the store and remove that "
                        "directory: opening the store for writing makes it anew from the log",
                        sealed.row.id)));
    }
    add(census->superseded, tally_of(count.tail.superseded, id));
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
        const auto now = recount(count.view, sealed, count.to, UINT64_MAX);
        if (!now) {
            return std::unexpected(now.error());
        }
        counted = counted_anew(*now, tally_of(count.tail.superseded, id));
        return {};
    }
    if (all) {
        counted.expires_min_ms = INT64_MAX;
        counted.removed = std::move(live);
        add(count.removed, counted.removed);
        return total(counted.removed).in_flight == 0
                   ? Result<void>()
                   : visit_entries(sealed, offer_unanswered(count, *sealed.segment));
    }
    counted.expires_min_ms = INT64_MAX;
    const auto remove = [&](const Located& at) {
        if (count.from.removes(at.record.state(), at.entry.sequence, at.record.expires_at_ms)) {
            return Result<void>();
        }
        ++counts_of(counted.removed, at.record.ns)[at.record.state()];
        return count.remove(at);
    };
    auto done = visit_entries(sealed, [&](const IndexEntry& entry) -> Result<void> {
        if (!count.to.surely_removes(entry) && entry.expiry() != kExpiryNever) {
            counted.expires_min_ms =
                std::min(counted.expires_min_ms, expiry_step_start(entry.expiry()));
        }
        if (count.from.surely_removes(entry)) {
            return {};
        }
        return find_removed(count.view, *sealed.segment, entry, count.to, count.as_of, remove);
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

// What is called for each entry of a segment in which all has expired, to list the claims in
// flight.
std::function<Result<void>(const IndexEntry&)> LogStore::offer_unanswered(
    Count& count, const Segment& segment) const {
    return [this, &count, &segment](const IndexEntry& entry) -> Result<void> {
        // In the tail, the stream may have begun anew; then the entry tells nothing of what it was.
        const bool anew = entry.sequence > count.as_of;
        if (!anew &&
            (entry.state() != State::in_flight || !count.unanswered.wants(entry.sequence) ||
             count.from.surely_removes(entry))) {
            return {};
        }
        return find_removed(count.view, segment, entry, count.to, count.as_of,
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

Result<void> LogStore::count_tail(Count& count) const {
    const auto remove = [&](const Located& at) {
        return count.from.removes(at.record.state(), at.entry.sequence, at.record.expires_at_ms)
                   ? Result<void>()
                   : count.remove(at);
    };
    const bool now = count.as_of == count.tail.sequence;
    for (std::size_t part = 0; part < count.tail.parts.size(); ++part) {
        const auto& [segment, streams, entries, row] = count.tail.parts[part];
        const Unsealed& unsealed = *segment;
        if (now && count.tail.removes_all(part, count.from)) {
            continue;  // all of it has been counted before
        }
        ++count.report.segments_scanned;
        // As with a sealed segment, if nothing in it has been counted before.
        if (now && count.tail.removes_all(part, count.to) && count.from.evicted_before == 0 &&
            row.expires_min_ms >= count.from.expired_before_ms) {
            const Tally all = count.tail.census(part).live();
            add(count.removed, all);
            if (total(all).in_flight != 0) {
                auto offered =
                    visit_entries(unsealed, entries, offer_unanswered(count, *unsealed.segment));
                if (!offered) {
                    return offered;
                }
            }
            continue;
        }
        const auto live =
            live_in_tail(count.view, count.tail, part, count.to, now ? Found(remove) : Found());
        if (!live) {
            return std::unexpected(live.error());
        }
        add(count.retained, *live);
        count.newest_live = part == 0 ? total(*live) : count.newest_live;
        if (now) {
            continue;
        }
        // What a count that was cut short had to count then.
        auto done = visit_entries(unsealed, entries, [&](const IndexEntry& entry) {
            return find_removed(count.view, *unsealed.segment, entry, count.to, count.as_of,
                                remove);
        });
        if (!done) {
            return done;
        }
    }
    return {};
}

// Counts what count.to removes and count.from did not.
Result<void> LogStore::count(Count& count) const {
    for (const SealedSegment& sealed : count.view.sealed->segments()) {
        if (auto done = count_sealed(count, sealed); !done) {
            return done;
        }
    }
    if (auto done = count_tail(count); !done) {
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
    const auto next = next_expiry(count.view, count.to);
    if (!next) {
        return std::unexpected(next.error());
    }
    report.next_expiry_ms = *next;
    return {};
}

}  // namespace dedup
