#include "postgres/writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <thread>
#include <unordered_set>
#include <utility>

#include "contract/check_batch.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

// A message of the protocol has at most 1 GiB, and both sides hold it in memory.
constexpr std::uint64_t kChunkBytesMax = 64 * 1024 * 1024;

Error conflict(const Row& row, std::uint64_t head) {
    return sequence_conflict(*row.item, head);
}

Error unknown(const Error& lost, std::uint64_t head) {
    return {.code = Code::outcome_unknown,
            .message = fmt::format("nobody can say whether the append is durable: {}; look the key "
                                   "up",
                                   lost.message),
            .head_sequence = head};
}

// The server has warned beside success.
Trouble not_replicated() {
    return {.error = {Code::unavailable, "the wait for the standby was cancelled"},
            .unknown = true};
}

bool same_target(const Row& a, const Row& b) {
    return a.item->expected_sequence == b.item->expected_sequence &&
           a.item->record.key == b.item->record.key && a.item->record.ns == b.item->record.ns;
}

// The rows that are sent: sorted, and of those for one head the first.
std::vector<Row> rows_to_send(std::span<const Row> rows) {
    std::vector<Row> sorted(rows.begin(), rows.end());
    std::ranges::sort(sorted, [](const Row& a, const Row& b) {
        if (before(a, b) || before(b, a)) {
            return before(a, b);
        }
        return std::pair(a.item->expected_sequence, a.sequence) <
               std::pair(b.item->expected_sequence, b.sequence);
    });
    const auto twice = std::ranges::unique(sorted, same_target);
    sorted.erase(twice.begin(), twice.end());
    return sorted;
}

TimePoint from_now(std::chrono::milliseconds time) {
    return std::chrono::steady_clock::now() + time;
}

}  // namespace

std::vector<Result<std::uint64_t>> Writer::write(Lease lease, std::span<const Row> rows, Batch mode,
                                                 TimePoint deadline) {
    if (mode == Batch::atomic) {
        return write_chunk(lease, rows, mode, deadline);  // bounded by kAtomicBatchBytesMax
    }
    Results results;
    while (!rows.empty()) {
        std::size_t count = 0;
        std::uint64_t bytes = 0;
        while (count < rows.size() && (count == 0 || bytes < kChunkBytesMax)) {
            bytes += head_bytes(rows[count].item->record);
            ++count;
        }
        if (!lease) {
            auto another = pool_.take(deadline);
            if (!another) {
                results.resize(results.size() + rows.size(), std::unexpected(another.error()));
                break;
            }
            lease = *std::move(another);
        }
        auto chunk = write_chunk(lease, rows.first(count), mode, deadline);
        std::ranges::move(chunk, std::back_inserter(results));
        rows = rows.subspan(count);
        deadline = from_now(timeout_);
    }
    return results;
}

std::vector<Result<std::uint64_t>> Writer::write_chunk(Lease& lease, std::span<const Row> rows,
                                                       Batch mode, TimePoint deadline) {
    auto landed = attempt(lease, rows, mode, deadline);
    while (!landed && landed.error().transient() && std::chrono::steady_clock::now() < deadline) {
        landed = attempt(lease, rows, mode, deadline);
    }
    if (!landed && landed.error().locked() && mode == Batch::each && rows.size() > 1) {
        return write_halves(lease, rows, deadline);
    }
    return settle(lease, rows, mode, std::move(landed), deadline);
}

std::vector<Result<std::uint64_t>> Writer::write_halves(Lease& lease, std::span<const Row> rows,
                                                        TimePoint deadline) {
    Results results;
    const std::size_t half = rows.size() / 2;
    for (const auto part : {rows.first(half), rows.subspan(half)}) {
        if (!lease) {
            auto another = pool_.take(deadline);
            if (!another) {
                results.resize(results.size() + part.size(), std::unexpected(another.error()));
                continue;
            }
            lease = *std::move(another);
        }
        auto landed = attempt(lease, part, Batch::each, deadline, true);
        const bool divides = !landed && landed.error().locked() && part.size() > 1 &&
                             std::chrono::steady_clock::now() < deadline;
        auto some = divides ? write_halves(lease, part, deadline)
                            : settle(lease, part, Batch::each, std::move(landed), deadline);
        std::ranges::move(some, std::back_inserter(results));
    }
    return results;
}

