// What a sweep removes goes in bounded transactions, each of which also writes down what it has
// removed. So whatever cuts a sweep short, its report says what went and what was unanswered.
//
// What somebody's transaction holds stays: that one may be reviving it. The next sweep looks again.
#include <algorithm>
#include <utility>

#include "catalog/report.hpp"
#include "postgres/sweeping.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

constexpr std::int64_t kBatchRowsMin = 100;  // below which a timeout is an error
constexpr int kDeadlocksMax = 10;            // of one batch, with appends
constexpr std::int64_t kPassedMax = 10;      // rows, on a server that cannot skip them by itself
constexpr std::size_t kUnansweredMax = 1'000'000'000;  // whose number the server can take
constexpr int kRemovedColumns = 11;                    // see kRemoved in statements.cpp

// A row of what a sweep removes. Of a claim that nobody answered, all that a report says; of others
// what is counted.
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
    record.attempt = static_cast<std::uint32_t>(table.number(row, 8));
    record.event_id = table.bytes(row, 9);
    record.metadata = table.bytes(row, 10);
    return record;
}

// What another kind of batch would meet, too.
Trouble whatever_the_batch(Trouble trouble) {
    trouble.sqlstate.clear();
    return trouble;
}

}  // namespace

// How batches are made: by which of the statements, and of how many rows.
struct PostgresStore::Batches {
    std::span<const Statement> ways;
    std::int64_t rows = 0;
    std::size_t way = 0;
    std::int64_t passed = 0;  // rows that are held, before those of the next batch

    [[nodiscard]] bool last_way() const { return way + 1 == ways.size(); }
};

// Says what would go: counted by the server, however much it is.
Result<void> PostgresStore::rehearse(Sweeping& sweeping) {
    const std::string slot = number_parameter(expiry_slot(sweeping.cut_ms));
    const std::string cut = number_parameter(sweeping.cut_ms);
    const auto counts = DEDUP_TRY(read({&statements_.would_remove, {slot, cut}}, kScanTimes));
    for (std::size_t row = 0; row < counts.size(); ++row) {
        const auto streams = static_cast<std::uint64_t>(counts.number(row, 2));
        sweeping.tally.remove(counts.bytes(row, 0), static_cast<State>(counts.number(row, 1)),
                              streams);
        sweeping.report.records_dropped += streams;
    }
    const auto most = static_cast<std::int64_t>(
        std::min<std::size_t>(sweeping.options.unanswered_max, kUnansweredMax));
    const auto unanswered =
        DEDUP_TRY(read({&statements_.would_tell, {slot, cut, number_parameter(most)}}, kScanTimes));
    for (std::size_t row = 0; row < unanswered.size(); ++row) {
        sweeping.tally.list_unanswered(read_removed(unanswered, row));
    }
    return {};
}

