#include "sweep/planner.hpp"

#include <algorithm>
#include <queue>
#include <tuple>
#include <utility>

#include "metrics/counter.hpp"
#include "record/try.hpp"

namespace dedup {

std::uint64_t SweepPlanner::moved_from(std::uint64_t segment) const {
    const auto at = compacted_.find(segment);
    return at == compacted_.end() ? 0 : at->second.moved;
}

Result<SweepReport> SweepPlanner::dry_run(const SweepOptions& options,
                                          std::uint64_t segment_bytes) {
    const OwnedLock one_at_a_time(mutex_);
    return context_.failure.answered(
        [&]() DEDUP_ANNOTATION(no_thread_safety_analysis) -> Result<SweepReport> {
            const auto start = std::chrono::steady_clock::now();
            SweepReport report;
            report.dry_run = true;
            report.now_ms = options.now_ms ? std::max(context_.clock.saw_time(0), *options.now_ms)
                                           : context_.clock.now_ms();
            DEDUP_TRY(plan(options, segment_bytes, report));
            report.duration_us = microseconds_since(start);
            return report;
        });
}

Result<void> SweepPlanner::plan(const SweepOptions& options, std::uint64_t segment_bytes,
                                SweepReport& report) {
    const auto catalog = DEDUP_TRY(catalog_.open_one());
    const Now now = DEDUP_TRY(reader_.now());
    const SweepState state = DEDUP_TRY(catalog->sweep_state());
    report.withheld = clock_.why_withheld(*now.view, options, report.now_ms);
    Horizon to = DEDUP_TRY(next_horizon(now, report, {}));
    if (to != now.view->horizon) {
        to.sequence = now.unsealed.sequence;
    }
    report.bytes_before = log_bytes(reader_, *now.view);
    report.bytes_after = report.bytes_before;
    Count count{now, state.counted, to, now.unsealed.sequence, false, report};
    count.unanswered.claims_max = options.unanswered_max;
    DEDUP_TRY(run_count(reader_, count));

    PlanInput input = plan_input(now, to, count.counted, count.newest_live);
    input.segment_bytes = segment_bytes;
    input.now_ms = report.now_ms;
    input.compact = options.compact;
    std::vector<PlannedSegment> planned = plan_segments(input);
    if (ends_newest(input)) {
        planned.push_back({input.newest, true, input.newest_live});
    }
    for (const auto& [row, compact, live] : planned) {
        ++(compact ? report.segments_compacted : report.segments_dropped);
        report.records_dropped += row.records() - live.total() - moved_from(row.id);
        report.records_moved += live.total();
        report.bytes_after -= row.bytes - row.bytes_of(live);
    }
    std::tie(report.damaged, report.damage) = context_.damage.places();
    return {};
}

PlanInput SweepPlanner::plan_input(const Now& now, const Horizon& horizon,
                                   const std::map<std::uint64_t, Counted>& counted,
                                   const StateCounts& newest_live) const {
    PlanInput input;
    for (const SealedSegment& sealed : now.view->sealed->segments()) {
        input.sealed.push_back({sealed.row, live_in(sealed, now.unsealed, counted),
                                context_.damage.has(sealed.row.id)});
    }
    input.newest = now.unsealed.parts.front().row;
    input.newest_live = newest_live;
    for (std::size_t part = 1; part < now.unsealed.parts.size(); ++part) {
        input.unsealed_bytes += now.unsealed.parts[part].row.bytes;
    }
    input.may_show = [this, &now, horizon](const PlanSegment& segment) {
        const SealedSegment* const sealed = now.view->sealed->find(segment.row.id);
        return sealed != nullptr && may_show(reader_, *sealed, horizon, segment.live.total());
    };
    return input;
}

Result<Horizon> SweepPlanner::next_horizon(const Now& now, const SweepReport& report,
                                           const Room& evict) {
    const View& view = *now.view;
    Horizon next = view.horizon;
    if (report.withheld && (evict == Room() || report.withheld->by_reset)) {
        return next;
    }
    if (!report.withheld) {
        next.expired_before_ms =
            std::max(next.expired_before_ms, report.now_ms - context_.clock.grace().count());
    }
    next.sequence = std::max(next.sequence, now.unsealed.sequence);
    const bool expires = DEDUP_TRY(removes_more(view, next));
    if (evict != Room()) {
        next.evicted_before =
            std::max(next.evicted_before, DEDUP_TRY(oldest_completed(view, next, evict)));
    }
    return expires || next.evicted_before != view.horizon.evicted_before ? next : view.horizon;
}

// Whether `next` removes a stream that the view's horizon leaves. An idle store has none, and then
// a sweep writes nothing; nor does it look again at what it has looked at before.
Result<bool> SweepPlanner::removes_more(const View& view, const Horizon& next) {
    std::map<std::uint64_t, std::int64_t> expires_min_ms;  // of sealed segments
    for (const Part& part : reader_.parts(view)) {
        std::int64_t min_ms = part.row.expires_min_ms;
        if (const auto known = looked_expires_min_ms_.find(part.row.id);
            part.sealed != nullptr && known != looked_expires_min_ms_.end()) {
            min_ms = known->second;
        }
        if (min_ms < next.expired_before_ms && part.may_live() &&
            DEDUP_TRY(look_for_removed(view, part, next, min_ms))) {
            return true;
        }
        if (part.sealed != nullptr) {
            expires_min_ms.emplace(part.row.id, min_ms);
        }
    }
    looked_to_ = next;
    looked_expires_min_ms_ = std::move(expires_min_ms);
    return false;
}

// The same in one segment. `expires_min_ms` becomes the earliest expiry that `next` leaves in it.
Result<bool> SweepPlanner::look_for_removed(const View& view, const Part& part, const Horizon& next,
                                            std::int64_t& expires_min_ms) {
    // What ends the walk is no error of anything.
    const Error found_one{Code::unavailable, "one is enough"};
    const Horizon looked_to = looked_to_;
    bool removes = false;
    std::int64_t min_ms = INT64_MAX;
    const auto done = reader_.visit_entries(part, [&](const IndexEntry& entry) -> Result<void> {
        if (entry.expiry() != kExpiryNever && !next.surely_removes(entry)) {
            min_ms = std::min(min_ms, expiry_step_start(entry.expiry()));
        }
        if (view.horizon.surely_removes(entry) || looked_to.surely_removes(entry)) {
            return {};
        }
        auto looked = find_removed(reader_, view, *part.segment, entry, next, UINT64_MAX,
                                   [&](const Located& at) {
                                       removes = removes || !removed(view, at);
                                       return Result<void>();
                                   });
        return looked && removes ? std::unexpected(found_one) : looked;
    });
    if (removes) {
        return true;
    }
    if (!done) {
        return std::unexpected(done.error());
    }
    expires_min_ms = min_ms;
    return false;
}

namespace {

// The oldest completions seen so far, as many as are wanted.
class Oldest {
  public:
    explicit Oldest(const Room& wanted) : wanted_(wanted) {}

