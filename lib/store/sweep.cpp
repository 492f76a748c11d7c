// Sweeping: a horizon is set, which removes all expired streams at once; what it has removed is
// counted; and then their space is given back.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <queue>
#include <thread>
#include <tuple>

#include "store/finally.hpp"
#include "store/reclaim.hpp"

namespace dedup {
namespace {

// Beside appends, a sweep rests so many times as long as it has made them wait: for moves, of which
// each holds up one group, and for a file's removal, which may hold up a flush for tens of ms.
constexpr std::uint64_t kRestShare = 3;
constexpr std::uint64_t kRemovalRests = 4;
constexpr std::uint64_t kRestMaxUs = 250'000;  // nobody waits longer for a sweep to stop
constexpr std::chrono::microseconds kReadersPoll{50};
// The share of bytes_max that each further round of making room frees beyond what is wanted.
constexpr std::uint64_t kMoreRoomShare = 16;
// Of a log without records: a header, and the manifests of a sweep's steps, and for each segment.
constexpr std::uint64_t kEmptyLogBytes = 1024;
constexpr std::uint64_t kManifestBytesEach = 64;

}  // namespace

Result<SweepReport> LogStore::sweep(const SweepOptions& options) {
    if (auto own = check_process(); !own) {
        return std::unexpected(own.error());
    }
    ::pthread_testcancel();
    const NoCancel no_cancel;
    if (sweep_mutex_.is_mine()) {
        return std::unexpected(called_back_error("sweep()"));
    }
    const std::lock_guard one_at_a_time(sweep_mutex_);
    return answered([&] {
        auto report = sweep_locked(options, nullptr);
        if (!options.dry_run && !mark_.inherited()) {  // see Reclaim::show_progress
            std::string error = report ? std::string() : report.error().message;
            const std::lock_guard lock(view_mutex_);
            sweep_error_ = std::move(error);
        }
        return report;
    });
}

Result<std::vector<SweepReport>> LogStore::sweep_history() {
    if (auto own = check_process(); !own) {
        return std::unexpected(own.error());
    }
    const NoCancel no_cancel;
    std::shared_ptr<Catalog> catalog;
    {
        const std::lock_guard lock(view_mutex_);
        catalog = catalog_;
    }
    return catalog ? catalog->reports()
                   : Result<std::vector<SweepReport>>(std::unexpected(closed_error()));
}

Result<SweepReport> LogStore::sweep_locked(const SweepOptions& options, MakeRoom* room) {
    const auto start = std::chrono::steady_clock::now();
    if (auto ready = ready_to_write(); !options.dry_run && !ready) {
        return std::unexpected(ready.error());
    }
    SweepReport report;
    report.dry_run = options.dry_run;
    // The one reading of the time: what it lets the sweep do is decided by it, too.
    report.now_ms = options.now_ms ? std::max(saw_time(0), *options.now_ms) : now_ms();
    if (!options.dry_run) {
        report.now_ms = watch_time(report.now_ms);
        if (options.trust_clock) {
            trust_clock();
        }
    }
    auto done = answered([&] {
        return options.dry_run ? plan_sweep(options, report) : run_sweep(options, room, report);
    });
    if (!done) {
        counters_.sweeps_failed.add(options.dry_run ? 0 : 1);
        return std::unexpected(done.error());
    }
    report.duration_us = microseconds_since(start);
    if (!options.dry_run) {
        counters_.count_sweep(report);
    }
    return report;
}

Result<void> LogStore::plan_sweep(const SweepOptions& options, SweepReport& report) {
    std::shared_ptr<Catalog> catalog;
    {
        const std::lock_guard lock(view_mutex_);
        catalog = catalog_;
    }
    if (!catalog) {
        return std::unexpected(closed_error());
    }
    const auto now = tail_now();
    if (!now) {
        return std::unexpected(now.error());
    }
    const auto& [view, tail] = *now;
    const auto state = catalog->sweep_state();
    report.withheld = why_withheld(*view, options, report.now_ms);
    auto to = next_horizon(*view, report, {});
    if (!state || !to) {
        return std::unexpected(state ? to.error() : state.error());
    }
    if (*to != view->horizon) {
        to->sequence = tail.sequence;
    }
    report.bytes_before = log_bytes(*view);
    report.bytes_after = report.bytes_before;
    Count count{*view, tail, state->counted, *to, tail.sequence, false, report};
    count.unanswered.claims_max = options.unanswered_max;
    if (auto counted = this->count(count); !counted) {
        return counted;
    }
    Reclaim(*this, options, report, 0).plan(count);
    std::tie(report.damaged, report.damage) = damage();
    return {};
}

Result<void> LogStore::run_sweep(const SweepOptions& options, MakeRoom* room, SweepReport& report) {
    if (auto dropped = drop_given_up(); !dropped) {
        return dropped;
    }
    // A count that has failed is finished first, in a report of its own.
    SweepReport earlier;
    earlier.now_ms = report.now_ms;
    Result<StateCounts> advanced;
    if (!has_counted_all()) {
        advanced = answered([&] { return advance(options, nullptr, earlier); });
    }
    const std::uint64_t reports_before = sweep_state_.reports;
    if (advanced) {
        advanced = answered([&] { return advance(options, room, report); });
    }
    {
        // While something has not been counted, nothing can be sealed.
        const std::lock_guard lock(view_mutex_);
        if (!advanced && counting_) {
            background_error_ = kOutOfMemory;  // should there be none for what follows
            room_.notify_all();
            background_error_ =
                fmt::format("a sweep could not count what it has removed ({}); sweep again",
                            advanced.error().message);
        }
        room_.notify_all();
    }
    if (!advanced) {
        return std::unexpected(advanced.error());
    }
    const auto bytes_now = [&]() -> std::uint64_t {
        const auto view = this->view();
        return view ? log_bytes(**view) : 0;
    };
    report.bytes_before = bytes_now();
    const std::uint64_t bytes_goal = room == nullptr ? 0 : room->log_bytes;
    if (auto reclaimed = Reclaim(*this, options, report, bytes_goal).run(*advanced); !reclaimed) {
        return reclaimed;
    }
    report.bytes_after = bytes_now();
    std::tie(report.damaged, report.damage) = damage();
    last_sweep_ms_ = report.now_ms;
    SweepState state = sweep_state_;
    state.last_sweep_ms = report.now_ms;
    const bool has_begun = state.reports != reports_before;
    const bool worth_keeping = has_begun || report.records_dropped + report.records_moved != 0;
    state.reports += worth_keeping && !has_begun;
    Result<void> kept;
    if (worth_keeping) {
        kept = with_reserve(
            [&] { return write_catalog([&] { return catalog_->count({}, state, &report); }); });
        if (kept) {
            sweep_state_ = state;
        }
    }
    keep_reserve();
    if (room != nullptr && kept) {
        auto found = usage();
        if (!found) {
            return std::unexpected(found.error());
        }
        room->usage = *found;
    }
    return kept;
}

bool LogStore::has_counted_all() const {
    const std::lock_guard lock(view_mutex_);
    return !view_ || sweep_state_.counted == view_->horizon;
}

// Removes what has expired, and counts it. While that is counted, no segment is sealed. Gives the
// live streams of the newest segment.
Result<StateCounts> LogStore::advance(const SweepOptions& options, const MakeRoom* room,
                                      SweepReport& report) {
    SweepState state = sweep_state_;
    StateCounts newest_live;
    std::map<std::uint64_t, Counted> counted;
    {
        auto now = tail_now();
        if (!now) {
            return std::unexpected(now.error());
        }
        // A count that has failed is finished before the horizon advances again.
        const bool resumed = state.counted != now->view->horizon;
        if (!resumed) {
            report.withheld = why_withheld(*now->view, options, report.now_ms);
            const auto to =
                next_horizon(*now->view, report, room == nullptr ? Room() : room->evict);
            if (!to) {
                return std::unexpected(to.error());
            }
            if (*to != now->view->horizon) {
                now->view.reset();
                auto set = with_reserve([&] { return set_horizon(*to, *now, report); });
                if (!set) {
                    return std::unexpected(set.error());
                }
            }
        }
        const Horizon to = now->view->horizon;
        Count count{
            *now->view, now->tail, state.counted, to, resumed ? to.sequence : now->tail.sequence,
            false,      report};
        count.unanswered.claims_max = options.unanswered_max;
        count.tells_next = room == nullptr;  // an append that finds no room asks for nothing else
        if (auto done = this->count(count); !done) {
            return std::unexpected(done.error());
        }
        counted = std::move(count.counted);
        newest_live = count.newest_live;
        state.counted = to;
        const std::lock_guard lock(view_mutex_);
        state.steps = view_->unsealed.front()->manifest.steps;
    }
    state.evicted += report.evicted;
    // The report is kept with the counts, for whatever may come before the sweep's end.
    std::tie(report.damaged, report.damage) = damage();
    SweepReport begun = report;
    begun.interrupted = true;
    begun.finished = false;
    const bool removes = report.removed.total() != 0;
    state.reports += removes;
    if (state != sweep_state_ || !counted.empty()) {
        auto written = with_reserve([&] {
            return write_catalog(
                [&] { return catalog_->count(counted, state, removes ? &begun : nullptr); });
        });
        if (!written) {
            return std::unexpected(written.error());
        }
    }
    sweep_state_ = state;
    streams_ -= report.removed.total();
    {
        const std::lock_guard lock(view_mutex_);
        if (counting_) {
            background_error_.clear();
        }
        counting_ = false;
    }
    sealer_wakes_.notify_one();
    return newest_live;
}

// Takes out of the catalog what is out of the log, and removes the files.
Result<void> LogStore::drop_given_up() {
    if (given_up_.empty()) {
        return {};
    }
    SweepState state = sweep_state_;
    {
        const std::lock_guard lock(view_mutex_);
        if (!view_) {
            return std::unexpected(closed_error());
        }
        state.steps = view_->unsealed.front()->manifest.steps;
    }
    std::vector<std::shared_ptr<const Segment>> segments;
    const auto drop = [&]() -> Result<void> {
        const auto now = view();
        if (!now) {
            return std::unexpected(now.error());
        }
        segments.clear();
        for (const std::uint64_t id : given_up_) {
            const SealedSegment* const sealed = (*now)->sealed->find(id);
            segments.push_back(sealed == nullptr ? nullptr : sealed->segment);
        }
        return catalog_->drop(given_up_, state);
    };
    if (auto dropped = with_reserve([&] { return write_catalog(drop); }); !dropped) {
        return dropped;
    }
    sweep_state_ = state;
    Result<void> done;
    const auto until = std::chrono::steady_clock::now() + internals_.readers_wait;
    for (std::size_t i = 0; i < given_up_.size(); ++i) {
        wait_for_readers(segments[i], until);
        const auto start = std::chrono::steady_clock::now();
        auto removed = env_.remove(log_path_ / segment_file_name(given_up_[i]));
        if (removed) {
            removed = remove_if_there(env_, log_path_ / index_file_name(given_up_[i]));
        }
        if (!removed && done) {
            done = removed;
        }
        segments[i].reset();
        // Flushes wait for the file system to give a large file's blocks back.
        rest_beside_appends(microseconds_since(start) * kRemovalRests);
    }
    given_up_.clear();
    return done;
}

// Until nobody else has `segment` open, or until that has taken too long: the blocks of a removed
// file are given back by whoever closes it last, and an append must not have to wait for that.
void LogStore::wait_for_readers(const std::shared_ptr<const Segment>& segment,
                                std::chrono::steady_clock::time_point until) const {
    while (segment.use_count() > 1 && !closed_ && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(kReadersPoll);
    }
}

// After something that has made appends wait for so long, lets them go on if there are any.
void LogStore::rest_beside_appends(std::uint64_t pause_us) {
    {
        const std::lock_guard lock(queue_mutex_);
        if (closed_ || (!committing_ && next_group_ == nullptr)) {
            return;
        }
    }
    std::this_thread::sleep_for(
        std::chrono::microseconds(std::min(pause_us * kRestShare, kRestMaxUs)));
}

std::uint64_t LogStore::log_bytes(const View& view) const {
    std::uint64_t bytes = 0;
    for (const SealedSegment& sealed : view.sealed->segments()) {
        bytes += sealed.row.bytes;
    }
    const std::lock_guard lock(view_mutex_);
    for (const auto& unsealed : view.unsealed) {
        bytes += unsealed->row.bytes;
    }
    return bytes;
}

// The horizon as of the report's time, unless that is withheld, and with so many completed streams
// more behind it; the view's own if that would remove nothing. Nothing else removes anything.
Result<Horizon> LogStore::next_horizon(const View& view, const SweepReport& report,
                                       const Room& evict) {
    Horizon next = view.horizon;
    if (report.withheld && (evict == Room() || report.withheld->by_reset)) {
        return next;
    }
    if (!report.withheld) {
        next.expired_before_ms = std::max(next.expired_before_ms, report.now_ms - grace().count());
    }
    {
        const std::lock_guard lock(view_mutex_);
        next.sequence = std::max(next.sequence, applied_sequence_);
    }
    const auto expires = removes_more(view, next);
    if (!expires) {
        return std::unexpected(expires.error());
    }
    if (evict != Room()) {
        const auto evicted_before = oldest_completed(view, next, evict);
        if (!evicted_before) {
            return std::unexpected(evicted_before.error());
        }
        next.evicted_before = std::max(next.evicted_before, *evicted_before);
    }
    return *expires || next.evicted_before != view.horizon.evicted_before ? next : view.horizon;
}

// One more than the sequence of the newest of the oldest completions that `horizon` leaves, so many
// keys and bytes of them; 0 if there is none.
Result<std::uint64_t> LogStore::oldest_completed(const View& view, Horizon horizon,
                                                 const Room& evict) const {
    horizon.sequence = UINT64_MAX;
    std::priority_queue<std::pair<std::uint64_t, std::uint64_t>> oldest;  // sequences, and bytes
    Room chosen;
    const auto enough = [&](const Room& room) {
        return room.keys >= evict.keys && room.bytes >= evict.bytes;
    };
    const auto offer = [&](const Segment& segment, const IndexEntry& entry) -> Result<void> {
        if (entry.state() != State::completed || horizon.surely_removes(entry) ||
            (enough(chosen) && entry.sequence > oldest.top().first)) {
            return {};
        }
        FrameBuffer buffer;
        Located at;
        if (const auto read = read_entry(segment, entry, at, buffer); !read || !*read) {
            return read ? Result<void>() : std::unexpected(read.error());
        }
        if (horizon.removes(at.record.state(), entry.sequence, at.record.expires_at_ms)) {
            return {};
        }
        const auto head = was_head(view, at, UINT64_MAX);
        if (!head) {
            return std::unexpected(head.error());
        }
        if (*head) {
            const std::uint64_t bytes = kFrameHeaderBytes + content_bytes(at.record);
            oldest.emplace(entry.sequence, bytes);
            chosen += {1, bytes};
            while (enough({chosen.keys - 1, chosen.bytes - oldest.top().second})) {
                chosen = {chosen.keys - 1, chosen.bytes - oldest.top().second};
                oldest.pop();
            }
        }
        return {};
    };
    for (const Entries& entries : all_entries(view)) {
        auto visited = visit_entries(
            entries, [&](const IndexEntry& entry) { return offer(*entries.segment, entry); });
        if (!visited) {
            return std::unexpected(visited.error());
        }
    }
    return oldest.empty() ? 0 : oldest.top().first + 1;
}

// Makes `to` the horizon, durably, from the last applied sequence on. `now` becomes the view and
// the tail's numbers at that moment.
Result<void> LogStore::set_horizon(Horizon to, Now& now, SweepReport& report) {
    const Finally stop_waiting([this] {
        {
            const std::lock_guard lock(view_mutex_);
            horizon_waits_ = false;
        }
        sealer_wakes_.notify_one();
    });
    Result<void> done;
    bool set = false;
    while (done && !set) {
        done = lead([&]() -> Result<void> {
            if (auto ready = ready_to_write(); !ready) {
                return ready;
            }
            {
                // Appends may wait for the sealer, which waits for the count.
                const std::lock_guard lock(view_mutex_);
                horizon_waits_ = sealing_ || view_->unsealed.size() >= kUnsealedMax;
                if (horizon_waits_) {
                    return {};
                }
                counting_ = true;
                to.sequence = applied_sequence_;
            }
            set = true;
            bool in_force = false;
            const Finally undo([&] {
                if (!in_force) {
                    const std::lock_guard lock(view_mutex_);
                    counting_ = false;  // there is nothing to count
                }
            });
            const auto start = std::chrono::steady_clock::now();
            Manifest manifest = manifest_;
            manifest.horizon = to;
            manifest.given_up = 0;
            auto written = write_manifest(std::move(manifest));
            report.longest_pause_us = std::max(report.longest_pause_us, microseconds_since(start));
            if (!written) {
                return written;
            }
            in_force = true;
            const Unfinished unfinished(*this);
            const std::lock_guard lock(view_mutex_);
            auto after = std::make_shared<View>(*view_);
            after->horizon = to;
            set_view(std::move(after));
            now = {view_, tail_numbers(*view_)};
            return {};
        });
        if (set || !done) {
            break;
        }
        std::unique_lock lock(view_mutex_);
        const auto has_room = [&] { return view_->unsealed.size() < kUnsealedMax; };
        room_.wait(lock, [&] { return closed_ || !sealing_; });
        if (closed_ || has_room()) {
            continue;
        }
        seal_now();
        room_.wait(lock, [&] {
            return closed_ || (!sealing_ && (has_room() || !background_error_.empty()));
        });
        if (!closed_ && !has_room()) {
            done = std::unexpected(
                Error{Code::failed, "segments cannot be sealed: " + background_error_});
        }
    }
    return done;
}

// Finishes what the log says and the catalog does not know: after a crash within a sweep, or when
// the catalog has been rebuilt. While the store is being opened, with no other thread.
Result<void> LogStore::finish_counting() {
    SweepState state = sweep_state_;
    state.steps = manifest_.steps;
    SweepReport report;
    report.interrupted = true;
    report.now_ms = manifest_.time_high_ms;
    std::map<std::uint64_t, Counted> counted;
    {
        const ViewPtr view = view_;
        TailNumbers tail = tail_numbers(*view);
        if (catalog_rebuilt_) {
            state = {};
            state.steps = manifest_.steps;
            tail.sequence = UINT64_MAX;
        }
        const std::uint64_t as_of = catalog_rebuilt_ ? UINT64_MAX : view->horizon.sequence;
        Count count{*view, tail, state.counted, view->horizon, as_of, catalog_rebuilt_, report};
        count.unanswered.claims_max = SweepOptions().unanswered_max;
        if (auto done = this->count(count); !done) {
            return done;
        }
        counted = std::move(count.counted);
        state.counted = view->horizon;
    }
    const bool reports = !catalog_rebuilt_ && report.removed.total() != 0;
    if (reports) {
        state.evicted += report.evicted;
        state.last_sweep_ms = report.now_ms;
        ++state.reports;
    }
    sweep_state_ = state;
    return with_reserve([&] {
        return write_catalog(
            [&] { return catalog_->count(counted, state, reports ? &report : nullptr); });
    });
}

// Does `work`, and once more without the reserve if the disk is full.
Result<void> LogStore::with_reserve(const std::function<Result<void>()>& work) {
    auto done = work();
    if (!done && done.error().code == Code::out_of_space && env_.remove(path_ / kReserveName)) {
        done = work();
    }
    return done;
}

// Keeps some room on the disk for sweeping, so that a full one can be cleared. Does without if
// there is none.
void LogStore::keep_reserve() const {
    const Path path = path_ / kReserveName;
    const auto type = env_.type(path);
    if (!type || *type != PathType::absent) {
        return;
    }
    auto file = env_.open(path, OpenMode::create);
    if (file && !(*file)->reserve(kReserveBytes)) {
        file->reset();
        (void)env_.remove(path);
    }
}

// What the store holds, once a sweep has given back what it could.
Result<Usage> LogStore::usage() {
    const auto now = tail_now();
    if (!now) {
        return std::unexpected(now.error());
    }
    const auto& [view, tail] = *now;
    Usage usage;
    const auto add = [&](const SegmentRow& row, const StateCounts& live) {
        const StateCounts completed{.completed = live.completed};
        usage.live += {live.total(), row.bytes_of(live) + kManifestBytesEach};
        usage.evictable += {live.completed, row.bytes_of(completed)};
    };
    for (const SealedSegment& sealed : view->sealed->segments()) {
        StateCounts live = sealed.row.live();
        live -= total(tally_of(tail.superseded, sealed.row.id));
        add(sealed.row, live);
    }
    for (std::size_t part = 0; part < tail.parts.size(); ++part) {
        const auto live = live_in_tail(*view, tail, part, view->horizon, {});
        if (!live) {
            return std::unexpected(live.error());
        }
        add(tail.parts[part].row, total(*live));
    }
    usage.live.bytes += kEmptyLogBytes;
    usage.held = {usage.live.keys, log_bytes(*view)};
    return usage;
}

// Makes room for as many of the appends that want it as possible, beginning with the first: sweeps,
// and evicts if that does not help. Gives for how much it has. Each round makes more.
// Errors: out_of_space: there never is room for the first, and nothing has been evicted; or those
// of sweeps.
Result<Room> LogStore::make_room(std::span<const Room> wanted, std::uint64_t round) {
    const std::lock_guard one_at_a_time(sweep_mutex_);
    const Capacity& capacity = options_.capacity;
    const auto is_room = [&](const Room& room) {
        return lead([&] { return check_room(0, room); }).has_value();
    };
    if (is_room(wanted.front())) {
        return wanted.front();  // another append has made it
    }
    MakeRoom room;
    if (const auto swept = sweep_locked({}, &room); !swept) {
        return std::unexpected(swept.error());
    }
    if (is_room(wanted.front())) {
        return wanted.front();
    }
    auto plan = plan_eviction(name(), capacity, room.usage, wanted.front());
    if (!plan) {
        return std::unexpected(plan.error());
    }
    Room made = wanted.front();
    for (const Room& more : wanted.subspan(1)) {
        const Room all{made.keys + more.keys, made.bytes + more.bytes};
        const auto for_all = plan_eviction(name(), capacity, room.usage, all);
        if (!for_all) {
            break;
        }
        plan = for_all;
        made = all;
    }
    const std::uint64_t spare = capacity.bytes_max / kMoreRoomShare;
    if (const auto ample = plan_eviction(name(), capacity, room.usage,
                                         {made.keys + round, made.bytes + round * spare})) {
        plan = ample;
    }
    room.evict = *plan;
    room.log_bytes = capacity.bytes_max - std::min(capacity.bytes_max, made.bytes + spare / 2);
    const auto evicted = sweep_locked({}, &room);
    return evicted ? Result<Room>(made) : std::unexpected(evicted.error());
}

}  // namespace dedup