// Gives the connection back if the outcome is unknown.
std::vector<Result<std::uint64_t>> Writer::settle(Lease& lease, std::span<const Row> rows,
                                                  Batch mode, Reply<std::vector<bool>> landed,
                                                  TimePoint deadline) {
    if (!landed && landed.error().unknown) {
        lease.reset();  // or there may be no connection to resolve it over
        return resolve(rows, mode, landed.error().error);
    }
    if (!landed) {
        return Results(rows.size(), std::unexpected(landed.error().error));
    }
    Results results(rows.size());
    explain_losers(lease, rows, *landed, results, deadline);
    return results;
}

Reply<std::vector<bool>> Writer::attempt(Lease& lease, std::span<const Row> rows, Batch mode,
                                         TimePoint deadline, bool hurries) {
    const std::vector<Row> sent = rows_to_send(rows);
    std::vector<Row> updates;
    std::vector<Row> inserts;
    for (const Row& row : sent) {
        (row.item->expected_sequence == 0 ? inserts : updates).push_back(row);
    }
    std::vector<Query> queries;
    if (hurries) {
        queries.push_back({&statements_.hurry});
    }
    if (!updates.empty()) {
        queries.push_back({statements_.update.of(updates.size()), batch_parameters(updates, true)});
    }
    if (!inserts.empty()) {
        queries.push_back(
            {statements_.insert.of(inserts.size()), batch_parameters(inserts, false)});
    }
    if (mode == Batch::atomic) {
        return attempt_atomic(lease, queries, rows, deadline);
    }
    Reply<std::vector<Table>> tables;
    if (queries.size() == 1) {
        auto table = DEDUP_TRY(lease->run(queries.front(), deadline));
        tables->push_back(std::move(table));
    } else {
        tables = lease->transact(queries, deadline);
    }
    if (!tables) {
        return std::unexpected(std::move(tables).error());
    }
    if (lease->warned()) {
        return std::unexpected(not_replicated());
    }
    std::unordered_set<std::uint64_t> won;
    for (const Table& table : *tables) {
        for (std::size_t i = 0; i < table.size(); ++i) {
            won.insert(static_cast<std::uint64_t>(table.number(i, 0)));
        }
    }
    std::vector<bool> landed;
    for (const Row& row : rows) {
        landed.push_back(won.contains(row.sequence));
    }
    return landed;
}

Reply<std::vector<bool>> Writer::attempt_atomic(Lease& lease, std::span<const Query> queries,
                                                std::span<const Row> rows, TimePoint deadline) {
    std::vector<Query> steps = lease->beginning();
    const std::size_t first = steps.size();
    steps.insert(steps.end(), queries.begin(), queries.end());
    auto tables = DEDUP_TRY(lease->step(steps, deadline));
    std::size_t landed = 0;
    for (std::size_t i = first; i < tables.size(); ++i) {
        landed += tables[i].size();
    }
    const bool whole = landed == rows.size();
    const Query end{whole ? &statements_.commit : &statements_.rollback};
    if (auto ended = lease->step({&end, 1}, deadline); !ended) {
        return std::unexpected(std::move(ended).error());
    }
    if (whole && lease->warned()) {
        return std::unexpected(not_replicated());
    }
    return std::vector<bool>(rows.size(), whole);
}

Reply<std::vector<Writer::Head>> Writer::heads_of(Lease& lease, std::span<const Row> rows,
                                                  TimePoint deadline) {
    std::vector<StreamKey> streams;
    for (const Row& row : rows) {
        streams.push_back({row.item->record.ns, row.item->record.key});
    }
    auto table =
        DEDUP_TRY(lease->run({&statements_.sequences, stream_parameters(streams)}, deadline));
    std::vector<Head> heads(rows.size());
    for (std::size_t i = 0; i < table.size(); ++i) {
        const auto row = asked_for(table, i, 0, rows.size());
        if (!row) {
            return std::unexpected(Trouble{.error = row.error()});
        }
        heads[*row] = {static_cast<std::uint64_t>(table.number(i, 1)),
                       static_cast<std::uint64_t>(table.number(i, 2))};
    }
    return heads;
}

