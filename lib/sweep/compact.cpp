#include "sweep/compact.hpp"

#include <algorithm>
#include <utility>

#include "log/frame_reader.hpp"
#include "metrics/counter.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// Moved together, while appends wait: as much as a small group of them.
constexpr std::size_t kMovedAtOnce = 64;
constexpr std::size_t kMovedBytesAtOnce = 256 * 1024;

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

bool Compactor::at_limit() const {
    return options_.stop.stop_requested() || context_.closed ||
           (options_.time_max.count() > 0 &&
            std::chrono::steady_clock::now() - start_ >= options_.time_max) ||
           (options_.records_max != 0 && report_.records_moved >= options_.records_max) ||
           (options_.bytes_max != 0 && bytes_ >= options_.bytes_max);
}

// Errors: closed, in a child that was forked just then. It ends the sweep without another lock:
// threads that do not exist here may hold them.
Result<void> Compactor::show_progress(std::uint64_t bytes_more) const {
    if (!options_.progress) {
        return {};
    }
    options_.progress(bytes_ + bytes_more, bytes_total_);
    return context_.check_process();
}

PlanInput Compactor::plan_input(const Now& now, const StateCounts& newest_live) const {
    PlanInput input = planner_.plan_input(now, now.view->horizon, {}, newest_live);
    input.segment_bytes = writer_.segment_bytes();
    input.now_ms = report_.now_ms;
    input.compact = options_.compact;
    input.bytes_goal = bytes_goal_;
    return input;
}

Result<void> Compactor::run(const StateCounts& newest_live) {
    std::uint64_t newest = 0;  // to be ended
    {
        const Now now = DEDUP_TRY(reader_.now());
        const PlanInput input = plan_input(now, newest_live);
        newest = ends_newest(input) ? input.newest.id : 0;
    }
    DEDUP_TRY(seal_unsealed(newest));
    std::vector<PlannedSegment> planned;
    {
        // (Of a segment that has been started since, what is taken for live is next to nothing.)
        const Now now = DEDUP_TRY(reader_.now());
        planned = plan_segments(plan_input(now, newest_live));
    }
    for (const PlannedSegment& segment : planned) {
        bytes_total_ += segment.row.bytes;
    }
    DEDUP_TRY(drop_empty(planned));
    DEDUP_TRY(show_progress(0));
    std::erase_if(planned, [](const PlannedSegment& segment) { return !segment.compact; });
    DEDUP_TRY(compact_all(planned));
    if (!report_.finished || !options_.compact) {
        return {};
    }
    // What has been moved is in the newest segment: that is sealed too, or it would be replayed.
    const SegmentRow row = DEDUP_TRY(reader_.now()).unsealed.parts.front().row;
    return row.bytes < ended_bytes_min(writer_.segment_bytes()) ? Result<void>()
                                                                : seal_unsealed(row.id);
}

// Starts a new segment if the newest still is `newest`, which may be 0, and waits until all others
// are sealed: only sealed segments can be dropped.
Result<void> Compactor::seal_unsealed(std::uint64_t newest) {
    if (newest != 0) {
        auto started = writer_.alone([&](const Turn& turn) -> Result<void> {
            DEDUP_TRY(context_.check_writable());
            return writer_.file(turn).segment()->id() == newest ? writer_.start_segment(turn)
                                                                : Result<void>();
        });
        if (!started) {
            return started.error().code == Code::out_of_space ? Result<void>() : started;
        }
    }
    context_.internals.pause();
    const std::uint64_t last = DEDUP_TRY(reader_.view())->unsealed.front()->segment->id();
    sealer_.seal_until(last);
    return {};
}

// Drops what needs no room, and so works on a full disk. In order: a segment may hide older records
// in one before it.
Result<void> Compactor::drop_empty(std::span<const PlannedSegment> planned_segments) {
    std::vector<PlannedSegment> empty;
    for (const PlannedSegment& planned : planned_segments) {
        if (planned.compact) {
            continue;
        }
        if (at_limit()) {
            report_.finished = false;
            break;
        }
        empty.push_back(planned);
        bytes_ += planned.row.bytes;
    }
    if (empty.empty()) {
        return {};
    }
    report_.segments_dropped += empty.size();
    return drop(empty);
}

