#include "store/reclaim.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "log/frame_reader.hpp"
#include "metrics/counter.hpp"

namespace dedup {
namespace {

// Moved together, while appends wait: as much as a small group of them.
constexpr std::size_t kMovedAtOnce = 64;
constexpr std::size_t kMovedBytesAtOnce = 256 * 1024;
// Segments are compacted while more than this part of the log is garbage. With the catalog a store
// stays below twice its live records.
constexpr std::uint64_t kGarbageShare = 6;
constexpr std::uint64_t kGarbageShareCompact = 32;  // what sweeps themselves write is garbage, too
// What is never given back counts as if it were after so long.
constexpr std::int64_t kWasteTimeMaxMs = std::int64_t{30} * 24 * 3'600'000;
// A compacting sweep merges segments of less than this part of a segment once it finds so many.
constexpr std::uint64_t kSmallShare = 2;
constexpr std::ptrdiff_t kSmallSegmentsMax = 8;
// A newest segment of fewer bytes than this, or than these parts of a segment and of the log, is
// not ended for its garbage.
constexpr std::uint64_t kEndedBytesMin = 1024 * 1024;
constexpr std::uint64_t kEndedSegmentShare = 4;
constexpr std::uint64_t kEndedLogShare = 128;

// With a goal it is, but for next to nothing: a header and a manifest are not given back.
constexpr std::uint64_t kEndedForGoalBytesMin = 1024;

// Of the log or a part of it.
struct Space {
    std::uint64_t bytes = 0;
    std::uint64_t live = 0;  // of them, those of live records

    Space& operator+=(const Space& more) {
        bytes += more.bytes;
        live += more.live;
        return *this;
    }
    // Whether more than this part of it is garbage.
    [[nodiscard]] bool is_wasted(std::uint64_t share) const {
        return (bytes - live) * share > bytes;
    }
};

Space space(const SegmentRow& row, const StateCounts& live) {
    return {row.bytes, row.bytes_of(live)};
}

// The live streams of a sealed segment; `counted` is what the catalog does not know yet.
StateCounts live_in(const SealedSegment& sealed, const TailNumbers& tail,
                    const std::map<std::uint64_t, Counted>& counted) {
    StateCounts live = sealed.row.live();
    live -= total(tally_of(tail.superseded, sealed.row.id));
    if (const auto at = counted.find(sealed.row.id); at != counted.end()) {
        live -= total(at->second.removed);
    }
    return live;
}

// The log as it is without the sealed segments that have no live streams.
Space log_space(const View& view, const TailNumbers& tail,
                const std::map<std::uint64_t, Counted>& counted, const StateCounts& newest_live) {
    Space log = space(tail.parts.front().row, newest_live);
    for (const auto& part : std::span(tail.parts).subspan(1)) {
        log += {part.row.bytes, part.row.bytes};  // what of it is garbage is not dropped now
    }
    for (const SealedSegment& sealed : view.sealed->segments()) {
        const StateCounts live = live_in(sealed, tail, counted);
        log += live.total() == 0 ? Space() : space(sealed.row, live);
    }
    return log;
}

// The frames of a segment from `start` on: all of them, or those at some places, which are sorted.
class Frames {
  public:
    Frames(const Segment& segment, std::uint64_t start, std::uint64_t end,
           std::optional<std::vector<std::uint32_t>> places)
        : segment_(segment), reader_(segment, start, end), end_(end), places_(std::move(places)) {
        if (places_) {
            place_ = std::ranges::lower_bound(*places_, start);
        }
    }

    // The next frame, valid until the one after it; nullopt at the end.
    Result<std::optional<Frame>> next() {
        if (places_) {
            if (place_ == places_->end()) {
                return std::nullopt;
            }
            offset_ = *place_++;
            return segment_.read_frame(static_cast<std::uint32_t>(offset_), buffer_);
        }
        offset_ = reader_.offset();
        if (offset_ >= end_) {
            return std::nullopt;
        }
        auto frame = reader_.next();
        if (frame && !*frame) {
            return std::unexpected(segment_.corruption(offset_, "there is no valid frame"));
        }
        return frame;
    }
    // Of the frame that next() has given, or could not read.
    [[nodiscard]] std::uint64_t offset() const { return offset_; }