void Writer::explain_losers(Lease& lease, std::span<const Row> rows,
                            const std::vector<bool>& landed, Results& results, TimePoint deadline) {
    std::vector<Row> lost;
    std::map<std::pair<std::string_view, std::string_view>, std::size_t> winners;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (landed[i]) {
            results[i] = rows[i].sequence;
        } else {
            lost.push_back(rows[i]);
        }
    }
    if (lost.empty()) {
        return;
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (landed[i]) {
            winners.try_emplace({rows[i].item->record.ns, rows[i].item->record.key}, i);
        }
    }
    const auto heads = heads_of(lease, lost, deadline);
    for (std::size_t i = 0, at = 0; i < rows.size(); ++i) {
        if (landed[i]) {
            continue;
        }
        const auto& record = rows[i].item->record;
        if (!heads) {
            results[i] = std::unexpected(heads.error().error);
        } else if (const auto won = winners.find({record.ns, record.key}); won != winners.end()) {
            // Items are carried out in order: what landed later was not there yet.
            const Row& winner = rows[won->second];
            results[i] = std::unexpected(conflict(
                rows[i], won->second < i ? winner.sequence : winner.item->expected_sequence));
        } else {
            results[i] = std::unexpected(conflict(rows[i], (*heads)[at].sequence));
        }
        ++at;
    }
}

std::vector<Result<std::uint64_t>> Writer::resolve(std::span<const Row> rows, Batch mode,
                                                   const Error& lost) {
    constexpr std::chrono::milliseconds kPause{20};
    const TimePoint deadline = from_now(timeout_);
    while (true) {
        auto results = resolve_once(rows, mode, deadline);
        if (results) {
            return *std::move(results);
        }
        if (from_now(kPause) >= deadline) {
            return Results(rows.size(), std::unexpected(unknown(lost, 0)));
        }
        std::this_thread::sleep_for(kPause);
    }
}

Reply<Writer::Results> Writer::resolve_once(std::span<const Row> rows, Batch mode,
                                            TimePoint deadline) {
    auto lease = pool_.take(deadline);
    if (!lease) {
        return std::unexpected(Trouble{.error = std::move(lease).error()});
    }
    auto landed = DEDUP_TRY(attempt(*lease, rows, mode, deadline));
    auto heads = DEDUP_TRY(heads_of(*lease, rows, deadline));
    // What was found may be visible and not replicated yet. A write behind it that is, is proof.
    auto proof =
        (*lease)->run({&statements_.saw_time, {number_parameter<std::int64_t>(0)}}, deadline);
    if (!proof || (*lease)->warned()) {
        return std::unexpected(proof ? Trouble{.error = {}} : std::move(proof).error());
    }
    const auto is_mine = [&](std::size_t i) {
        const Head& head = heads[i];
        const bool own_fence = rows[i].item->record.claim_sequence == 0;
        return landed[i] || head.sequence == rows[i].sequence ||
               (own_fence && head.fence == rows[i].sequence);
    };
    const auto has_lost = [&](std::size_t i) {
        return heads[i].sequence != 0 && heads[i].sequence < rows[i].sequence;
    };
    bool all_mine = false;
    bool none_mine = false;
    if (mode == Batch::atomic) {
        for (std::size_t i = 0; i < rows.size(); ++i) {
            all_mine = all_mine || is_mine(i);
            none_mine = none_mine || has_lost(i);
        }
    }
    const Error what{Code::unavailable, "the answer to it was lost, and the key has changed since"};
    Results results;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::uint64_t head = heads[i].sequence;
        if (all_mine || is_mine(i)) {
            results.emplace_back(rows[i].sequence);
        } else if (none_mine || has_lost(i)) {
            results.emplace_back(std::unexpected(conflict(rows[i], head)));
        } else {
            results.emplace_back(std::unexpected(unknown(what, head)));
        }
    }
    return results;
}

}  // namespace dedup::pg