    // Whether one with this sequence would be among them.
    [[nodiscard]] bool takes(std::uint64_t sequence) const {
        return !enough(chosen_) || sequence < oldest_.top().first;
    }
    void add(std::uint64_t sequence, std::uint64_t bytes) {
        oldest_.emplace(sequence, bytes);
        chosen_ += {1, bytes};
        while (enough({chosen_.keys - 1, chosen_.bytes - oldest_.top().second})) {
            chosen_ = {chosen_.keys - 1, chosen_.bytes - oldest_.top().second};
            oldest_.pop();
        }
    }
    // One more than the sequence of the newest of them; 0 if there is none.
    [[nodiscard]] std::uint64_t end() const {
        return oldest_.empty() ? 0 : oldest_.top().first + 1;
    }

  private:
    [[nodiscard]] bool enough(const Room& room) const {
        return room.keys >= wanted_.keys && room.bytes >= wanted_.bytes;
    }

    const Room wanted_;
    Room chosen_;
    std::priority_queue<std::pair<std::uint64_t, std::uint64_t>> oldest_;  // sequences, and bytes
};

}  // namespace

// Before which completed streams go, so that those go that `horizon` leaves, oldest first, so many
// keys and bytes of them; 0 if there is none.
Result<std::uint64_t> SweepPlanner::oldest_completed(const View& view, Horizon horizon,
                                                     const Room& evict) const {
    horizon.sequence = UINT64_MAX;
    Oldest oldest(evict);
    const auto offer = [&](const Segment& segment, const IndexEntry& entry) -> Result<void> {
        if (entry.state() != State::completed || horizon.surely_removes(entry) ||
            !oldest.takes(entry.sequence)) {
            return {};
        }
        FrameBuffer buffer;
        Located at;
        if (!DEDUP_TRY(reader_.read_entry(segment, entry, at, buffer)) ||
            horizon.removes(at.record.state(), entry.sequence, at.record.expires_at_ms)) {
            return {};
        }
        if (DEDUP_TRY(reader_.was_head(view, at, UINT64_MAX))) {
            oldest.add(entry.sequence, kFrameHeaderBytes + content_bytes(at.record));
        }
        return {};
    };
    for (const Part& part : reader_.parts(view)) {
        DEDUP_TRY(reader_.visit_entries(
            part, [&](const IndexEntry& entry) { return offer(*part.segment, entry); }));
    }
    return oldest.end();
}

}  // namespace dedup
