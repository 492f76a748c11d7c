// Sweeping: what has expired goes in bounded transactions, each of which also writes down what it
// has removed. So whatever cuts a sweep short, its report says what went and what was unanswered.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "catalog/report.hpp"
#include "postgres/call.hpp"
#include "postgres/postgres_store.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

// A tenth of a second. The smaller a batch, the more of it goes into finding its beginning.
constexpr std::int64_t kBatchRows = 50'000;
constexpr int kDeadlocksMax = 10;  // of one batch, with appends

std::uint64_t microseconds_since(TimePoint start) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                          std::chrono::steady_clock::now() - start)
                                          .count());
}

// A row of what a sweep removes; see kRemoved. Of a claim that nobody answered, all that a report
// says; of others what is counted.
Record read_removed(const Table& table, std::size_t row) {
    Record record;
    record.ns = table.bytes(row, 0);
    const auto state = static_cast<State>(table.number(row, 1));
    if (state == State::released) {
        record.kind = Kind::tombstone;
        return record;
    }
    if (state == State::completed) {
        record.receipt.emplace();
        return record;
    }
    record.sequence = static_cast<std::uint64_t>(table.number(row, 2));
    record.key = table.bytes(row, 3);
    record.owner = table.bytes(row, 4);
    record.claim_sequence = static_cast<std::uint64_t>(table.number(row, 5));
    record.timestamp_ms = table.number(row, 6);
    record.expires_at_ms = table.number(row, 7);
    return record;
}

}  // namespace

struct PostgresStore::Sweeping {
    const SweepOptions& options;
    std::int64_t cut_ms = 0;  // what expired before this has expired, its grace included
    TimePoint start = std::chrono::steady_clock::now();
    SweepTally tally;
    SweepReport report = {};
    std::optional<std::int64_t> id = {};  // of the report, once something was removed

    void count(const Table& removed, bool evicted) {
        for (std::size_t row = 0; row < removed.size(); ++row) {
            tally.remove(read_removed(removed, row), evicted);
        }
        report.records_dropped += removed.size();
    }
    // The report as it is so far.
    [[nodiscard]] SweepReport written(bool interrupted) const {
        SweepReport now = report;
        tally.write(now);
        now.interrupted = interrupted;
        now.duration_us = microseconds_since(start);
        return now;
    }
    [[nodiscard]] bool should_stop() const {
        return options.stop.stop_requested() ||
               (options.time_max.count() > 0 &&
                std::chrono::steady_clock::now() - start >= options.time_max);
    }
};

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

Result<SweepReport> PostgresStore::run_sweep(const SweepOptions& options, const Room& evict) {
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
    Result<void> done = options.dry_run ? rehearse(sweeping) : remove(sweeping, evict);
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
        counters_.count_sweep(report);
    }
    return report;
}

Result<void> PostgresStore::rehearse(Sweeping& sweeping) {
    auto table = DEDUP_TRY(
        read({&statements_.would_remove,
              {number_parameter(expiry_slot(sweeping.cut_ms)), number_parameter(sweeping.cut_ms)}},
             kScanTimes));
    sweeping.count(table, false);
    return {};
}

// What goes has a sequence up to a floor that is raised first. Nobody begins a stream below it, so
// whoever begins one of these again does so with a higher fence.
Result<void> PostgresStore::remove(Sweeping& sweeping, const Room& evict) {
    const std::string slot = number_parameter(expiry_slot(sweeping.cut_ms));
    const std::string cut = number_parameter(sweeping.cut_ms);
    const auto any = read({&statements_.any_expired, {slot, cut}}, kScanTimes);
    if (!any) {
        return std::unexpected(any.error());
    }
    if (any->size() == 0 && evict == Room()) {
        if (sweeping.options.progress) {
            sweeping.options.progress(0, 0);
        }
        return {};
    }
    const auto floor = read({&statements_.raise_floor});
    if (!floor) {
        return std::unexpected(floor.error());
    }
    forget_block();
    const std::string up_to = number_parameter(floor->number(0, 0));
    Query expired{&statements_.remove_expired, {slot, cut, number_parameter(kBatchRows), up_to}};
    std::size_t removed = any->size();
    while (removed != 0) {
        auto batch = remove_batch(sweeping, expired, false);
        if (!batch && batch.error().not_understood()) {
            expired.statement = &statements_.remove_expired_by_key;
            batch = remove_batch(sweeping, expired, false);
        }
        if (!batch) {
            return std::unexpected(std::move(batch).error().error);
        }
        removed = *batch;  // fewer than asked for are not the end: others may have taken some over
        if (sweeping.options.progress) {
            const std::uint64_t done = sweeping.report.records_dropped;
            sweeping.options.progress(done, done + removed);
        }
        // A short batch is mostly the last one, which one more look tells.
        if (removed == static_cast<std::size_t>(kBatchRows) && sweeping.should_stop()) {
            sweeping.report.finished = false;
            break;
        }
    }
    if (evict == Room()) {
        return {};
    }
    const Query oldest{&statements_.remove_oldest,
                       {number_parameter(static_cast<std::int64_t>(evict.keys)),
                        number_parameter(static_cast<std::int64_t>(evict.bytes)), up_to}};
    const auto evicted = remove_batch(sweeping, oldest, true);
    return evicted ? Result<void>() : std::unexpected(evicted.error().error);
}

Reply<std::size_t> PostgresStore::remove_batch(Sweeping& sweeping, const Query& removal,
                                               bool evicted) {
    auto lease = pool_.take(deadline());
    if (!lease) {
        return std::unexpected(Trouble{.error = std::move(lease).error()});
    }
    const auto pause = std::chrono::steady_clock::now();
    std::vector<Query> steps = (*lease)->beginning();
    steps.push_back({&statements_.lock_sweep});
    steps.push_back(removal);
    if (!sweeping.id) {
        steps.push_back({&statements_.block});
    }
    auto tables = (*lease)->step(steps, deadline());
    for (int i = 0; i < kDeadlocksMax && !tables && tables.error().transient(); ++i) {
        tables = (*lease)->step(steps, deadline());  // it was rolled back
    }
    if (!tables) {
        return std::unexpected(std::move(tables).error());
    }
    if (!sweeping.id) {
        sweeping.id = tables->back().number(0, 0);
        tables->pop_back();
    }
    const std::size_t removed = tables->back().size();
    sweeping.count(tables->back(), evicted);
    steps.clear();
    if (removed != 0) {
        steps.push_back({&statements_.put_report,
                         {number_parameter(*sweeping.id), encode_report(sweeping.written(true))}});
    }
    steps.push_back({&statements_.commit});
    DEDUP_TRY((*lease)->step(steps, deadline()));
    sweeping.report.longest_pause_us =
        std::max(sweeping.report.longest_pause_us, microseconds_since(pause));
    return removed;
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
    std::vector<Query> queries = {{&statements_.swept,
                                   {number_parameter(report.now_ms),
                                    number_parameter(static_cast<std::int64_t>(report.evicted))}}};
    if (report.removed.total() != 0) {
        queries.push_back(
            {&statements_.put_report, {number_parameter(*sweeping.id), encode_report(report)}});
        queries.push_back({&statements_.trim_reports});
    }
    if (auto written = lease->transact(queries, deadline()); !written) {
        return std::unexpected(std::move(written).error().error);
    }
    return write_clock(lease);
}

}  // namespace dedup::pg