  private:
    const Segment& segment_;
    FrameReader reader_;
    std::uint64_t end_;
    std::uint64_t offset_ = 0;
    std::optional<std::vector<std::uint32_t>> places_;
    std::vector<std::uint32_t>::const_iterator place_;
    FrameBuffer buffer_;
};

}  // namespace

LogStore::Reclaim::Reclaim(LogStore& store, const SweepOptions& options, SweepReport& report,
                           std::uint64_t bytes_goal)
    : store_(store),
      options_(options),
      garbage_share_(options.compact ? kGarbageShareCompact : kGarbageShare),
      report_(report),
      bytes_goal_(bytes_goal) {}

bool LogStore::Reclaim::at_limit() const {
    return options_.stop.stop_requested() || store_.closed_ ||
           (options_.time_max.count() > 0 &&
            std::chrono::steady_clock::now() - start_ >= options_.time_max) ||
           (options_.records_max != 0 && report_.records_moved >= options_.records_max) ||
           (options_.bytes_max != 0 && bytes_ >= options_.bytes_max);
}

// How many records of a segment have been moved out of it.
std::uint64_t LogStore::Reclaim::moved_from(std::uint64_t id) const {
    const auto at = store_.compacted_.find(id);
    return at == store_.compacted_.end() ? 0 : at->second.moved;
}

std::uint64_t LogStore::Reclaim::ended_bytes_min() const {
    const std::uint64_t segment_bytes = store_.segment_bytes_;  // 0 in a store open for reading
    return segment_bytes == 0 ? kEndedBytesMin
                              : std::min(kEndedBytesMin, segment_bytes / kEndedSegmentShare);
}

// Errors: closed, in a child that was forked just then. It ends the sweep without another lock:
// threads that do not exist here may hold them.
Result<void> LogStore::Reclaim::show_progress(std::uint64_t bytes_more) const {
    if (!options_.progress) {
        return {};
    }
    options_.progress(bytes_ + bytes_more, bytes_total_);
    return store_.check_process();
}

// The segments to drop: those without live streams, oldest first; and then those to compact, the
// best first. `counted` is what the catalog does not know yet.
std::vector<LogStore::Reclaim::Candidate> LogStore::Reclaim::candidates(
    const View& view, const TailNumbers& tail, const Horizon& horizon,
    const std::map<std::uint64_t, Counted>& counted, const StateCounts& newest_live) const {
    std::vector<Candidate> found;
    std::vector<Candidate> others;
    // An older segment that stays has a record that is not removed, only superseded. Looked for
    // once that matters.
    bool older_may_show = false;
    std::vector<std::pair<const SealedSegment*, std::uint64_t>> staying;  // and their live streams
    for (const SealedSegment& sealed : view.sealed->segments()) {
        const StateCounts live = live_in(sealed, tail, counted);
        const bool empty = live.total() == 0;
        if (empty && !older_may_show) {
            older_may_show = std::ranges::any_of(staying, [&](const auto& older) {
                return store_.may_show(*older.first, horizon, older.second);
            });
            staying.clear();
        }
        // What is damaged cannot be moved, and may be what hides an older record.
        const bool compact = !empty || older_may_show;
        const bool stays = compact && store_.has_damage(sealed.row.id);
        if (!stays) {
            (empty ? found : others).push_back({sealed.row, compact, live});
        }
        if (!empty || stays) {
            staying.emplace_back(&sealed, live.total());
        }
    }
    // The space that a move saves, times how long it would have been wasted, over what it costs. So
    // what is about to expire altogether is left to do that.
    const auto worth = [&](const Candidate& candidate) {
        const auto [bytes, live] = space(candidate.row, candidate.live);
        const std::int64_t time_ms = std::clamp<std::int64_t>(
            candidate.row.expires_max_ms - report_.now_ms, 1, kWasteTimeMaxMs);
        return std::pair(static_cast<double>(bytes - live) * static_cast<double>(time_ms) /
                             static_cast<double>(live + 1),
                         ~candidate.row.id);  // of equal ones the oldest
    };
    std::ranges::sort(others, std::ranges::greater(), worth);
    const auto is_small = [&](const Candidate& candidate) {
        return options_.compact && candidate.row.bytes * kSmallShare < store_.segment_bytes_;
    };
    Space log = log_space(view, tail, counted, newest_live);
    const bool merge = std::ranges::count_if(others, is_small) >= kSmallSegmentsMax;
    for (const Candidate& best : others) {
        const Space here = space(best.row, best.live);
        const bool needed = bytes_goal_ != 0 && log.bytes > bytes_goal_ && here.bytes > here.live;
        if (needed || (log.is_wasted(garbage_share_) && here.is_wasted(garbage_share_)) ||
            (merge && is_small(best))) {
            log.bytes -= here.bytes - here.live;
            found.push_back(best);
        }
    }
    return found;
}

void LogStore::Reclaim::plan(const Count& count) {
    std::vector<Candidate> found =
        candidates(count.view, count.tail, count.to, count.counted, count.newest_live);
    if (newest_if_garbage(count.view, count.tail, count.counted, count.newest_live) != 0) {
        found.push_back({count.tail.parts.front().row, true, count.newest_live});
    }
    for (const auto& [row, compact, live] : found) {
        ++(compact ? report_.segments_compacted : report_.segments_dropped);
        report_.records_dropped += row.records() - live.total() - moved_from(row.id);
        report_.records_moved += live.total();
        report_.bytes_after -= row.bytes - row.bytes_of(live);
    }
}

Result<void> LogStore::Reclaim::run(const StateCounts& newest_live) {
    std::uint64_t garbage = 0;
    {
        const auto now = store_.tail_now();
        if (!now) {
            return std::unexpected(now.error());
        }
        garbage = newest_if_garbage(*now->view, now->tail, {}, newest_live);
    }
    if (auto sealed = seal_tail(garbage); !sealed) {
        return sealed;
    }
    std::vector<Candidate> found;
    {
        const auto now = store_.tail_now();
        if (!now) {
            return std::unexpected(now.error());
        }
        // (Of a segment that has been started since, what is taken for live is next to nothing.)
        found = candidates(*now->view, now->tail, now->view->horizon, {}, newest_live);
    }
    for (const Candidate& candidate : found) {
        bytes_total_ += candidate.row.bytes;
    }
    if (auto dropped = drop_empty(found); !dropped) {
        return dropped;
    }
    if (auto shown = show_progress(0); !shown) {
        return shown;
    }
    std::erase_if(found, [](const Candidate& candidate) { return !candidate.compact; });
    if (auto compacted = compact_all(found); !compacted || !report_.finished) {
        return compacted;
    }
    if (!options_.compact) {
        return {};
    }
    const auto now = store_.tail_now();
    if (!now) {
        return std::unexpected(now.error());
    }
    const SegmentRow& newest = now->tail.parts.front().row;
    return newest.bytes < ended_bytes_min() ? Result<void>() : seal_tail(newest.id);
}

Result<void> LogStore::Reclaim::compact_all(std::span<const Candidate> candidates) {
    for (const Candidate& candidate : candidates) {
        const auto done = at_limit() ? false : compact(candidate);
        if (auto own = store_.check_process(); !own) {
            return own;  // see show_progress
        }
        if (!done && store_.has_damage(candidate.row.id)) {
            continue;
        }
        if (!done && done.error().code != Code::out_of_space) {
            return std::unexpected(done.error());
        }
        if (!done || !*done) {
            report_.finished = false;
            return {};
        }
        bytes_ += candidate.row.bytes;
        if (auto shown = show_progress(0); !shown) {
            return shown;
        }
        ++report_.segments_compacted;
    }
    return {};
}

// Drops what needs no room, and so works on a full disk. In order: a segment may hide older records
// in one before it.
Result<void> LogStore::Reclaim::drop_empty(std::span<const Candidate> candidates) {
    std::vector<Candidate> empty;
    for (const Candidate& candidate : candidates) {
        if (candidate.compact) {
            continue;
        }
        if (at_limit()) {
            report_.finished = false;
            break;
        }
        empty.push_back(candidate);
        bytes_ += candidate.row.bytes;
    }
    if (empty.empty()) {
        return {};
    }
    report_.segments_dropped += empty.size();
    return drop(empty);
}

// The id of the newest segment if too much of the log is garbage, and of this segment, too; else 0.
std::uint64_t LogStore::Reclaim::newest_if_garbage(const View& view, const TailNumbers& tail,
                                                   const std::map<std::uint64_t, Counted>& counted,
                                                   const StateCounts& newest_live) const {
    const SegmentRow& row = tail.parts.front().row;
    const Space newest = space(row, newest_live);
    const Space log = log_space(view, tail, counted, newest_live);
    if (bytes_goal_ != 0 && newest.bytes > newest.live + kEndedForGoalBytesMin &&
        log.live + (newest.bytes - newest.live) > bytes_goal_) {
        return row.id;
    }
    // A segment whose records are all live has the manifests of sweeps for garbage. One that goes
    // on from its limit has just moved these records there: were it to end the segment again and
    // again, it would never be done.
    const bool compact = options_.compact && row.records() > newest_live.total();
    const std::uint64_t bytes_min =
        compact ? 0 : std::max(ended_bytes_min(), log.bytes / kEndedLogShare);
    const std::uint64_t share = compact ? garbage_share_ : kGarbageShare;
    return newest.bytes >= bytes_min && newest.is_wasted(share) && log.is_wasted(share) ? row.id
                                                                                        : 0;
}

// Starts a new segment if the newest still is `newest`, which may be 0, and waits until all others
// are sealed: only sealed segments can be dropped.
Result<void> LogStore::Reclaim::seal_tail(std::uint64_t newest) {
    if (newest != 0) {
        auto started = store_.lead([&]() -> Result<void> {
            if (auto ready = store_.ready_to_write(); !ready) {
                return ready;
            }
            return store_.writer_->segment()->id() == newest ? store_.start_segment()
                                                             : Result<void>();
        });
        if (!started) {
            return started.error().code == Code::out_of_space ? Result<void>() : started;
        }
    }
    store_.internals_.pause();
    std::unique_lock lock(store_.view_mutex_);
    const std::uint64_t last = store_.view_ ? store_.view_->unsealed.front()->segment->id() : 0;
    store_.room_.wait(lock, [&] { return store_.closed_ || !store_.sealing_; });
    store_.seal_now();
    store_.room_.wait(lock, [&] {
        return store_.closed_ || !store_.view_ || !store_.background_error_.empty() ||
               store_.view_->unsealed.back()->segment->id() >= last;
    });
    return {};
}

// Takes segments out of the log: out of the manifest first, which makes it so; then out of the
// catalog; and then the files go. A file that a crash brings back is not in the manifest, and is
// removed at the next opening.
Result<void> LogStore::Reclaim::drop(std::span<const Candidate> candidates) {
    std::vector<std::uint64_t> ids;
    for (const Candidate& candidate : candidates) {
        ids.push_back(candidate.row.id);
    }
    auto done = store_.with_reserve([&] {
        return store_.lead([&]() -> Result<void> {
            if (auto ready = store_.ready_to_write(); !ready) {
                return ready;
            }
            const auto start = std::chrono::steady_clock::now();
            Manifest manifest = store_.manifest_;
            std::erase_if(manifest.segments, [&](const SegmentLength& segment) {
                return std::ranges::find(ids, segment.id) != ids.end();
            });
            manifest.given_up = std::ranges::max(ids);
            auto written = store_.write_manifest(std::move(manifest));
            report_.longest_pause_us =
                std::max(report_.longest_pause_us, microseconds_since(start));
            return written;
        });
    });
    if (!done) {
        return done;
    }
    for (const Candidate& candidate : candidates) {
        report_.records_dropped += candidate.row.records() - moved_from(candidate.row.id);
        store_.compacted_.erase(candidate.row.id);
    }
    store_.forget_damage(ids);
    store_.given_up_ = std::move(ids);
    return store_.drop_given_up();
}

// False: a limit has been reached before the segment was empty. An error because of damage in the
// segment is noted, and the segment stays; what has been moved by then is there twice.
Result<bool> LogStore::Reclaim::compact(const Candidate& candidate) {
    const auto moved = move_all(candidate);
    if (!moved || !*moved) {
        return moved;
    }
    if (auto dropped = drop({&candidate, 1}); !dropped) {
        return std::unexpected(dropped.error());
    }
    return true;
}

// The frames of a segment without live streams in which something may hide an older record, in
// order: those of streams that an older segment has, too. Both indexes are sorted, so that this
// costs a small part of what reading the records would.
Result<std::vector<std::uint32_t>> LogStore::Reclaim::places_of_shields(
    const View& view, const SealedSegment& sealed) const {
    std::vector<std::uint32_t> places;
    for (const SealedSegment& older : view.sealed->segments()) {
        if (older.row.id >= sealed.row.id) {
            break;
        }
        if (older.row.expires_max_ms < view.horizon.expired_before_ms) {
            continue;
        }
        std::uint64_t at = 0;
        for (std::uint64_t i = 0; i < sealed.index.size() && at < older.index.size();) {
            const auto entry = sealed.index.entry(i);
            const auto other = older.index.entry(at);
            if (!entry || !other) {
                return std::unexpected(store_.damaged_index(entry ? older : sealed));
            }
            if (other->id < entry->id) {
                ++at;
                continue;
            }
            if (other->id == entry->id) {
                places.push_back(entry->offset);
            }
            ++i;
        }
    }
    std::ranges::sort(places);
    const auto same = std::ranges::unique(places);
    places.erase(same.begin(), same.end());
    return places;
}

Result<bool> LogStore::Reclaim::move_all(const Candidate& candidate) {
    // Let go before each move, which may have to wait for the sealer.
    auto view = store_.view();
    if (!view) {
        return std::unexpected(view.error());
    }
    const SealedSegment* const sealed = (*view)->sealed->find(candidate.row.id);
    if (sealed == nullptr) {
        return true;
    }
    const std::shared_ptr<const Segment> segment = sealed->segment;
    ++report_.segments_scanned;
    std::optional<std::vector<std::uint32_t>> places;
    if (candidate.live.total() == 0) {
        auto found = places_of_shields(**view, *sealed);
        if (!found) {
            return std::unexpected(found.error());
        }
        places = std::move(*found);
    }
    // What has been looked at by an earlier sweep, up to its limit, need not stay.
    Compacted& compacted = store_.compacted_[segment->id()];
    std::vector<Moving> moving;
    std::size_t bytes = 0;
    Frames frames(*segment, compacted.offset, candidate.row.bytes, std::move(places));
    const auto move_now = [&] {
        const std::uint64_t before = report_.records_moved;
        auto moved = move(*segment, moving);
        compacted.moved += report_.records_moved - before;
        return moved;
    };
    while (true) {
        const auto frame = frames.next();
        if (!frame) {
            (void)store_.note_damage(*segment, frames.offset(), frame.error());
            return std::unexpected(frame.error());
        }
        if (!*frame) {
            break;
        }
        if (!has_records((*frame)->header.kind)) {
            continue;
        }
        bytes += (*frame)->bytes();
        if (auto picked = pick(**view, *segment, **frame, moving, compacted); !picked) {
            return std::unexpected(picked.error());
        }
        if (moving.size() < kMovedAtOnce && bytes < kMovedBytesAtOnce) {
            continue;
        }
        const std::uint64_t end = (*frame)->offset + (*frame)->bytes();
        view->reset();
        if (auto moved = move_now(); !moved) {
            return std::unexpected(moved.error());
        }
        bytes = 0;
        compacted.offset = end;
        if (auto shown = show_progress(end); !shown) {
            return std::unexpected(shown.error());
        }
        if (at_limit()) {
            return false;
        }
        view = store_.view();
        if (!view) {
            return std::unexpected(view.error());
        }
    }
    view->reset();
    if (auto moved = move_now(); !moved) {
        return std::unexpected(moved.error());
    }
    return true;
}

// Adds to `moving` the records of a frame that have to stay. Those that a sweep before this opening
// has moved are counted.
Result<void> LogStore::Reclaim::pick(const View& view, const Segment& segment, const Frame& frame,
                                     std::vector<Moving>& moving, Compacted& compacted) {
    const auto damaged = [&](const Error& error) {
        (void)store_.note_damage(segment, frame.offset, error);
        return std::unexpected(error);
    };
    FrameBuffer buffer;
    FrameRecords records(frame, segment.id());
    FrameRecord record;
    auto more = records.next(record);
    for (; more && *more; more = records.next(record)) {
        ++report_.records_scanned;
        const auto decoded = decode_view(record.encoded);
        if (!decoded) {
            return damaged(segment.corruption(frame.offset, decoded.error().message));
        }
        Located at;
        at.segment = &segment;
        at.entry.id = store_.locator_.id({decoded->ns, decoded->key});
        at.entry.offset = frame.offset;
        at.entry.sequence = record.sequence;
        at.record = *decoded;
        const auto newest =
            store_.newest_of(view, at, store_.locked_probe(view, at.entry.id), buffer);
        if (!newest) {
            return std::unexpected(newest.error());
        }
        if (!*newest || !same_place(**newest, at)) {
            compacted.moved += *newest && (*newest)->entry.sequence == record.sequence;
            continue;
        }
        const bool shield = removed(view, at);
        if (shield) {
            const auto needed = shields(view, segment, at.entry.id, {decoded->ns, decoded->key});
            if (!needed) {
                return std::unexpected(needed.error());
            }
            if (!*needed) {
                continue;
            }
        }
        moving.push_back({at.entry.id, record.sequence, frame.offset, decoded->state(), shield,
                          std::string(record.encoded)});
    }
    return more ? Result<void>() : damaged(segment.corruption(frame.offset, more.error().message));
}

// Whether a removed head in `segment` hides an older record that would come back to life without
// it: one that expires later, as when a receipt is kept for a shorter time than its claim. What
// cannot be read may be such a one.
Result<bool> LogStore::Reclaim::shields(const View& view, const Segment& segment,
                                        const StreamId& id, StreamKey stream) const {
    FrameBuffer buffer;
    bool damaged = false;
    const auto older = store_.find_newest(view, id, {}, [&](Located& found) -> Result<bool> {
        if (found.segment->id() >= segment.id()) {
            return false;
        }
        const auto read = read_record(found, stream, buffer);
        if (!read) {
            if (auto noted = store_.note_damage(*found.segment, found.entry.offset, read.error());
                !noted) {
                return std::unexpected(noted.error());
            }
            damaged = true;
        }
        return damaged || *read;
    });
    if (!older) {
        return std::unexpected(older.error());
    }
    return *older && (damaged || !removed(view, **older));
}

Result<void> LogStore::Reclaim::move(const Segment& from, std::vector<Moving>& moving) {
    if (moving.empty()) {
        return {};
    }
    std::uint64_t pause_us = 0;
    auto moved = store_.lead([&]() -> Result<void> {
        const auto start = std::chrono::steady_clock::now();
        auto done = move_as_leader(from, moving);
        pause_us = microseconds_since(start);
        return done;
    });
    report_.longest_pause_us = std::max(report_.longest_pause_us, pause_us);
    moving.clear();
    store_.rest_beside_appends(pause_us);
    return moved;
}

// Appends again those that still are their streams' heads, or an old record would come to lie above
// a newer one. They are not flushed: the old ones stay until the manifest is, which is later in the
// log.
Result<void> LogStore::Reclaim::move_as_leader(const Segment& from,
                                               std::span<const Moving> moving) {
    if (auto ready = store_.ready_to_write(); !ready) {
        return ready;
    }
    if (store_.writer_->end() >= store_.segment_bytes_) {
        if (auto started = store_.start_segment(); !started) {
            return started;
        }
    }
    const auto view = store_.view();
    if (!view) {
        return std::unexpected(view.error());
    }
    SegmentWriter& writer = *store_.writer_;
    std::vector<Applied> applied;
    for (const Moving& record : moving) {
        const auto decoded = decode_view(record.encoded);
        if (!decoded) {
            writer.discard();
            return std::unexpected(from.corruption(record.offset, decoded.error().message));
        }
        FrameBuffer buffer;
        Located at;
        at.segment = &from;
        at.entry.id = record.id;
        at.entry.sequence = record.sequence;
        at.record = *decoded;
        const auto newest = store_.newest_of(**view, at, probe(**view, record.id), buffer);
        if (!newest) {
            writer.discard();
            return std::unexpected(newest.error());
        }
        if (!*newest || !same_place(**newest, at)) {
            continue;
        }
        // Swept, or it would count as superseded besides as removed.
        const Link link{from.id(), record.offset, record.state, record.shield};
        const auto offset = static_cast<std::uint32_t>(writer.end());
        const std::size_t start = writer.buffered();
        begin_frame(writer.buffer());
        add_moved(writer.buffer(), writer.segment()->id(), record.encoded, link);
        writer.finish(start, FrameKind::moved, 1, record.sequence);
        applied.push_back(
            {{record.id, record.sequence, offset, pack(record.state, decoded->expires_at_ms)},
             link,
             0,
             decoded->ns,
             decoded->timestamp_ms,
             decoded->expires_at_ms,
             writer.end() - offset,
             true});
    }
    if (applied.empty()) {
        return {};
    }
    store_.expect_entries(**view, applied.size());
    if (auto reserved = writer.reserve(); !reserved) {
        writer.discard();
        return reserved;
    }
    const Unfinished unfinished(store_);
    if (auto written = store_.write_buffered(writer); !written) {
        return std::unexpected(store_.fail(written.error()));
    }
    store_.records_since_mark_ = true;
    const std::lock_guard lock(store_.view_mutex_);
    Unsealed& newest = *store_.view_->unsealed.front();
    store_.readers_.exclusive([&] {
        for (const Applied& record : applied) {
            newest.show(record);
        }
    });
    for (const Applied& record : applied) {
        newest.count(record);
    }
    newest.grown_to(writer.end());
    store_.written_time_ms_ = std::max(store_.written_time_ms_.load(), newest.row.time_high_ms);
    report_.records_moved += applied.size();
    return {};
}

}  // namespace dedup
