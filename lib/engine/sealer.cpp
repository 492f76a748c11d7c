#include "engine/sealer.hpp"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "engine/count.hpp"
#include "env/assert.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

constexpr std::chrono::seconds kRetry{1};

}  // namespace

void Sealer::start(const View& view) {
    {
        const MutexLock lock(mutex_);
        full_.assign(view.unsealed.rbegin(), view.unsealed.rend() - 1);
    }
    thread_ = start_thread("dedup-sealer", [this] { run(); });
}

void Sealer::stop() {
    {
        const MutexLock lock(mutex_);
        stops_ = true;
    }
    wake_all();
    if (thread_.joinable()) {
        thread_.join();
    }
}

void Sealer::wake_all() {
    // Under the lock: or who has just looked, and not begun to wait, would not be woken.
    const MutexLock lock(mutex_);
    wakes_.notify_all();
    room_.notify_all();
}

void Sealer::add(std::shared_ptr<Unsealed> full) {
    const MutexLock lock(mutex_);
    DEDUP_ASSERT(full_.empty() || full_.back()->row.id < full->row.id);
    full_.push_back(std::move(full));
    wakes_.notify_one();
}

Result<void> Sealer::wait_for_room() {
    MutexLock lock(mutex_);
    while (is_crowded() && error_.empty() && !context_.closed) {
        room_.wait(lock);
    }
    if (!is_crowded()) {
        return {};
    }
    if (context_.closed) {
        return std::unexpected(context_.closed_error());
    }
    return std::unexpected(
        Error{Code::out_of_space, fmt::format("{} segments wait to be sealed, and that fails: {}",
                                              full_.size() + 1, error_)});
}

void Sealer::seal_until(std::uint64_t segment_id) {
    MutexLock lock(mutex_);
    while (!context_.closed && sealing_) {
        room_.wait(lock);
    }
    try_at_once();
    while (!context_.closed && error_.empty() && !full_.empty() &&
           full_.front()->row.id < segment_id) {
        room_.wait(lock);
    }
}

std::string Sealer::error() const {
    const MutexLock lock(mutex_);
    return error_;
}

bool Sealer::begin_count() {
    const MutexLock lock(mutex_);
    count_waits_ = sealing_ || is_crowded();
    counting_ = counting_ || !count_waits_;
    return !count_waits_;
}

Result<void> Sealer::wait_to_count() {
    MutexLock lock(mutex_);
    while (!context_.closed && sealing_) {
        room_.wait(lock);
    }
    if (context_.closed || !is_crowded()) {
        return {};
    }
    try_at_once();
    while (!context_.closed && (sealing_ || (is_crowded() && error_.empty()))) {
        room_.wait(lock);
    }
    if (!context_.closed && is_crowded()) {
        return std::unexpected(Error{Code::failed, "segments cannot be sealed: " + error_});
    }
    return {};
}

void Sealer::stop_waiting_to_count() {
    const MutexLock lock(mutex_);
    count_waits_ = false;
    wakes_.notify_one();
}

void Sealer::end_count() {
    const MutexLock lock(mutex_);
    if (counting_) {
        error_.clear();
    }
    counting_ = false;
    wakes_.notify_one();
}

void Sealer::fail_count(std::string_view why) {
    const MutexLock lock(mutex_);
    if (counting_) {
        error_ = kOutOfMemory;  // should there be none for what follows
        room_.notify_all();
        error_ = fmt::format("a sweep could not count what it has removed ({}); sweep again", why);
    }
    room_.notify_all();
}

bool Sealer::has_work() const {
    return !full_.empty() && !counting_ && (!count_waits_ || is_crowded());
}

// While nothing is being sealed. If sealing has failed, it is not tried a second later but at once;
// then error_ says what came of it.
void Sealer::try_at_once() {
    error_.clear();
    wakes_.notify_one();
}

// At the end, too, what is full is sealed: then the catalog knows of each segment but the newest,
// and a newest one that somebody removes is missed.
void Sealer::run() {
    MutexLock lock(mutex_);
    while (true) {
        if (!has_work()) {
            if (stops_) {
                return;
            }
            wakes_.wait(lock);
            continue;
        }
        std::shared_ptr<Unsealed> oldest = full_.front();
        sealing_ = true;
        lock.unlock();
        Result<void> sealed = context_.failure.answered([&] { return seal(*oldest); });
        lock.lock();
        const bool failed = !sealed;
        if (!failed) {
            full_.pop_front();
        }
        sealing_ = false;
        error_ = failed ? std::move(sealed).error().message : std::string();
        room_.notify_all();
        if (failed && stops_) {
            return;
        }
        if (!failed) {
            lock.unlock();
            oldest.reset();  // and with it its delta, which nobody should have to wait for
            lock.lock();
        } else {
            wakes_.wait_for(lock, kRetry);
        }
    }
}

// What the catalog will know of a segment's streams.
Result<Census> Sealer::census_of(const Unsealed& oldest) const {
    const Now now = DEDUP_TRY(reader_.now());
    Census census;
    census.streams = oldest.streams;
    if (now.view->horizon == Horizon()) {
        // Nothing was ever swept; or recovery counts at its end what its entries tell.
        census.removed = tally_of(oldest.reclaimed, oldest.row.id);
        return census;
    }
    census.removed = tally_of(now.unsealed.reclaimed, oldest.row.id);
    const auto remove = [&](const Located& at) -> Result<void> {
        ++counts_of(census.removed, at.record.ns)[at.record.state()];
        return {};
    };
    DEDUP_TRY(reader_.visit_entries(oldest, oldest.delta.size(), [&](const IndexEntry& entry) {
        return find_removed(reader_, *now.view, *oldest.segment, entry, now.view->horizon,
                            now.unsealed.sequence, remove);
    }));
    return census;
}

Result<void> Sealer::seal(const Unsealed& oldest) {
    const std::vector<IndexEntry> entries = oldest.delta.sorted();
    const Census census = DEDUP_TRY(census_of(oldest));
    SegmentRow row = oldest.row;
    row.entries = entries.size();
    AddedSegment added{oldest.segment, nullptr};
    const auto write = [&](Catalog& catalog) -> Result<void> {
        const ViewPtr view = DEDUP_TRY(reader_.view());
        added.index = DEDUP_TRY(write_index(context_.env, context_.log_path, catalog.meta(), row,
                                            entries, view->sealed->segments()));
        return catalog.add(row, census, oldest.superseded);
    };
    return catalog_.write(write, added);
}

}  // namespace dedup