// What goes has a sequence up to a floor that is raised first. Nobody begins a stream below it, so
// whoever begins one of these again does so with a higher fence.
Result<void> PostgresStore::remove(Sweeping& sweeping, const Room& evicted) {
    const Query any_expired{
        &statements_.any_expired,
        {number_parameter(expiry_slot(sweeping.cut_ms)), number_parameter(sweeping.cut_ms)}};
    const auto any = read(any_expired, kScanTimes);
    if (!any) {
        return std::unexpected(any.error());
    }
    if (any->size() == 0 && evicted == Room()) {
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
    if (any->size() != 0) {
        DEDUP_TRY(remove_expired(sweeping, floor->number(0, 0)));
        const auto left = read(any_expired, kScanTimes);
        if (!left) {
            return std::unexpected(left.error());
        }
        sweeping.report.finished = left->size() == 0;
    }
    return evicted == Room() ? Result<void>() : evict(sweeping, evicted, floor->number(0, 0));
}

Result<void> PostgresStore::remove_expired(Sweeping& sweeping, std::int64_t floor) {
    Batches batches{.ways = statements_.remove_expired, .rows = batch_rows_};
    while (true) {
        Query removal{
            &batches.ways[batches.way],
            {number_parameter(expiry_slot(sweeping.cut_ms)), number_parameter(sweeping.cut_ms),
             number_parameter(batches.rows), number_parameter(floor)}};
        if (batches.last_way()) {
            removal.parameters.push_back(number_parameter(batches.passed));
        }
        const auto batch = remove_batch(sweeping, removal, false);
        if (!batch) {
            if (adapt(batches, batch.error())) {
                continue;
            }
            return std::unexpected(batch.error().error);
        }
        const std::size_t removed = batch->size();
        if (sweeping.options.progress) {
            const std::uint64_t done = sweeping.report.records_dropped;
            sweeping.options.progress(done, done + removed);
        }
        // Fewer than asked for are not the end: others may have taken some over. But mostly they
        // are, which one more look tells.
        if (removed == 0 ||
            (removed == static_cast<std::size_t>(batches.rows) && sweeping.should_stop())) {
            return {};
        }
        batches.rows = std::min(2 * batches.rows, batch_rows_);
    }
}

// The oldest of what is completed, until so much has gone.
Result<void> PostgresStore::evict(Sweeping& sweeping, Room wanted, std::int64_t floor) {
    Batches batches{.ways = statements_.evict, .rows = batch_rows_};
    while (wanted != Room()) {
        const auto oldest = read(
            {&statements_.oldest,
             {number_parameter(floor), number_parameter(static_cast<std::int64_t>(wanted.keys)),
              number_parameter(static_cast<std::int64_t>(wanted.bytes)),
              number_parameter(batches.rows), number_parameter(batches.passed)}},
            kScanTimes);
        if (!oldest) {
            return std::unexpected(oldest.error());
        }
        if (oldest->is_null(0, 0)) {
            return {};
        }
        // The server's arrays go back to it as they are.
        const auto batch =
            remove_batch(sweeping,
                         {&batches.ways[batches.way],
                          {std::string(oldest->bytes(0, 0)), std::string(oldest->bytes(0, 1)),
                           std::string(oldest->bytes(0, 2)), number_parameter(floor)}},
                         true);
        if (!batch) {
            if (adapt(batches, batch.error())) {
                continue;
            }
            return std::unexpected(batch.error().error);
        }
        if (batch->size() == 0) {
            return {};  // all of them are held
        }
        Room gone{.keys = batch->size()};
        for (std::size_t row = 0; row < batch->size(); ++row) {
            gone.bytes += static_cast<std::uint64_t>(batch->number(row, kRemovedColumns));
        }
        wanted.keys -= std::min(wanted.keys, gone.keys);
        wanted.bytes -= std::min(wanted.bytes, gone.bytes);
        batches.rows = std::min(2 * batches.rows, batch_rows_);
    }
    return {};
}

// Whether another kind of batch may do where one did not.
bool PostgresStore::adapt(Batches& batches, const Trouble& trouble) {
    if (!batches.last_way() && (trouble.not_understood() || trouble.locked())) {
        ++batches.way;
        return true;
    }
    if (trouble.timed_out() && batch_rows_ > kBatchRowsMin) {
        batch_rows_ /= 2;
        batches.rows = std::min(batches.rows, batch_rows_);
        return true;
    }
    // All before the row that is held, and then what lies behind it.
    if (trouble.locked() && batches.rows > 1) {
        batches.rows /= 2;
        return true;
    }
    if (trouble.locked() && batches.passed < kPassedMax) {
        ++batches.passed;
        batches.rows = batch_rows_;
        return true;
    }
    return false;
}

// The rows that went.
Reply<Table> PostgresStore::remove_batch(Sweeping& sweeping, const Query& removal, bool evicted) {
    auto lease = pool_.take(deadline());
    if (!lease) {
        return std::unexpected(Trouble{.error = std::move(lease).error()});
    }
    const auto start = std::chrono::steady_clock::now();
    auto removed = try_batch(*lease, sweeping, removal);
    for (int i = 0; i < kDeadlocksMax && !removed && removed.error().transient(); ++i) {
        removed = try_batch(*lease, sweeping, removal);  // it was rolled back
    }
    if (!removed) {
        return removed;
    }
    for (std::size_t row = 0; row < removed->size(); ++row) {
        sweeping.tally.remove(read_removed(*removed, row), evicted);
    }
    sweeping.report.records_dropped += removed->size();
    std::vector<Query> steps;
    if (removed->size() != 0) {
        steps.push_back({&statements_.swept,
                         {number_parameter(sweeping.report.now_ms),
                          number_parameter<std::int64_t>(
                              evicted ? static_cast<std::int64_t>(removed->size()) : 0)}});
        steps.push_back({&statements_.put_report,
                         {number_parameter(*sweeping.id), encode_report(sweeping.written(true))}});
    }
    steps.push_back({&statements_.commit});
    if (auto committed = (*lease)->step(steps, deadline()); !committed) {
        return std::unexpected(whatever_the_batch(std::move(committed).error()));
    }
    counters_.streams_removed.add(removed->size());
    sweeping.report.longest_pause_us =
        std::max(sweeping.report.longest_pause_us, microseconds_since(start));
    if (std::chrono::steady_clock::now() - start < target_.options.timeout / 16) {
        batch_rows_ = std::min(2 * batch_rows_, kBatchRowsMax);
    }
    return removed;
}

// Leaves the transaction open.
Reply<Table> PostgresStore::try_batch(Lease& lease, Sweeping& sweeping, const Query& removal) {
    std::vector<Query> steps = lease->beginning();
    steps.push_back({&statements_.lock_sweep});
    steps.push_back({&statements_.batch_limits});
    if (!sweeping.id) {
        steps.push_back({&statements_.block});
    }
    auto begun = lease->step(steps, deadline());
    if (!begun) {
        return std::unexpected(begun.error().transient()
                                   ? std::move(begun).error()
                                   : whatever_the_batch(std::move(begun).error()));
    }
    if (!sweeping.id) {
        sweeping.id = begun->back().number(0, 0);
    }
    auto tables = DEDUP_TRY(lease->step({&removal, 1}, deadline()));
    return std::move(tables.front());
}

}  // namespace dedup::pg