Result<void> Compactor::compact_all(std::span<const PlannedSegment> planned_segments) {
    for (const PlannedSegment& planned : planned_segments) {
        const auto done = at_limit() ? false : compact(planned);
        if (auto own = context_.check_process(); !own) {
            return own;  // see show_progress
        }
        if (!done && context_.damage.has(planned.row.id)) {
            continue;
        }
        if (!done && done.error().code != Code::out_of_space) {
            return std::unexpected(done.error());
        }
        if (!done || !*done) {
            report_.finished = false;
            return {};
        }
        bytes_ += planned.row.bytes;
        if (auto shown = show_progress(0); !shown) {
            return shown;
        }
        ++report_.segments_compacted;
    }
    return {};
}

Result<void> Compactor::drop(std::span<const PlannedSegment> planned) {
    std::vector<std::uint64_t> ids;
    for (const PlannedSegment& segment : planned) {
        ids.push_back(segment.row.id);
    }
    DEDUP_TRY(dropper_.give_up(std::move(ids), report_));
    for (const PlannedSegment& segment : planned) {
        report_.records_dropped += segment.row.records() - planner_.moved_from(segment.row.id);
        planner_.forget_compacted(segment.row.id);
    }
    return dropper_.finish(state_);
}

// False: a limit has been reached before the segment was empty. An error because of damage in the
// segment is noted, and the segment stays; what has been moved by then is there twice.
Result<bool> Compactor::compact(const PlannedSegment& planned) {
    const auto moved = move_all(planned);
    if (!moved || !*moved) {
        return moved;
    }
    if (auto dropped = drop({&planned, 1}); !dropped) {
        return std::unexpected(dropped.error());
    }
    return true;
}

