#include "sweep/log_sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <tuple>
#include <utility>

#include "env/finally.hpp"
#include "metrics/counter.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// Of a log without records: a header, and the manifests of a sweep's steps, and for each segment.
constexpr std::uint64_t kEmptyLogBytes = 1024;
constexpr std::uint64_t kManifestBytesEach = 64;

}  // namespace

std::string LogSweep::error() const {
    const MutexLock lock(error_mutex_);
    return error_;
}

Result<SweepReport> LogSweep::sweep(const SweepOptions& options) {
    const OwnedLock one_at_a_time(planner_.mutex());
    return context_.failure.answered(
        [&]() DEDUP_ANNOTATION(no_thread_safety_analysis) -> Result<SweepReport> {
            auto report = run(options, nullptr);
            // In a child that was forked in the sweep's progress, no further lock is taken: threads
            // that do not exist here may hold it.
            if (!context_.mark.inherited()) {
                std::string error = report ? std::string() : report.error().message;
                const MutexLock lock(error_mutex_);
                error_ = std::move(error);
            }
            return report;
        });
}

Result<SweepReport> LogSweep::run(const SweepOptions& options, MakeRoom* room) {
    const auto start = std::chrono::steady_clock::now();
    DEDUP_TRY(context_.check_writable());
    StoreClock& clock = context_.clock;
    SweepReport report;
    // The one reading of the time: what it lets the sweep do is decided by it, too.
    report.now_ms = clock.watch_time(options.now_ms ? std::max(clock.saw_time(0), *options.now_ms)
                                                    : clock.now_ms());
    if (options.trust_clock) {
        clock.trust_clock();
    }
    auto done = context_.failure.answered([&]() DEDUP_ANNOTATION(no_thread_safety_analysis) {
        return run_steps(options, room, report, start);
    });
    if (!done) {
        context_.counters.sweeps_failed.add(1);
        return std::unexpected(std::move(done).error());
    }
    report.duration_us = microseconds_since(start);
    context_.counters.count_sweep(report);
    return report;
}

Result<void> LogSweep::run_steps(const SweepOptions& options, MakeRoom* room, SweepReport& report,
                                 std::chrono::steady_clock::time_point start) {
    DEDUP_TRY(dropper_.finish(state_));
    const StateCounts newest_live = DEDUP_TRY(remove_and_count(options, room, report));
    report.bytes_before = log_bytes_now();
    DEDUP_TRY(Compactor(context_, reader_, writer_, sealer_, planner_, dropper_, options,
                        room == nullptr ? 0 : room->log_bytes, state_, report)
                  .run(newest_live));
    report.bytes_after = log_bytes_now();
    std::tie(report.damaged, report.damage) = context_.damage.places();
    last_ms_ = report.now_ms;
    report.duration_us = microseconds_since(start);  // for the history; the caller gets it later
    auto kept = keep_report(report);
    keep_reserve(context_);
    DEDUP_TRY(std::move(kept));
    if (room != nullptr) {
        room->usage = DEDUP_TRY(usage());
    }
    return {};
}

bool LogSweep::has_counted_all() const {
    const ViewPtr view = shown_.view();
    return !view || state_.counted == view->horizon;
}

// Gives the live streams of the newest segment.
Result<StateCounts> LogSweep::remove_and_count(const SweepOptions& options, MakeRoom* room,
                                               SweepReport& report) {
    auto advanced = context_.failure.answered(
        [&]() DEDUP_ANNOTATION(no_thread_safety_analysis) -> Result<StateCounts> {
            // A count that has failed is finished first, in a report of its own.
            if (!has_counted_all()) {
                SweepReport earlier;
                earlier.now_ms = report.now_ms;
                (void)DEDUP_TRY(advance(options, nullptr, earlier));
            }
            return advance(options, room, report);
        });
    if (!advanced) {
        sealer_.fail_count(advanced.error().message);
    }
    return advanced;
}

// Removes what has expired, and counts it. While that is counted, no segment is sealed. Gives the
// live streams of the newest segment.
Result<StateCounts> LogSweep::advance(const SweepOptions& options, const MakeRoom* room,
                                      SweepReport& report) {
    SweepState state = state_;
    StateCounts newest_live;
    std::map<std::uint64_t, Counted> counted;
    {
        Now now = DEDUP_TRY(reader_.now());
        // A count that has failed is finished before the horizon advances again.
        const bool resumed = state.counted != now.view->horizon;
        if (!resumed) {
            DEDUP_TRY(advance_horizon(options, room, report, now));
        }
        const Horizon to = now.view->horizon;
        Count count{now,   state.counted, to, resumed ? to.sequence : now.unsealed.sequence,
                    false, report};
        count.unanswered.claims_max = options.unanswered_max;
        count.tells_next = room == nullptr;  // an append that finds no room asks for nothing else
        DEDUP_TRY(run_count(reader_, count));
        counted = std::move(count.counted);
        newest_live = count.newest_live;
        state.counted = to;
    }
    state.steps = reader_.steps();
    state.evicted += report.evicted;
    // The report is kept with the counts, for whatever may come before the sweep's end.
    std::tie(report.damaged, report.damage) = context_.damage.places();
    SweepReport begun = report;
    begun.interrupted = true;
    begun.finished = false;
    const bool removes = report.removed.total() != 0;
    state.reports += removes;
    if (state != state_ || !counted.empty()) {
        DEDUP_TRY(write_counts(counted, state, removes ? &begun : nullptr));
    }
    state_ = state;
    writer_.remove_streams(report.removed.total());
    sealer_.end_count();
    return newest_live;
}

