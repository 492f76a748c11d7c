#include "store/log_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <tuple>
#include <utility>

#include "dedup/postgres_store.hpp"
#include "log/frame_reader.hpp"
#include "store/check_stream.hpp"

namespace dedup {
namespace {

// How many keys are looked up side by side.
constexpr std::size_t kHeadsChunk = 16;
// A page of a scan ends after this much of the log, however few heads it found.
constexpr std::uint64_t kScanPageBytes = 64 * 1024 * 1024;

Error bad_cursor(std::string_view cursor) {
    return {Code::invalid_argument, fmt::format("\"{}\" is not a cursor that scan gave", cursor)};
}

Version to_version(const Located& at) {
    return {to_record(at.record), at.segment->id(), at.entry.offset, at.frame_bytes};
}

}  // namespace

Result<Path> fixed_path(const Path& path) {
    std::error_code error;
    Path fixed = std::filesystem::weakly_canonical(path, error);
    if (error || !fixed.is_absolute()) {
        fixed = std::filesystem::absolute(path, error);
    }
    if (error) {
        return std::unexpected(os_failure("find", path, error.value()));
    }
    return fixed;
}

LogStore::LogStore(Env& env, Path path, const OpenOptions& options,
                   const LogStoreInternals& internals)
    : StreamStore(options.clock, options.grace,
                  options.read_only || internals.ignore_jumps ? Jumps::ignore
                  : options.trust_clock                       ? Jumps::trust
                                                              : Jumps::withhold),
      env_(env),
      path_(std::move(path)),
      log_path_(path_ / "log"),
      catalog_path_(path_ / "catalog"),
      options_(options),
      internals_(internals) {}

LogStore::~LogStore() {
    (void)close();
}

void LogStore::operator delete(LogStore* store, std::destroying_delete_t) {
    if (store->mark_.inherited()) {
        leave_to_parent(store);
        return;
    }
    store->~LogStore();
    ::operator delete (store, sizeof(LogStore), std::align_val_t{alignof(LogStore)});
}

// Errors: closed, in a forked child.
Result<void> LogStore::check_process() const {
    if (mark_.inherited()) {
        return std::unexpected(mark_.inherited_error(fmt::format("store {}", path_.string())));
    }
    return {};
}

Error LogStore::closed_error() const {
    return {Code::closed, fmt::format("store {} has been closed", path_.string())};
}

Error LogStore::called_back_error(std::string_view call) const {
    return {Code::busy, fmt::format("store {}: {} was called back from within a sweep of it",
                                    path_.string(), call)};
}

Error LogStore::damaged_index(const SealedSegment& sealed) const {
    return {
        Code::corruption,
        fmt::format("{} is damaged; close the store and remove that file: opening the store for "
                    "writing makes it anew from the segment",
                    (log_path_ / index_file_name(sealed.row.id)).string())};
}

Result<ViewPtr> LogStore::view() const {
    ViewPtr view = readers_.view();
    return view ? Result<ViewPtr>(std::move(view)) : std::unexpected(closed_error());
}

// Under view_mutex_, or before there are other threads.
void LogStore::set_view(ViewPtr view) {
    readers_.publish(view);  // may run out of memory; then nothing has changed
    view_ = std::move(view);
}

// Before a read: a read-only store takes up what its writer has done.
// Errors: closed, in a forked child; and those of follow().
Result<void> LogStore::follow_writer() {
    if (mark_.inherited()) {
        return check_process();
    }
    return options_.read_only ? follow() : Result<void>();
}

Result<ViewPtr> LogStore::view_for_reading() {
    if (auto followed = follow_writer(); !followed) {
        return std::unexpected(followed.error());
    }
    return view();
}

void LogStore::prefetch_filters(const View& view, const StreamId& id) {
    for (const SealedRun& run : view.sealed->runs()) {
        run.filters->prefetch(id);
    }
}

// The leader may call this as it is, since only it changes the newest delta; all others hold a
// gate.
Candidates LogStore::probe(const View& view, const StreamId& id) {
    Candidates found;
    for (const auto& unsealed : view.unsealed) {
        (void)unsealed->delta.find(id, [&](const IndexEntry& entry) {
            Candidate& at =
                found.newest.segment == nullptr ? found.newest : found.older.emplace_back();
            at = {unsealed->segment.get(), entry};
            return false;
        });
    }
    return found;
}

Candidates LogStore::locked_probe(const View& view, const StreamId& id) const {
    return readers_.shared([&] { return probe(view, id); });
}

// Fills in the record of `stream` in a frame of `at.segment`, if it is the one with the sequence
// of at.entry; with any, if that is 0. False: the frame has none. (A frame may hold two streams
// that share an id, and the entry of one must not stand for the other.)
Result<bool> LogStore::find_in_frame(const Frame& frame, StreamKey stream, Located& at) {
    FrameRecords records(frame, at.segment->id());
    FrameRecord record;
    while (true) {
        const auto more = records.next(record);
        if (!more) {
            return std::unexpected(at.segment->corruption(frame.offset, more.error().message));
        }
        if (!*more) {
            return false;
        }
        if (at.entry.sequence != 0 && at.entry.sequence != record.sequence) {
            continue;
        }
        at.record = {};
        if (const auto decoded = decode_view(record.encoded, at.record); !decoded) {
            return std::unexpected(at.segment->corruption(frame.offset, decoded.error().message));
        }
        if (at.record.key == stream.key && at.record.ns == stream.ns) {
            at.link = record.link;
            at.entry.sequence = record.sequence;
            at.frame_bytes = frame.bytes();
            return true;
        }
    }
}

// Reads the record at `at`. False: the frame there holds another stream, which shares the id.
Result<bool> LogStore::read_record(Located& at, StreamKey stream, FrameBuffer& buffer) {
    const auto frame = at.segment->read_frame(at.entry.offset, buffer);
    if (!frame) {
        return std::unexpected(frame.error());
    }
    return find_in_frame(*frame, stream, at);
}

std::vector<Result<std::optional<Record>>> LogStore::heads(std::span<const StreamKey> streams) {
    std::vector<Result<std::optional<Record>>> results(streams.size());
    const auto view = view_for_reading();
    if (!view) {
        std::ranges::fill(results, std::unexpected(view.error()));
        return results;
    }
    for (std::size_t i = 0; i < streams.size(); i += kHeadsChunk) {
        const std::size_t count = std::min(kHeadsChunk, streams.size() - i);
        head_chunk(**view, streams.subspan(i, count), std::span(results).subspan(i, count));
    }
    return results;
}

// The heads of at most kHeadsChunk streams, all of them a step at a time, so that what one key
// needs of memory is fetched while the others are worked on.
void LogStore::head_chunk(const View& view, std::span<const StreamKey> streams,
                          std::span<Result<std::optional<Record>>> results) const {
    std::array<StreamId, kHeadsChunk> ids;
    for (std::size_t i = 0; i < streams.size(); ++i) {
        ids[i] = locator_.id(streams[i]);
        prefetch_filters(view, ids[i]);
    }
    std::array<std::optional<HeadSearch>, kHeadsChunk> searches;
    readers_.shared([&] {
        for (std::size_t i = 0; i < streams.size() && streams.size() > 1; ++i) {
            for (const auto& segment : view.unsealed) {
                segment->delta.prefetch(ids[i]);
            }
        }
        for (std::size_t i = 0; i < streams.size(); ++i) {
            searches[i].emplace(view, ids[i], probe(view, ids[i]));
        }
    });
    for (int step = 0; step < HeadSearch::kSteps; ++step) {
        for (std::size_t i = 0; i < streams.size(); ++i) {
            searches[i]->step();
        }
    }
    for (std::size_t i = 0; i < streams.size(); ++i) {
        find_head(view, streams[i], *searches[i], results[i]);
    }
}

// The same for one stream, without what is only worth it for several.
Result<std::optional<Record>> LogStore::head(StreamKey stream) {
    Result<std::optional<Record>> head;  // the only thing returned, so that it is never moved
    if (auto followed = follow_writer(); !followed) {
        head = std::unexpected(std::move(followed).error());
        return head;
    }
    const StreamId id = locator_.id(stream);
    Candidates unsealed;
    const ViewPtr view = readers_.view([&](const View& now) {
        prefetch_filters(now, id);
        unsealed = probe(now, id);
    });
    if (!view) {
        head = std::unexpected(closed_error());
        return head;
    }
    HeadSearch search(*view, id, std::move(unsealed));
    find_head(*view, stream, search, head);
    return head;
}

// Into `head`, which is as a new one is.
void LogStore::find_head(const View& view, StreamKey stream, HeadSearch& search,
                         Result<std::optional<Record>>& head) const {
    if (auto checked = check_stream(stream); !checked) {
        head = std::unexpected(std::move(checked).error());
        return;
    }
    FrameBuffer buffer;
    Located at;
    const auto found = find_newest(search, at, [&](Located& candidate) {
        auto read = read_record(candidate, stream, buffer);
        if (!read) {
            (void)note_damage(*candidate.segment, candidate.entry.offset, read.error());
        }
        return read;
    });
    if (!found) {
        head = std::unexpected(found.error());
    } else if (*found && !removed(view, at)) {
        copy_to(at.record, head->emplace());
    }
}

Result<std::vector<Version>> LogStore::history(StreamKey stream) {
    if (auto checked = check_stream(stream); !checked) {
        return std::unexpected(checked.error());
    }
    const NoCancel no_cancel;
    const auto view = view_for_reading();
    if (!view) {
        return std::unexpected(view.error());
    }
    std::vector<Version> versions;
    FrameBuffer buffer;
    const StreamId id = locator_.id(stream);
    auto at = find_newest(**view, id, locked_probe(**view, id),
                          [&](Located& found) { return read_record(found, stream, buffer); });
    if (at && *at && removed(**view, **at)) {
        return versions;
    }
    while (at && *at) {
        // A record that a sweep has moved links to itself at its old place.
        if (versions.empty() || versions.back().record.sequence != (*at)->entry.sequence) {
            versions.push_back(to_version(**at));
        }
        const Link link = (*at)->link;
        if (link.swept) {
            break;
        }
        at = follow_link(**view, link, stream, buffer);
        if (at && !*at && link.segment != 0) {
            at = find_older(**view, link.segment, stream, versions.back().record, buffer);
        }
    }
    if (!at) {
        return std::unexpected(at.error());
    }
    std::ranges::reverse(versions);
    return versions;
}

// The record before `newer` in its stream, where the link to it led to a segment that has been
// dropped: the newest in an older segment. One that sweeps have removed belongs to the same history
// only if both are of one claim; else the stream may have begun anew after it.
Result<std::optional<Located>> LogStore::find_older(const View& view, std::uint64_t before_segment,
                                                    StreamKey stream, const Record& newer,
                                                    FrameBuffer& buffer) const {
    const StreamId id = locator_.id(stream);
    auto older = find_newest(view, id, locked_probe(view, id), [&](Located& found) -> Result<bool> {
        return found.segment->id() < before_segment ? read_record(found, stream, buffer)
                                                    : Result<bool>(false);
    });
    if (older && *older && removed(view, **older) &&
        (*older)->record.claim_sequence != newer.claim_sequence) {
        return std::nullopt;
    }
    return older;
}

// Whether no newer record of the stream exists, and no sweep has removed it. A newer one that
// cannot be read is one, too, if damage is passed by.
Result<bool> LogStore::is_head(const View& view, const Located& at, OnDamage on_damage) const {
    if (removed(view, at)) {
        return false;
    }
    FrameBuffer buffer;
    const StreamKey stream{at.record.ns, at.record.key};
    const auto newest = find_newest(
        view, at.entry.id, locked_probe(view, at.entry.id), [&](Located& found) -> Result<bool> {
            if (found.segment->id() == at.segment->id() &&
                found.entry.sequence == at.entry.sequence) {
                return true;
            }
            auto read = read_record(found, stream, buffer);
            if (read || on_damage == OnDamage::stop) {
                return read;
            }
            auto noted = note_damage(*found.segment, found.entry.offset, read.error());
            return noted ? Result<bool>(true) : std::unexpected(noted.error());
        });
    if (!newest) {
        return std::unexpected(newest.error());
    }
    return *newest && (*newest)->segment->id() == at.segment->id() &&
           (*newest)->entry.offset == at.entry.offset &&
           (*newest)->entry.sequence == at.entry.sequence;
}

Result<void> LogStore::scan_segment(const View& view, const Segment& segment, std::uint64_t end,
                                    const ScanOptions& options, OnDamage on_damage,
                                    std::uint64_t& offset, ScanPage& page,
                                    std::uint64_t& budget) const {
    FrameReader reader(segment, offset, end);
    const auto damaged = [&](const Error& error) -> Result<void> {
        return on_damage == OnDamage::pass ? note_damage(segment, offset, error)
                                           : std::unexpected(error);
    };
    while (page.heads.size() < options.heads_max && budget > 0 && offset < end) {
        const auto frame = reader.next();
        if (!frame || !*frame) {
            auto passed = damaged(frame ? segment.corruption(offset, "there is no valid frame")
                                        : frame.error());
            if (!passed) {
                return passed;
            }
            const auto next = find_frame_from(segment, offset + 1, end);
            offset = next ? next->value_or(end) : end;
            reader.skip_to(offset);
            continue;
        }
        if (!has_records((*frame)->header.kind)) {
            offset = reader.offset();
            continue;
        }
        FrameRecords records(**frame, segment.id());
        FrameRecord record;
        auto more = records.next(record);
        for (; more && *more; more = records.next(record)) {
            const auto decoded = decode_view(record.encoded);
            if (!decoded) {
                auto passed = damaged(segment.corruption(offset, decoded.error().message));
                if (!passed) {
                    return passed;
                }
                continue;
            }
            if ((!options.ns.empty() && decoded->ns != options.ns) ||
                !decoded->key.starts_with(options.key_prefix)) {
                continue;
            }
            Located at;
            at.segment = &segment;
            at.entry.id = locator_.id({decoded->ns, decoded->key});
            at.entry.sequence = record.sequence;
            at.entry.offset = (*frame)->offset;
            at.record = *decoded;
            at.frame_bytes = (*frame)->bytes();
            const auto head = is_head(view, at, on_damage);
            if (!head) {
                return std::unexpected(head.error());
            }
            if (*head) {
                page.heads.push_back(to_version(at));
            }
        }
        if (!more) {
            auto passed = damaged(segment.corruption(offset, more.error().message));
            if (!passed) {
                return passed;
            }
        }
        budget -= std::min(budget, (*frame)->bytes());
        offset = reader.offset();
    }
    return {};
}

Result<ScanPage> LogStore::scan(const ScanOptions& options, OnDamage on_damage) {
    // The cursor is "<segment>.<offset>" of the next frame.
    std::uint64_t segment_id = 0;
    std::uint64_t offset = kSegmentHeaderBytes;
    if (!options.cursor.empty()) {
        const char* end = options.cursor.data() + options.cursor.size();
        const auto id = std::from_chars(options.cursor.data(), end, segment_id);
        const char* rest = id.ptr == end ? end : id.ptr + 1;
        const auto place = std::from_chars(rest, end, offset);
        if (id.ec != std::errc() || id.ptr == end || *id.ptr != '.' || place.ec != std::errc() ||
            place.ptr != end || offset < kSegmentHeaderBytes) {
            return std::unexpected(bad_cursor(options.cursor));
        }
    }
    if (options.heads_max == 0) {
        return std::unexpected(
            Error{Code::invalid_argument, "heads_max is 0; at least 1 is needed"});
    }
    const NoCancel no_cancel;
    const auto view = view_for_reading();
    if (!view) {
        return std::unexpected(view.error());
    }
    std::vector<std::pair<const Segment*, std::uint64_t>> parts;  // with their ends, oldest first
    for (const SealedSegment& sealed : (*view)->sealed->segments()) {
        parts.emplace_back(sealed.segment.get(), sealed.row.bytes);
    }
    {
        const std::lock_guard lock(view_mutex_);
        for (const auto& unsealed : (*view)->unsealed) {
            parts.emplace_back(unsealed->segment.get(), unsealed->row.bytes);
        }
    }
    std::ranges::sort(parts, {}, [](const auto& part) { return part.first->id(); });
    for (const auto& [segment, end] : parts) {
        FrameBuffer buffer;
        const bool checked = !options.cursor.empty() && on_damage == OnDamage::stop;
        if (checked && segment->id() == segment_id && offset < end) {
            const auto frame = segment->find_frame(static_cast<std::uint32_t>(offset), buffer);
            if (!frame || !*frame) {
                return std::unexpected(frame ? bad_cursor(options.cursor) : frame.error());
            }
        }
    }

    ScanPage page;
    std::uint64_t budget = kScanPageBytes;
    for (const auto& [segment, end] : parts) {
        if (segment->id() < segment_id) {
            continue;
        }
        if (segment->id() > segment_id) {
            offset = kSegmentHeaderBytes;
        }
        segment_id = segment->id();
        auto scanned =
            scan_segment(**view, *segment, end, options, on_damage, offset, page, budget);
        if (!scanned) {
            return std::unexpected(scanned.error());
        }
        if (offset < end || page.heads.size() >= options.heads_max || budget == 0) {
            page.cursor = fmt::format("{}.{}", segment_id, offset);
            return page;
        }
    }
    return page;
}

Result<StoreStats> LogStore::stats() {
    const NoCancel no_cancel;
    const auto now = tail_now();
    if (!now) {
        return std::unexpected(now.error());
    }
    const auto& [view, tail] = *now;
    StoreStats stats;
    for (const char byte : store_id_) {
        stats.store_id += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    }
    std::uint64_t next_sequence = 1;
    const auto add = [&](const SegmentRow& row) {
        stats.records += row.records();
        stats.log_bytes += row.bytes;
        next_sequence = std::max(next_sequence, row.next_sequence);
    };
    for (const SealedSegment& sealed : view->sealed->segments()) {
        add(sealed.row);
        ++stats.segments_sealed;
    }
    stats.memory_bytes = view->sealed->filter_bytes();
    std::shared_ptr<Catalog> catalog;
    {
        const std::lock_guard lock(view_mutex_);
        for (const auto& unsealed : view->unsealed) {
            add(unsealed->row);
            ++stats.segments_unsealed;
            stats.tail_bytes += unsealed->row.bytes;
            stats.memory_bytes += unsealed->delta.memory_bytes();
        }
        stats.background_error = background_error_;
        stats.sweep_error = sweep_error_;
        catalog = catalog_;
    }
    const auto streams = live_streams(*view, tail);
    const auto sweeps =
        catalog ? catalog->sweep_state() : Result<SweepState>(std::unexpected(closed_error()));
    if (!streams || !sweeps) {
        return std::unexpected(streams ? sweeps.error() : streams.error());
    }
    stats.in_flight = streams->in_flight;
    stats.completed = streams->completed;
    stats.released = streams->released;
    stats.evicted = sweeps->evicted;
    stats.last_sweep_ms = std::max(sweeps->last_sweep_ms, last_sweep_ms_.load());
    std::tie(stats.damaged, stats.damage) = damage();
    stats.last_sequence = next_sequence - 1;
    stats.time_high_ms = saw_time(0);
    stats.clock_ms = clock_ms();
    stats.clock = clock_as_seen();
    stats.withheld = why_withheld(*view, {}, std::max(stats.time_high_ms, stats.clock_ms));
    stats.catalog_bytes = view->sealed->used_bytes();
    stats.torn_bytes_dropped = torn_bytes_dropped_;
    stats.catalog_rebuilt = catalog_rebuilt_;
    return stats;
}

Result<std::unique_ptr<StreamStore>> open(const std::filesystem::path& path,
                                          const OpenOptions& options) {
    if (is_postgres_url(path.native())) {
        return open_postgres(path.native(), {.read_only = options.read_only,
                                             .clock = {},
                                             .trust_clock = options.trust_clock,
                                             .grace = options.grace,
                                             .capacity = options.capacity});
    }
    return LogStore::open(path, options);
}

}  // namespace dedup
