// Appending: the queue of callers, the group that one of them writes for all, and the sequences.
#include <algorithm>
#include <utility>

#include "contract/check_batch.hpp"
#include "postgres/call.hpp"
#include "postgres/clock_codec.hpp"
#include "postgres/postgres_store.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

// The store's time is written down when it is so much ahead of what is. Less than a second, as
// the default grace, may be forgotten.
constexpr std::int64_t kTimeStepMs = 1'000;

}  // namespace

std::vector<Result<std::uint64_t>> PostgresStore::append(std::span<const Append> batch,
                                                         Batch mode) {
    using Results = std::vector<Result<std::uint64_t>>;
    const Call call(*this, true);
    if (!call) {
        return Results(batch.size(), std::unexpected(call.error()));
    }
    if (batch.empty()) {
        return {};
    }
    Request request{.batch = batch, .mode = mode};
    if (Result<void> checked = check_batch(batch, mode); !checked) {
        request.results.assign(batch.size(), std::unexpected(checked.error()));
    } else {
        const NoCancel whole;
        request.results.resize(batch.size());
        queue_.run(request, [this](Request& group) { carry_out(group); });
    }
    counters_.count_failed(request.results);
    return std::move(request.results);
}

// `group` and all that are linked to it.
void PostgresStore::carry_out(Request& group) noexcept {
    try {
        write_each(group);
        for (Request* request = &group; request != nullptr; request = request->next) {
            if (request->mode == Batch::atomic) {
                write_atomic(*request);
            }
        }
    } catch (const std::bad_alloc&) {
        for (Request* request = &group; request != nullptr; request = request->next) {
            for (auto& result : request->results) {
                result = std::unexpected(Error{Code::outcome_unknown, "out of memory"});
            }
        }
    }
}

// All batches of the group that are not atomic, together.
void PostgresStore::write_each(Request& group) {
    std::vector<Pending> pending;
    for (Request* request = &group; request != nullptr; request = request->next) {
        for (std::size_t i = 0; request->mode == Batch::each && i < request->batch.size(); ++i) {
            const Append& item = request->batch[i];
            if (Result<void> checked = check_record(item.record); checked) {
                pending.push_back({&item, &request->results[i]});
            } else {
                request->results[i] = std::unexpected(std::move(checked).error());
            }
        }
    }
    std::span<const Pending> items = pending;
    while (!items.empty()) {
        const auto some = items.first(std::min(items.size(), kBatchItemsMax));
        if (bounded()) {
            write_bounded(some);
        } else {
            write(some, Batch::each);
        }
        items = items.subspan(some.size());
    }
}

void PostgresStore::write_atomic(Request& request) {
    std::vector<Pending> items;
    items.reserve(request.batch.size());
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        items.push_back({&request.batch[i], &request.results[i]});
    }
    if (bounded()) {
        const std::lock_guard lock(room_mutex_);
        Room wanted;
        if (Result<void> room = room_for_all(items, wanted); !room) {
            for (const Pending& item : items) {
                *item.result = std::unexpected(room.error());
            }
            return;
        }
        write(items, Batch::atomic);
        if (items.front().result->has_value()) {
            held_ += wanted;
        }
        return;
    }
    write(items, Batch::atomic);
}

// Precondition: at most kBatchItemsMax items, all of them valid.
void PostgresStore::write(std::span<const Pending> items, Batch mode) {
    constexpr int kAttemptsMax = 4;
    const TimePoint until = deadline();
    std::vector<Pending> open(items.begin(), items.end());
    for (int attempt = 0; !open.empty() && attempt < kAttemptsMax; ++attempt) {
        write_once(open, mode, until);
        // Where the head is as expected it was the sequence that did not fit: somebody has swept
        // since the block was taken.
        const auto fits_again = [](const Pending& item) {
            return !*item.result && item.result->error().code == Code::sequence_conflict &&
                   item.result->error().head_sequence == item.item->expected_sequence;
        };
        if (mode == Batch::atomic && !std::ranges::all_of(open, fits_again)) {
            return;
        }
        std::erase_if(open, [&](const Pending& item) { return !fits_again(item); });
        if (!open.empty()) {
            forget_block();
        }
    }
}

void PostgresStore::forget_block() {
    const std::lock_guard lock(sequences_mutex_);
    block_end_ = next_sequence_;
}

void PostgresStore::write_once(std::span<const Pending> items, Batch mode, TimePoint until) {
    const auto fail = [&](const Error& error) {
        for (const Pending& item : items) {
            *item.result = std::unexpected(error);
        }
    };
    const auto start = std::chrono::steady_clock::now();
    auto lease = pool_.take(until);
    if (!lease) {
        return fail(lease.error());
    }
    std::uint64_t above = 0;
    for (const Pending& item : items) {
        above = std::max(above, item.item->expected_sequence);
    }
    auto first = take_sequences(*lease, items.size(), above, until);
    if (!first) {
        return fail(first.error());
    }
    if (Result<void> noted = note_time(*lease, items, until); !noted) {
        return fail(noted.error());
    }
    std::vector<Row> rows;
    rows.reserve(items.size());
    for (const Pending& item : items) {
        rows.push_back({item.item, bucket_of({item.item->record.ns, item.item->record.key}),
                        *first + rows.size()});
    }
    auto results = writer_.write(*std::move(lease), rows, mode, until);
    std::uint64_t landed = 0;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (results[i]) {
            ++landed;
            bytes += head_bytes(items[i].item->record);
        }
        *items[i].result = std::move(results[i]);
    }
    if (landed != 0) {
        counters_.count_group(landed);
        counters_.bytes_written.add(bytes);
        counters_.flushes.add(1);
        counters_.flush_ns.add(static_cast<std::uint64_t>(
            std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count()));
    }
}

