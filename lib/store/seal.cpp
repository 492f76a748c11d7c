// Starting new segments, and sealing full ones in the background.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "store/log_store.hpp"

namespace dedup {
namespace {

// A segment is this part of the log, so that their number grows with its logarithm.
constexpr std::uint64_t kSegmentShare = 64;
// At least so much, which is replayed in well under a second, as long as nothing is removed. What
// is removed is given back by segments, so then small logs have smaller ones.
constexpr std::uint64_t kSegmentBytesUnswept = 64 * 1024 * 1024;
constexpr std::uint64_t kSegmentBytesSwept = 2 * 1024 * 1024;
constexpr std::chrono::seconds kSealRetry{1};

}  // namespace

std::uint64_t LogStore::choose_segment_bytes(std::uint64_t log_bytes) const {
    if (options_.segment_bytes != 0) {
        return options_.segment_bytes;
    }
    const bool swept = manifest_.horizon != Horizon();
    return std::clamp(log_bytes / kSegmentShare, swept ? kSegmentBytesSwept : kSegmentBytesUnswept,
                      kSegmentBytesMax);
}

// Waits while too many segments are unsealed.
Result<void> LogStore::wait_for_room() {
    std::unique_lock lock(view_mutex_);
    room_.wait(lock, [&] {
        return view_->unsealed.size() < kUnsealedMax || !background_error_.empty() || closed_;
    });
    if (view_->unsealed.size() < kUnsealedMax) {
        return {};
    }
    if (closed_) {
        return std::unexpected(closed_error());
    }
    return std::unexpected(
        Error{Code::out_of_space, fmt::format("{} segments wait to be sealed, and that fails: {}",
                                              view_->unsealed.size(), background_error_)});
}

// Closes the newest segment and begins the next. The leader calls this with nothing pending.
Result<void> LogStore::start_segment() {
    if (auto room = wait_for_room(); !room) {
        return room;
    }
    const auto view = this->view();
    if (!view) {
        return std::unexpected(view.error());
    }
    std::uint64_t log_bytes = writer_->end();
    for (const SealedSegment& sealed : (*view)->sealed->segments()) {
        log_bytes += sealed.row.bytes;
    }
    // The next header says how long this segment is, so all of it must be durable before.
    auto done = flush_written();
    if (done) {
        done = writer_->trim();
    }
    if (!done) {
        return std::unexpected(fail(done.error()));
    }
    SegmentHeader header;
    header.store_id = store_id_;
    header.id = writer_->segment()->id() + 1;
    header.previous_id = writer_->segment()->id();
    header.previous_bytes = writer_->end();
    header.next_sequence = std::max(next_sequence_, reserved_sequence_ + 1);
    header.time_high_ms = written_time_ms_;
    Manifest manifest = manifest_;
    manifest.time_high_ms = written_time_ms_;
    manifest.segments.push_back({header.previous_id, header.previous_bytes});
    const Unfinished unfinished(*this);
    auto next = SegmentWriter::create(env_, log_path_, header, manifest);
    if (!next) {
        // With the file unnamed nothing has changed, and the next append tries again. Otherwise
        // nobody knows whether a crash would leave the new segment there.
        const auto named = env_.type(log_path_ / segment_file_name(header.id));
        if (named && *named == PathType::absent) {
            return std::unexpected(next.error());
        }
        return std::unexpected(fail(next.error()));
    }
    segment_bytes_ = choose_segment_bytes(log_bytes);
    auto newest = std::make_shared<Unsealed>((*next)->segment(), segment_bytes_);
    newest->delta.expect((*view)->unsealed.front()->delta.size());  // as many as before
    newest->grown_to((*next)->end());
    newest->manifest = manifest;
    manifest_ = std::move(manifest);
    {
        const std::scoped_lock locks(flush_mutex_, view_mutex_);
        writer_ = std::move(*next);
        auto after = std::make_shared<View>(*view_);
        after->unsealed.insert(after->unsealed.begin(), std::move(newest));
        set_view(std::move(after));
    }
    sealer_wakes_.notify_one();
    return {};
}

// At the end, too, what is full is sealed: then the catalog knows of each segment but the newest,
// and a newest one that somebody removes is missed.
void LogStore::seal_in_background() {
    std::unique_lock lock(view_mutex_);
    const auto has_work = [&] {
        return view_->unsealed.size() > 1 && !counting_ &&
               (!horizon_waits_ || view_->unsealed.size() >= kUnsealedMax);
    };
    while (true) {
        if (!has_work()) {
            if (sealer_stops_) {
                return;
            }
            sealer_wakes_.wait(lock);
            continue;
        }
        std::shared_ptr<Unsealed> oldest = view_->unsealed.back();
        sealing_ = true;
        lock.unlock();
        Result<void> sealed = answered([&] { return seal(*oldest); });
        oldest.reset();  // and with it its delta, which nobody should have to wait for
        lock.lock();
        sealing_ = false;
        const bool failed = !sealed;
        background_error_ = failed ? std::move(sealed).error().message : std::string();
        room_.notify_all();
        if (failed && sealer_stops_) {
            return;
        }
        if (failed) {
            sealer_wakes_.wait_for(lock, kSealRetry);
        }
    }
}

// Under view_mutex_, while nothing is being sealed. If sealing has failed, it is not tried a second
// later but at once; then background_error_ says what came of it.
void LogStore::seal_now() {
    background_error_.clear();
    sealer_wakes_.notify_one();
}

// What the catalog will know of a segment's streams.
Result<Census> LogStore::census_to_seal(const Unsealed& oldest) {
    const auto now = tail_now();
    if (!now) {
        return std::unexpected(now.error());
    }
    const auto& [view, tail] = *now;
    Census census;
    census.streams = oldest.streams;
    if (view->horizon == Horizon()) {
        // Nothing was ever swept; or recovery counts at its end what its entries tell.
        census.removed = tally_of(oldest.reclaimed, oldest.row.id);
        return census;
    }
    census.removed = tally_of(tail.reclaimed, oldest.row.id);
    const auto remove = [&](const Located& at) -> Result<void> {
        ++counts_of(census.removed, at.record.ns)[at.record.state()];
        return {};
    };
    auto counted = visit_entries(oldest, oldest.delta.size(), [&](const IndexEntry& entry) {
        return find_removed(*view, *oldest.segment, entry, view->horizon, tail.sequence, remove);
    });
    if (!counted) {
        return std::unexpected(counted.error());
    }
    return census;
}

// Writes to the catalog, and shows readers what has changed. Nothing may fail between the two: what
// is in memory would count streams of a segment that the catalog has, too. So the files of a
// segment that is added are open before.
Result<void> LogStore::write_catalog(const std::function<Result<void>()>& write,
                                     const AddedSegment& added) {
    const std::lock_guard one_at_a_time(catalog_mutex_);
    if (torn_) {
        return std::unexpected(out_of_memory());  // memory has counts that are not the log's
    }
    if (auto written = write(); !written) {
        return written;
    }
    const Unfinished unfinished(*this);
    internals_.pause();
    const auto before = view();
    if (!before) {
        return std::unexpected(before.error());
    }
    auto sealed = catalog_->snapshot(env_, log_path_, (*before)->sealed, added);
    if (!sealed) {
        return std::unexpected(fail(sealed.error()));
    }
    const std::lock_guard lock(view_mutex_);
    set_view(with_sealed(std::move(*sealed)));
    return {};
}

// Moves the index of the oldest unsealed segment from memory into a file.
Result<void> LogStore::seal(const Unsealed& oldest) {
    const std::vector<IndexEntry> entries = oldest.delta.sorted();
    const auto census = census_to_seal(oldest);
    if (!census) {
        return std::unexpected(census.error());
    }
    SegmentRow row = oldest.row;
    row.entries = entries.size();
    AddedSegment added{oldest.segment, nullptr};
    const auto write = [&]() -> Result<void> {
        const auto now = view();
        if (!now) {
            return std::unexpected(now.error());
        }
        auto index = write_index(env_, log_path_, catalog_->meta(), row, entries,
                                 (*now)->sealed->segments());
        if (!index) {
            return std::unexpected(index.error());
        }
        added.index = std::move(*index);
        return catalog_->add(row, *census, oldest.superseded);
    };
    return write_catalog(write, added);
}

// The view with a newer snapshot, and without the segments that this one has.
ViewPtr LogStore::with_sealed(SnapshotPtr sealed) const {
    auto after = std::make_shared<View>();
    after->horizon = view_->horizon;
    const std::uint64_t last = sealed->segments().empty() ? 0 : sealed->segments().back().row.id;
    for (const auto& unsealed : view_->unsealed) {
        if (unsealed->segment->id() > last) {
            after->unsealed.push_back(unsealed);
        }
    }
    after->sealed = std::move(sealed);
    return after;
}

}  // namespace dedup
