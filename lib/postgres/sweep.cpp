// A sweep from its beginning to its end; remove.cpp is what it removes.
#include <algorithm>
#include <utility>

#include "catalog/report.hpp"
#include "postgres/call.hpp"
#include "postgres/sweeping.hpp"
#include "record/try.hpp"

namespace dedup::pg {

Result<SweepReport> PostgresStore::sweep(const SweepOptions& options) {
    const Call call(*this, !options.dry_run);
    if (!call) {
        return std::unexpected(call.error());
    }
    if (sweeper_.load() == std::this_thread::get_id()) {
        return std::unexpected(
            Error{Code::busy, "a sweep is running, and this is called from within it"});
    }
    const std::lock_guard lock(sweep_mutex_);
    return run_sweep(options, Room());
}

// A dry run changes nothing, not even the time that was seen.
std::int64_t PostgresStore::sweep_time(const SweepOptions& options) {
    const std::int64_t time_ms =
        options.now_ms ? std::max(time_.saw_time(0), *options.now_ms) : now_ms();
    if (options.dry_run) {
        return time_ms;
    }
    if (looks_like_jump(time_ms)) {
        static_cast<void>(learn_time());
    }
    return time_.watch_time(time_ms);
}

Result<SweepReport> PostgresStore::run_sweep(const SweepOptions& options, const Room& evicted) {
    struct Marked {
        std::atomic<std::thread::id>& sweeper;
        ~Marked() { sweeper = std::thread::id(); }
    } const marked{sweeper_};
    sweeper_ = std::this_thread::get_id();

    static_cast<void>(learn_time());  // what other clients have seen of time counts here, too
    const std::int64_t time_ms = sweep_time(options);
    if (options.trust_clock && !options.dry_run) {
        time_.trust_clock();
    }
    Sweeping sweeping{.options = options, .tally = SweepTally(options.unanswered_max)};
    sweeping.report.now_ms = time_ms;
    sweeping.report.dry_run = options.dry_run;
    if (!options.trust_clock) {
        sweeping.report.withheld = time_.withheld(time_ms, time_.saw_time(0));
    }
    sweeping.cut_ms = sweeping.report.withheld ? INT64_MIN : time_ms - grace().count();
    Result<void> done = options.dry_run ? rehearse(sweeping) : remove(sweeping, evicted);
    if (done) {
        done = count_retained(sweeping);
    }
    if (done && !options.dry_run) {
        done = finish_sweep(sweeping);
    }
    if (process_.inherited()) {  // forked in its progress: no lock is taken any more
        return std::unexpected(process_.inherited_error("the store in the database"));
    }
    if (!options.dry_run) {
        const std::lock_guard error_lock(error_mutex_);
        sweep_error_ = done ? std::string() : done.error().message;
        counters_.sweeps_failed.add(done ? 0 : 1);
    }
    if (!done) {
        return std::unexpected(std::move(done).error());
    }
    SweepReport report = sweeping.written(false);
    if (!options.dry_run) {
        counters_.sweeps.add(1);
        counters_.sweep_us.add(report.duration_us);
    }
    return report;
}

Result<void> PostgresStore::count_retained(Sweeping& sweeping) {
    auto next =
        DEDUP_TRY(read({&statements_.next_expiry,
                        {number_parameter(expiry_slot(std::max<std::int64_t>(0, sweeping.cut_ms))),
                         number_parameter(sweeping.cut_ms)}}));
    if (!next.is_null(0, 0)) {
        sweeping.tally.expires(next.number(0, 0));
    }
    if (!sweeping.options.count_retained) {
        return {};
    }
    auto rows =
        DEDUP_TRY(read({&statements_.retained, {number_parameter(sweeping.cut_ms)}}, kScanTimes));
    for (std::size_t row = 0; row < rows.size(); ++row) {
        sweeping.tally.retain(rows.bytes(row, 0), static_cast<State>(rows.number(row, 1)),
                              static_cast<std::uint64_t>(rows.number(row, 2)));
    }
    return {};
}

Result<void> PostgresStore::finish_sweep(Sweeping& sweeping) {
    auto lease = DEDUP_TRY(pool_.take(deadline()));
    const SweepReport report = sweeping.written(false);
    // What was evicted has been counted with each batch.
    std::vector<Query> queries = {
        {&statements_.swept, {number_parameter(report.now_ms), number_parameter<std::int64_t>(0)}}};
    if (report.removed.total() != 0) {
        queries.push_back(
            {&statements_.put_report, {number_parameter(*sweeping.id), encode_report(report)}});
        queries.push_back({&statements_.trim_reports});
    }
    if (auto written = lease->transact(queries, deadline()); !written) {
        return std::unexpected(std::move(written).error().error);
    }
    return write_clock(lease, deadline());
}

}  // namespace dedup::pg
