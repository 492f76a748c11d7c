#include "store/log_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "contract/check_stream.hpp"
#include "dedup/postgres_store.hpp"
#include "dedup/remote_store.hpp"
#include "engine/count.hpp"
#include "record/try.hpp"

namespace dedup {

LogStore::~LogStore() {
    (void)close();
}

void LogStore::operator delete(LogStore* store, std::destroying_delete_t) {
    delete_unless_inherited(store, store->context_.mark);
}

// Before a read: a read-only store takes up what its writer has done.
// Errors: closed, in a forked child; and those of Follower::follow.
Result<void> LogStore::follow_writer() {
    if (context_.mark.inherited()) {
        return context_.check_process();
    }
    return follower_ ? follower_->follow() : Result<void>();
}

std::vector<Result<std::uint64_t>> LogStore::append(std::span<const Append> batch, Batch mode) {
    ::pthread_testcancel();  // nothing has been done yet
    const NoCancel no_cancel;
    Refused refused;
    auto results = engine_ ? engine_->appender.append(batch, mode, refused)
                           : std::vector<Result<std::uint64_t>>(
                                 batch.size(), std::unexpected(context_.check_writable().error()));
    // From a sweep's callback, that sweep is in the way of another one.
    if (!refused.items.empty() && context_.options.capacity.evict_oldest &&
        !planner_.mutex().is_mine()) {
        try {
            make_room_and_append(engine_->appender, engine_->sweep, batch, mode, std::move(refused),
                                 results);
        } catch (const std::bad_alloc&) {
            // What has not been answered since has its first answer, that there is no room.
        }
    }
    context_.counters.count_failed(results);
    return results;
}

std::vector<Result<std::optional<Record>>> LogStore::heads(std::span<const StreamKey> streams) {
    if (const auto followed = follow_writer(); !followed) {
        return std::vector<Result<std::optional<Record>>>(streams.size(),
                                                          std::unexpected(followed.error()));
    }
    return reader_.heads(streams);
}

Result<std::optional<Record>> LogStore::head(StreamKey stream) {
    DEDUP_TRY(follow_writer());
    return reader_.head(stream);
}

Result<std::vector<Version>> LogStore::history(StreamKey stream, const HistoryLimits& limits) {
    DEDUP_TRY(check_stream(stream));
    const NoCancel no_cancel;
    DEDUP_TRY(follow_writer());
    return reader_.history(stream, limits);
}

Result<ScanPage> LogStore::scan(const ScanOptions& options) {
    const NoCancel no_cancel;
    DEDUP_TRY(follow_writer());
    return dedup::scan(reader_, options, OnDamage::stop);
}

Result<SweepReport> LogStore::sweep(const SweepOptions& options) {
    DEDUP_TRY(context_.check_process());
    ::pthread_testcancel();
    const NoCancel no_cancel;
    if (planner_.mutex().is_mine()) {
        return std::unexpected(context_.called_back_error("sweep()"));
    }
    if (options.dry_run) {
        DEDUP_TRY(follow_writer());
        return planner_.dry_run(options, engine_ ? engine_->writer.segment_bytes() : 0);
    }
    return engine_ ? engine_->sweep.sweep(options)
                   : std::unexpected(context_.check_writable().error());
}

Result<std::vector<SweepReport>> LogStore::sweep_history() {
    DEDUP_TRY(context_.check_process());
    const NoCancel no_cancel;
    return DEDUP_TRY(catalog_.open_one())->reports();
}

Result<StoreStats> LogStore::stats() {
    const NoCancel no_cancel;
    DEDUP_TRY(follow_writer());
    const Now now = DEDUP_TRY(reader_.now());
    StoreStats stats;
    for (const char byte : context_.store_id) {
        stats.store_id += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    }
    std::uint64_t next_sequence = 1;
    const auto add = [&](const SegmentRow& row) {
        stats.records += row.records();
        stats.log_bytes += row.bytes;
        next_sequence = std::max(next_sequence, row.next_sequence);
    };
    for (const SealedSegment& sealed : now.view->sealed->segments()) {
        add(sealed.row);
        ++stats.segments_sealed;
    }
    stats.memory_bytes = now.view->sealed->filter_bytes();
    for (const auto& part : now.unsealed.parts) {
        add(part.row);
        ++stats.segments_unsealed;
        stats.tail_bytes += part.row.bytes;
        stats.memory_bytes += part.memory_bytes;
    }
    const StateCounts streams = DEDUP_TRY(live_streams(reader_, now));
    const SweepState sweeps = DEDUP_TRY(DEDUP_TRY(catalog_.open_one())->sweep_state());
    stats.in_flight = streams.in_flight;
    stats.completed = streams.completed;
    stats.released = streams.released;
    stats.evicted = sweeps.evicted;
    stats.last_sweep_ms = sweeps.last_sweep_ms;
    if (engine_) {
        stats.background_error = engine_->sealer.error();
        stats.sweep_error = engine_->sweep.error();
        stats.last_sweep_ms = std::max(stats.last_sweep_ms, engine_->sweep.last_ms());
    }
    if (context_.failure.failed()) {
        stats.write_error = context_.failure.reason();
    }
    std::tie(stats.damaged, stats.damage) = context_.damage.places();
    stats.last_sequence = next_sequence - 1;
    stats.time_high_ms = time_.saw_time(0);
    stats.clock_ms = time_.clock_ms();
    stats.clock = log_clock_.as_seen();
    stats.withheld =
        log_clock_.why_withheld(*now.view, {}, std::max(stats.time_high_ms, stats.clock_ms));
    stats.catalog_bytes = now.view->sealed->used_bytes();
    stats.torn_bytes_dropped = recovered_.torn_bytes_dropped;
    stats.catalog_rebuilt = recovered_.catalog_rebuilt;
    return stats;
}

Result<void> LogStore::flush() {
    ::pthread_testcancel();
    const NoCancel no_cancel;
    if (auto writable = context_.check_writable(); !writable) {
        return writable.error().code == Code::read_only ? Result<void>() : writable;
    }
    return engine_->writer.flush();
}

Result<void> LogStore::close() {
    DEDUP_TRY(context_.check_process());
    const NoCancel no_cancel;
    if (planner_.mutex().is_mine()) {
        return std::unexpected(context_.called_back_error("close()"));
    }
    std::call_once(closed_once_, [this] { close_result_ = close_once(); });
    return context_.failure.answered([this] { return close_result_; });
}

Result<void> LogStore::close_once() {
    Result<void> done;
    if (engine_) {
        done = close_engine();
    } else {
        context_.closed = true;
        if (follower_) {
            follower_->close();
        }
    }
    // Nobody who plans a sweep meets half of a store.
    const OwnedLock sweeps(planner_.mutex());
    ShownView::Access(shown_).publish(nullptr);
    catalog_.set(nullptr);
    if (engine_) {
        engine_->lock.reset();
    }
    return done;
}

Result<void> LogStore::close_engine() {
    // Whoever has the turn may be waiting for the sealer.
    const Turn turn = engine_->queue.close([&] { engine_->sealer.wake_all(); });
    {
        // A sweep ends at its next step: it waits for no turn any more, as the queue refuses it.
        const OwnedLock sweeps(planner_.mutex());
    }
    engine_->writer.stop_flusher();
    (void)context_.failure.answered([&] { return engine_->writer.shorten_tail(turn); });
    engine_->sealer.stop();
    auto done = context_.failure.answered([&] { return engine_->writer.finish(turn); });
    engine_->writer.close_file(turn);
    return done;
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
    if (is_remote_url(path.native())) {
        return open_remote(path.native(), {.read_only = options.read_only});
    }
    return LogStore::open(path, options);
}

}  // namespace dedup