// The frames of a segment without live streams in which something may hide an older record, in
// order: those of streams that an older segment has, too. Both indexes are sorted, so that this
// costs a small part of what reading the records would.
Result<std::vector<std::uint32_t>> Compactor::places_of_shields(const View& view,
                                                                const SealedSegment& sealed) const {
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
                return std::unexpected(context_.damaged_index(entry ? older : sealed));
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

Result<bool> Compactor::move_all(const PlannedSegment& planned) {
    // Let go before each move, which may have to wait for the sealer.
    auto view = reader_.view();
    if (!view) {
        return std::unexpected(view.error());
    }
    const SealedSegment* const sealed = (*view)->sealed->find(planned.row.id);
    if (sealed == nullptr) {
        return true;
    }
    const std::shared_ptr<const Segment> segment = sealed->segment;
    ++report_.segments_scanned;
    std::optional<std::vector<std::uint32_t>> places;
    if (planned.live.total() == 0) {
        auto found = places_of_shields(**view, *sealed);
        if (!found) {
            return std::unexpected(found.error());
        }
        places = std::move(*found);
    }
    // What has been looked at by an earlier sweep, up to its limit, need not stay.
    SweepPlanner::Compacted& compacted = planner_.compacted(segment->id());
    std::vector<Moving> moving;
    std::size_t bytes = 0;
    std::uint64_t moved_before = 0;  // in the frames that `moving` is from
    Frames frames(*segment, compacted.offset, planned.row.bytes, std::move(places));
    // What fails halfway is looked at, and counted, again.
    const auto move_up_to = [&](std::uint64_t end) {
        const std::uint64_t before = report_.records_moved;
        auto moved = move(*segment, moving);
        if (moved) {
            compacted.moved += std::exchange(moved_before, 0) + report_.records_moved - before;
            compacted.offset = end;
        }
        return moved;
    };
    while (true) {
        const auto frame = frames.next();
        if (!frame) {
            (void)context_.damage.note(*segment, frames.offset(), frame.error());
            return std::unexpected(frame.error());
        }
        if (!*frame) {
            break;
        }
        if (!has_records((*frame)->header.kind)) {
            continue;
        }
        bytes += (*frame)->bytes();
        if (auto picked = pick(**view, *segment, **frame, moving, moved_before); !picked) {
            return std::unexpected(picked.error());
        }
        if (moving.size() < kMovedAtOnce && bytes < kMovedBytesAtOnce) {
            continue;
        }
        const std::uint64_t end = (*frame)->offset + (*frame)->bytes();
        view->reset();
        if (auto moved = move_up_to(end); !moved) {
            return std::unexpected(moved.error());
        }
        bytes = 0;
        if (auto shown = show_progress(end); !shown) {
            return std::unexpected(shown.error());
        }
        if (at_limit()) {
            return false;
        }
        view = reader_.view();
        if (!view) {
            return std::unexpected(view.error());
        }
    }
    view->reset();
    if (auto moved = move_up_to(planned.row.bytes); !moved) {
        return std::unexpected(moved.error());
    }
    return true;
}

// Adds to `moving` the records of a frame that have to stay. Those that a sweep before this opening
// has moved are counted in `moved_before`.
Result<void> Compactor::pick(const View& view, const Segment& segment, const Frame& frame,
                             std::vector<Moving>& moving, std::uint64_t& moved_before) {
    const auto damaged = [&](const Error& error) {
        (void)context_.damage.note(segment, frame.offset, error);
        return std::unexpected(error);
    };
    FrameBuffer buffer;
    FrameRecords records(frame, segment.id());
    while (const FrameRecord* const record = records.next()) {
        ++report_.records_scanned;
        const auto decoded = decode_view(record->encoded);
        if (!decoded) {
            return damaged(segment.corruption(frame.offset, decoded.error().message));
        }
        Located at;
        at.segment = &segment;
        at.entry.id = context_.locator.id({decoded->ns, decoded->key});
        at.entry.offset = frame.offset;
        at.entry.sequence = record->sequence;
        at.record = *decoded;
        const auto newest = reader_.newest_of(view, at, reader_.probe(view, at.entry.id), buffer);
        if (!newest) {
            return std::unexpected(newest.error());
        }
        if (!*newest || !same_place(**newest, at)) {
            moved_before += *newest && (*newest)->entry.sequence == record->sequence;
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
        moving.push_back({at.entry.id, record->sequence, frame.offset, decoded->state(), shield,
                          std::string(record->encoded)});
    }
    const auto outcome = records.outcome();
    return outcome ? outcome : damaged(segment.corruption(frame.offset, outcome.error().message));
}

// Whether a removed head in `segment` hides an older record that would come back to life without
// it: one that expires later, as when a receipt is kept for a shorter time than its claim. What
// cannot be read may be such a one.
Result<bool> Compactor::shields(const View& view, const Segment& segment, const StreamId& id,
                                StreamKey stream) const {
    FrameBuffer buffer;
    bool damaged = false;
    const auto older = reader_.find_newest(view, id, {}, [&](Located& found) -> Result<bool> {
        if (found.segment->id() >= segment.id()) {
            return false;
        }
        const auto read = Reader::read_record(found, stream, buffer);
        if (!read) {
            if (auto noted = context_.damage.note(*found.segment, found.entry.offset, read.error());
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

Result<void> Compactor::move(const Segment& from, std::vector<Moving>& moving) {
    if (moving.empty()) {
        return {};
    }
    std::uint64_t pause_us = 0;
    auto moved = writer_.alone([&](const Turn& turn) {
        const auto start = std::chrono::steady_clock::now();
        auto done = move_in_turn(turn, from, moving);
        pause_us = microseconds_since(start);
        return done;
    });
    report_.longest_pause_us = std::max(report_.longest_pause_us, pause_us);
    moving.clear();
    dropper_.rest_beside_appends(pause_us);
    return moved;
}

// Appends again those that still are their streams' heads, or an old record would come to lie above
// a newer one. They are not flushed: the old ones stay until the manifest is, which is later in the
// log.
Result<void> Compactor::move_in_turn(const Turn& turn, const Segment& from,
                                     std::span<const Moving> moving) {
    DEDUP_TRY(context_.check_writable());
    if (writer_.is_full(turn)) {
        DEDUP_TRY(writer_.start_segment(turn));
    }
    const ViewPtr view = DEDUP_TRY(reader_.view());
    SegmentWriter& file = writer_.file(turn);
    std::vector<Applied> moved;
    for (const Moving& record : moving) {
        const auto decoded = decode_view(record.encoded);
        if (!decoded) {
            file.discard();
            return std::unexpected(from.corruption(record.offset, decoded.error().message));
        }
        FrameBuffer buffer;
        Located at;
        at.segment = &from;
        at.entry.id = record.id;
        at.entry.sequence = record.sequence;
        at.record = *decoded;
        const auto newest = reader_.newest_of(*view, at, dedup::probe(*view, record.id), buffer);
        if (!newest) {
            file.discard();
            return std::unexpected(newest.error());
        }
        if (!*newest || !same_place(**newest, at)) {
            continue;
        }
        // Marked swept; otherwise the old record is subtracted twice: as superseded and as removed.
        const Link link{from.id(), record.offset, record.state, record.shield};
        moved.push_back(encode_again(file, {record.encoded, *decoded, record.id, link}));
    }
    if (moved.empty()) {
        return {};
    }
    DEDUP_TRY(writer_.write_records(turn, moved, false));
    report_.records_moved += moved.size();
    return {};
}

}  // namespace dedup
