#include "engine/log_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "metrics/counter.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// Durability::async: how many sequences may be assigned before the next mark. A crash of the
// machine may lose records whose sequences callers hold; recovery goes on above the mark.
constexpr std::uint64_t kReservedSequences = 1024 * 1024;

// A segment is this part of the log, so that their number grows with its logarithm.
constexpr std::uint64_t kSegmentShare = 64;
// At least so much, which is replayed in well under a second, as long as nothing is removed. What
// is removed is given back by segments, so then small logs have smaller ones.
constexpr std::uint64_t kSegmentBytesUnswept = 64 * 1024 * 1024;
constexpr std::uint64_t kSegmentBytesSwept = 2 * 1024 * 1024;
// A closed store's newest segment is shorter than this, or than that part of the log: reading it is
// most of what a process costs that opens the store for a single key.
constexpr std::uint64_t kTailBytesKept = 1024 * 1024;

std::uint64_t sealed_bytes(const View& view) {
    std::uint64_t bytes = 0;
    for (const SealedSegment& sealed : view.sealed->segments()) {
        bytes += sealed.row.bytes;
    }
    return bytes;
}

}  // namespace

std::uint64_t LogWriter::segment_bytes_for(const OpenOptions& options, const Horizon& horizon,
                                           std::uint64_t log_bytes) {
    if (options.segment_bytes != 0) {
        return options.segment_bytes;
    }
    const bool swept = horizon != Horizon();
    return std::clamp(log_bytes / kSegmentShare, swept ? kSegmentBytesSwept : kSegmentBytesUnswept,
                      kSegmentBytesMax);
}

void LogWriter::choose_segment_bytes(std::uint64_t log_bytes) {
    segment_bytes_ = segment_bytes_for(context_.options, manifest_.horizon, log_bytes);
}

void LogWriter::resume(std::unique_ptr<SegmentWriter> file, const Manifest& manifest, Lock& lock) {
    file_ = std::move(file);
    manifest_ = manifest;
    lock_ = &lock;
}

void LogWriter::begin(std::uint64_t next_sequence, std::uint64_t clock_changes) {
    next_sequence_ = next_sequence;
    clock_noted_ = clock_changes;
}

Error LogWriter::abandon(const Turn& /*turn*/) noexcept {
    if (!context_.failure.failed() && file_) {
        file_->discard();
    }
    return context_.failure.out_of_memory();
}

Result<void> LogWriter::start_segment(const Turn& /*turn*/) {
    DEDUP_TRY(sealer_.wait_for_room());
    const ViewPtr view = shown_.view();
    if (!view) {
        return std::unexpected(context_.closed_error());
    }
    const std::uint64_t log_bytes = file_->end() + sealed_bytes(*view);
    // The next header says how long this segment is, so all of it must be durable before.
    auto done = flush_written();
    if (done) {
        done = file_->trim();
    }
    if (!done) {
        return std::unexpected(context_.failure.set(done.error()));
    }
    SegmentHeader header;
    header.store_id = context_.store_id;
    header.id = file_->segment()->id() + 1;
    header.previous_id = file_->segment()->id();
    header.previous_bytes = file_->end();
    header.next_sequence = std::max(next_sequence_, reserved_sequence_ + 1);
    header.time_high_ms = context_.written_time_ms;
    Manifest manifest = manifest_;
    manifest.time_high_ms = context_.written_time_ms;
    manifest.segments.push_back({header.previous_id, header.previous_bytes});
    const Unfinished unfinished(context_.failure);
    auto next = SegmentWriter::create(context_.env, context_.log_path, header, manifest);
    if (!next) {
        // With the file unnamed nothing has changed, and the next append tries again. Otherwise
        // nobody knows whether a crash would leave the new segment there.
        const auto named = context_.env.type(context_.log_path / segment_file_name(header.id));
        if (named && *named == PathType::absent) {
            return std::unexpected(next.error());
        }
        return std::unexpected(context_.failure.set(next.error()));
    }
    choose_segment_bytes(log_bytes);
    auto newest = std::make_shared<Unsealed>((*next)->segment(), segment_bytes_, segment_bytes_);
    newest->grown_to((*next)->end());
    newest->manifest = manifest;
    manifest_ = std::move(manifest);
    std::shared_ptr<Unsealed> full = view->unsealed.front();
    {
        const MutexLock lock(flush_mutex_);
        ShownView::Access shown(shown_);
        file_ = std::move(*next);
        auto after = std::make_shared<View>(*shown.view());
        after->unsealed.insert(after->unsealed.begin(), std::move(newest));
        shown.publish(std::move(after));
    }
    sealer_.add(std::move(full));
    return {};
}