// A block is given up when its numbers might be below those of a stream that was removed and began
// again meanwhile, or of the head that an append builds upon; and with a connection, as the server
// may be another one.
Result<std::uint64_t> PostgresStore::take_sequences(Lease& lease, std::size_t count,
                                                    std::uint64_t above, TimePoint until) {
    const std::lock_guard lock(sequences_mutex_);
    if (next_sequence_ + count > block_end_ || next_sequence_ <= above ||
        block_generation_ != pool_.generation() ||
        std::chrono::steady_clock::now() - block_taken_ > age_max()) {
        DEDUP_TRY(take_block(lease, until));
    }
    const std::uint64_t first = next_sequence_;
    next_sequence_ += count;
    return first;
}

// And, where nobody has done so lately, writes down the time. All clients do that to one row.
Result<void> PostgresStore::take_block(Lease& lease, TimePoint until) {
    const auto now = std::chrono::steady_clock::now();
    const std::uint64_t generation = pool_.generation();
    const std::int64_t high = time_.saw_time(0);
    std::vector<Query> queries = {{&statements_.block}, {&statements_.keep_block}};
    if (const std::int64_t lately = high - kTimeStepMs / 2; written_time_ms_ <= lately) {
        queries.push_back(
            {&statements_.raise_time, {number_parameter(high), number_parameter(lately)}});
    }
    const auto tables = lease->transact(queries, until);
    if (!tables) {
        return std::unexpected(tables.error().error);
    }
    if (lease->warned()) {
        return std::unexpected(Error{Code::unavailable,
                                     "the wait for the standby was "
                                     "cancelled; nothing was appended"});
    }
    const Table& taken = tables->front();
    const std::int64_t block = taken.number(0, 0);
    if (block < 1 || block > kBlockMax) {
        return std::unexpected(
            Error{Code::corruption, "the server gave no block of sequences; run `dedupctl init`"});
    }
    source_->server.saw(taken.number(0, 1), now);
    next_sequence_ = static_cast<std::uint64_t>(block) * kBlockSequences;
    block_end_ = next_sequence_ + kBlockSequences;
    block_generation_ = generation;
    block_taken_ = now;
    const bool raised = tables->size() > 2 && tables->back().size() != 0;
    written_time_ms_ = raised ? high : taken.number(0, 2);
    time_.saw_time(written_time_ms_);
    return {};
}

// Before records from the future can be seen, and at most once in kTimeStepMs otherwise.
Result<void> PostgresStore::note_time(Lease& lease, std::span<const Pending> items,
                                      TimePoint until) {
    std::int64_t latest = 0;
    for (const Pending& item : items) {
        latest = std::max(latest, item.item->record.timestamp_ms);
    }
    if (looks_like_jump(latest)) {
        auto meta = lease->run({&statements_.meta}, until);
        if (!meta) {
            return std::unexpected(std::move(meta).error().error);
        }
        take_meta(*meta);
        time_.watch_time(latest);
    }
    const std::int64_t high = time_.saw_time(latest);
    if (high - written_time_ms_ >= kTimeStepMs) {
        auto written = lease->run({&statements_.saw_time, {number_parameter(high)}}, until);
        if (!written) {
            return std::unexpected(std::move(written).error().error);
        }
        written_time_ms_ = high;
    }
    return write_clock(lease, until);
}

// The other clients' history comes first where there is one that this one does not know.
void PostgresStore::take_meta(const Table& meta) {
    if (meta.size() != 1) {
        return;
    }
    time_.saw_time(meta.number(0, 2));
    const std::lock_guard lock(clock_mutex_);
    auto theirs = decode_jumps(meta.bytes(0, 3));
    if (meta.number(0, 4) == clock_version_ || !theirs) {
        return;
    }
    clock_version_ = meta.number(0, 4);
    const bool own = time_.clock_changes() != written_changes_;
    for (const ClockJump& jump : own ? time_.clock_history().jumps : std::vector<ClockJump>()) {
        if (theirs->jumps.empty() || theirs->jumps.back().to_ms < jump.from_ms) {
            theirs->jumps.push_back(jump);
        }
    }
    time_.set_clock_history(*std::move(theirs));
    written_changes_ = own ? written_changes_ : time_.clock_changes();
}

Result<void> PostgresStore::write_clock(Lease& lease, TimePoint until) {
    for (int round = 0; round < 3; ++round) {
        std::uint64_t changes = 0;
        std::int64_t version = 0;
        ClockHistory history;
        {
            const std::lock_guard lock(clock_mutex_);
            if (time_.clock_changes() == written_changes_) {
                return {};
            }
            history = time_.clock_history_at(ClockJump::kNotWritten, changes);
            version = clock_version_;
        }
        auto written = lease->run(
            {&statements_.set_clock, {encode_jumps(history), number_parameter(version)}}, until);
        if (!written) {
            return std::unexpected(std::move(written).error().error);
        }
        if (written->size() == 1) {
            const std::lock_guard lock(clock_mutex_);
            clock_version_ = written->number(0, 0);
            written_changes_ = changes;
            return {};
        }
        auto meta = lease->run({&statements_.meta}, until);
        if (!meta) {
            return std::unexpected(std::move(meta).error().error);
        }
        take_meta(*meta);
    }
    return {};
}

}  // namespace dedup::pg