// Sets the horizon where it goes now, if that removes anything. `now` is of that moment then.
Result<void> LogSweep::advance_horizon(const SweepOptions& options, const MakeRoom* room,
                                       SweepReport& report, Now& now) {
    report.withheld = clock_.why_withheld(*now.view, options, report.now_ms);
    const Horizon to =
        DEDUP_TRY(planner_.next_horizon(now, report, room == nullptr ? Room() : room->evict));
    if (to == now.view->horizon) {
        return {};
    }
    now.view.reset();
    return with_reserve(context_, [&] { return set_horizon(to, now, report); });
}

// Makes `to` the horizon, durably, from the last applied sequence on. `now` becomes the view and
// its numbers at that moment.
Result<void> LogSweep::set_horizon(const Horizon& to, Now& now, SweepReport& report) {
    const Finally stop_waiting([this] { sealer_.stop_waiting_to_count(); });
    while (true) {
        bool set = false;
        DEDUP_TRY(writer_.alone([&](const Turn& turn) -> Result<void> {
            DEDUP_TRY(context_.check_writable());
            set = DEDUP_TRY(try_to_set_horizon(turn, to, now, report));
            return {};
        }));
        if (set) {
            return {};
        }
        DEDUP_TRY(sealer_.wait_to_count());
    }
}

// False: appends may wait for the sealer, which would wait for the count.
Result<bool> LogSweep::try_to_set_horizon(const Turn& turn, Horizon to, Now& now,
                                          SweepReport& report) {
    if (!sealer_.begin_count()) {
        return false;
    }
    bool in_force = false;
    const Finally undo([&] {
        if (!in_force) {
            sealer_.end_count();  // there is nothing to count
        }
    });
    const auto start = std::chrono::steady_clock::now();
    to.sequence = ShownView::Access(shown_).applied_sequence();
    Manifest manifest = writer_.manifest(turn);
    manifest.horizon = to;
    manifest.given_up = 0;
    auto written = writer_.write_manifest(turn, std::move(manifest));
    report.longest_pause_us = std::max(report.longest_pause_us, microseconds_since(start));
    if (!written) {
        return std::unexpected(written.error());
    }
    in_force = true;
    const Unfinished unfinished(context_.failure);
    ShownView::Access shown(shown_);
    auto after = std::make_shared<View>(*shown.view());
    after->horizon = to;
    shown.publish(std::move(after));
    now = {shown.view(), shown.numbers()};
    return true;
}

Result<void> LogSweep::write_counts(const std::map<std::uint64_t, Counted>& counted,
                                    const SweepState& state, const SweepReport* report) {
    return with_reserve(context_, [&] {
        return catalog_.write(
            [&](Catalog& catalog) { return catalog.count(counted, state, report); });
    });
}

// Keeps the report, if it tells of anything: in place of the one that advance() has kept of it.
Result<void> LogSweep::keep_report(SweepReport& report) {
    SweepState state = state_;
    state.last_sweep_ms = report.now_ms;
    const bool has_begun = report.removed.total() != 0;
    if (!has_begun && report.records_dropped + report.records_moved == 0) {
        return {};
    }
    state.reports += has_begun ? 0 : 1;
    DEDUP_TRY(write_counts({}, state, &report));
    state_ = state;
    return {};
}

Result<void> LogSweep::begin(const SweepState& state, const Manifest& manifest, bool rebuilt) {
    state_ = state;
    const Horizon horizon = DEDUP_TRY(reader_.view())->horizon;
    if (!rebuilt && state.counted == horizon && state.steps == manifest.steps) {
        return {};
    }
    SweepReport report;
    report.interrupted = true;
    report.now_ms = manifest.time_high_ms;
    SweepState finished = rebuilt ? SweepState() : state;
    finished.steps = manifest.steps;
    std::map<std::uint64_t, Counted> counted;
    {
        Now now = DEDUP_TRY(reader_.now());
        if (rebuilt) {
            now.unsealed.sequence = UINT64_MAX;
        }
        Count count{now,     finished.counted,
                    horizon, rebuilt ? UINT64_MAX : horizon.sequence,
                    rebuilt, report};
        count.unanswered.claims_max = SweepOptions().unanswered_max;
        DEDUP_TRY(run_count(reader_, count));
        counted = std::move(count.counted);
    }
    finished.counted = horizon;
    const bool reports = !rebuilt && report.removed.total() != 0;
    if (reports) {
        finished.evicted += report.evicted;
        finished.last_sweep_ms = report.now_ms;
        ++finished.reports;
    }
    state_ = finished;
    return write_counts(counted, finished, reports ? &report : nullptr);
}

std::uint64_t LogSweep::log_bytes_now() const {
    const ViewPtr view = shown_.view();
    return view ? log_bytes(reader_, *view) : 0;
}

// What the store holds, once a sweep has given back what it could.
Result<Usage> LogSweep::usage() const {
    const Now now = DEDUP_TRY(reader_.now());
    Usage usage;
    const auto add = [&](const SegmentRow& row, const StateCounts& live) {
        const StateCounts completed{.completed = live.completed};
        usage.live += {live.total(), row.bytes_of(live) + kManifestBytesEach};
        usage.evictable += {live.completed, row.bytes_of(completed)};
    };
    for (const SealedSegment& sealed : now.view->sealed->segments()) {
        add(sealed.row, live_in(sealed, now.unsealed));
    }
    for (std::size_t part = 0; part < now.unsealed.parts.size(); ++part) {
        add(now.unsealed.parts[part].row,
            total(DEDUP_TRY(live_in_unsealed(reader_, now, part, now.view->horizon, {}))));
    }
    usage.live.bytes += kEmptyLogBytes;
    usage.held = {usage.live.keys, log_bytes(reader_, *now.view)};
    return usage;
}

}  // namespace dedup