Result<void> LogWriter::shorten_tail(const Turn& turn) {
    const ViewPtr view = shown_.view();
    if (!view || context_.failure.failed() || context_.options.segment_bytes != 0 ||
        file_->end() < std::max(kTailBytesKept, sealed_bytes(*view) / kSegmentShare)) {
        return {};
    }
    return start_segment(turn);
}

// Shows what has been written: change(access, newest) does so to the numbers of the newest segment.
template <class Change>
void LogWriter::show(Change change) {
    {
        ShownView::Access shown(shown_);
        Unsealed& newest = shown.newest();
        change(shown, newest);
        newest.grown_to(file_->end());
        context_.written_time_ms =
            std::max(context_.written_time_ms.load(), newest.row.time_high_ms);
    }
    context_.clock.saw_time(context_.written_time_ms);
}

Result<void> LogWriter::write_records(const Turn& /*turn*/, std::span<const Applied> records,
                                      bool flush) {
    shown_.expect_entries(records.size());
    if (auto reserved = file_->reserve(); !reserved) {
        file_->discard();
        return reserved;
    }
    const Unfinished unfinished(context_.failure);
    records_since_mark_ = true;
    auto done = write_buffered();
    if (done && flush) {
        done = flush_written();
    }
    if (!done) {
        return std::unexpected(context_.failure.set(done.error()));
    }
    show([&](ShownView::Access& shown, Unsealed& newest) {
        shown.exclusive([&] {
            for (const Applied& record : records) {
                newest.show(record);
            }
        });
        for (const Applied& record : records) {
            newest.count(record);
        }
        shown.raise_applied_sequence(newest.last_sequence);
    });
    return {};
}

// Writes a frame without records and, if `flush`, flushes it, whatever the durability. It says that
// no sequence above `sequence` has been assigned.
Result<void> LogWriter::write_now(FrameKind kind, std::string_view body, std::uint64_t sequence,
                                  bool flush) {
    file_->begin();
    file_->buffer() += body;
    file_->finish(kind, 0, sequence);
    if (auto reserved = file_->reserve(flush); !reserved) {  // nothing follows without a flush

        file_->discard();
        return reserved;
    }
    const Unfinished unfinished(context_.failure);
    auto done = write_buffered();
    if (done && flush) {
        done = flush_written();
    }
    if (!done) {
        return std::unexpected(context_.failure.set(done.error()));
    }
    records_since_mark_ = false;
    return {};
}

Result<void> LogWriter::write_mark(const Turn& turn, std::uint64_t sequence, bool flush) {
    const std::int64_t time_ms = context_.clock.now_ms();
    DEDUP_TRY(note_clock(turn));
    DEDUP_TRY(write_now(FrameKind::mark, mark_body(time_ms), sequence, flush));
    show([&](ShownView::Access& /*shown*/, Unsealed& newest) { newest.raise(time_ms, sequence); });
    return {};
}

Result<void> LogWriter::write_manifest(const Turn& /*turn*/, Manifest manifest, bool is_step) {
    const std::uint64_t sequence = std::max(next_sequence_ - 1, reserved_sequence_);
    manifest.steps = manifest_.steps + (is_step ? 1 : 0);
    // A jump is in the history before the time behind it is seen. So the time is read last: that of
    // every jump in this history.
    (void)context_.clock.now_ms();
    std::uint64_t changes = 0;
    manifest.clock = context_.clock.clock_history_at(next_sequence_ - 1, changes);
    manifest.time_high_ms = context_.clock.saw_time(0);
    Manifest copy = manifest;  // now, as nothing may fail behind the write
    DEDUP_TRY(write_now(manifest_kind(manifest), encode_manifest(manifest), sequence, true));
    clock_noted_ = changes;
    show([&](ShownView::Access& /*shown*/, Unsealed& newest) {
        newest.manifest = std::move(copy);
        newest.raise(manifest.time_high_ms, sequence);
    });
    manifest_ = std::move(manifest);
    return {};
}

bool LogWriter::must_reserve(const Turn& /*turn*/) const {
    return context_.options.durability == Durability::async &&
           next_sequence_ + kBatchItemsMax > reserved_sequence_;
}

Result<void> LogWriter::reserve_sequences(const Turn& turn) {
    const std::uint64_t last = next_sequence_ + std::min(kReservedSequences + kBatchItemsMax,
                                                         kSequenceMax - next_sequence_);
    DEDUP_TRY(write_mark(turn, last));
    reserved_sequence_ = last;
    return {};
}

Result<void> LogWriter::note_clock(const Turn& turn) {
    return clock_is_new(turn) ? write_manifest(turn, manifest_, false) : Result<void>();
}

Result<void> LogWriter::begin_clock(const Turn& turn, ClockHistory clock, std::int64_t time_ms) {
    if (clock.resets.empty()) {
        context_.clock.set_clock_history(std::move(clock));
        return note_clock(turn);
    }
    clock.resets.back().segment = file_->segment()->id() + 1;
    ClockHistory clock_before = std::exchange(manifest_.clock, clock);
    const std::int64_t time_before = context_.written_time_ms.exchange(time_ms);
    if (auto started = start_segment(turn); !started) {
        manifest_.clock = std::move(clock_before);
        context_.written_time_ms = time_before;
        return started;
    }
    context_.clock.set_clock_history(std::move(clock));
    clock_noted_ = context_.clock.clock_changes();
    context_.clock.set_time(time_ms);
    return {};
}

Result<void> LogWriter::check_room(const Turn& /*turn*/, std::uint64_t pending_streams,
                                   const Room& wanted) const {
    const Capacity& capacity = context_.options.capacity;
    Room held{streams_ + pending_streams, 0};
    if (capacity.bytes_max != 0) {
        held.bytes = file_->end();
        for (const SegmentLength& segment : manifest_.segments) {
            held.bytes += segment.bytes;
        }
    }
    return fits(capacity, held, wanted)
               ? Result<void>()
               : std::unexpected(no_room(context_.name(), capacity, held, wanted));
}

Result<void> LogWriter::write_buffered() {
    const std::uint64_t bytes = file_->buffered();
    auto done = file_->write();
    context_.counters.bytes_written.add(done ? bytes : 0);
    return done;
}

Result<void> LogWriter::flush_written() {
    const MutexLock lock(flush_mutex_);
    return sync_written();
}

// What a flush is counted by; see SegmentWriter::sync_written for who may call it.
Result<void> LogWriter::sync_written() {
    if (file_->synced()) {
        return file_->sync_written();
    }
    const auto start = std::chrono::steady_clock::now();
    const Unfinished unfinished(context_.failure);
    auto done = file_->sync_written();
    if (done) {
        done = lock_->check();
    }
    context_.counters.flushes.add(1);
    context_.counters.flush_ns.add(nanoseconds_since(start));
    return done;
}

Result<void> LogWriter::flush() {
    return alone([&](const Turn& /*turn*/) -> Result<void> {
        DEDUP_TRY(context_.check_writable());
        if (auto flushed = flush_written(); !flushed) {
            return std::unexpected(context_.failure.set(flushed.error()));
        }
        return {};
    });
}

void LogWriter::start_flusher() {
    flusher_ = start_thread("dedup-flusher", [this] { flush_in_background(); });
}

void LogWriter::flush_in_background() {
    MutexLock lock(flush_mutex_);
    while (true) {
        if (!flusher_stops_) {
            flusher_wakes_.wait_for(lock, context_.options.flush_interval);
        }
        if (flusher_stops_) {
            return;
        }
        if (context_.failure.failed()) {
            continue;
        }
        (void)context_.failure.answered([&]() -> Result<void> {
            if (auto flushed = sync_written(); !flushed) {
                return std::unexpected(context_.failure.set(flushed.error()));
            }
            return {};
        });
    }
}

void LogWriter::stop_flusher() {
    {
        const MutexLock lock(flush_mutex_);
        flusher_stops_ = true;
    }
    flusher_wakes_.notify_all();
    if (flusher_.joinable()) {
        flusher_.join();
    }
}

Result<void> LogWriter::finish(const Turn& turn) {
    if (context_.failure.failed()) {
        if (!file_ || file_->untouched() || file_->synced()) {
            return {};
        }
        return std::unexpected(
            Error{Code::failed, fmt::format("what was last appended to {} may not be durable: {}; "
                                            "open the store again and look",
                                            context_.name(), context_.failure.reason())});
    }
    if (!file_->untouched()) {
        if (auto flushed = flush_written(); !flushed) {
            return std::unexpected(context_.failure.set(flushed.error()));
        }
    }
    // The mark proves that all before it was flushed: without it, damage there could not be told
    // from a torn tail. That is worth no flush: if the power takes the mark, all before it is
    // there. A time that only duplicates have seen is, as nothing else has it.
    constexpr std::int64_t kTimeWorthAFlushMs = 60'000;
    const bool flush = context_.clock.now_ms() - context_.written_time_ms > kTimeWorthAFlushMs ||
                       clock_is_new(turn);
    if (records_since_mark_ || flush) {
        // Without room for the mark nothing is lost but that proof.
        auto marked = write_mark(turn, next_sequence_ - 1, flush);
        if (!marked && marked.error().code != Code::out_of_space) {
            return marked;
        }
    }
    return file_->trim();
}

}  // namespace dedup
