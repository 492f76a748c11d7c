// Carries out appends, and finds out what became of one whose answer was lost.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "dedup/store.hpp"
#include "postgres/head_rows.hpp"
#include "postgres/pool.hpp"

namespace dedup::pg {

// Stateless; for any thread.
//
// An append whose outcome is unknown is sent again with the same sequences. An earlier attempt that
// still runs holds it up, by the unique index or the row's lock, until that has ended; then the
// head says which of them it was. Sequences rise within a stream, so a head below the own sequence
// says that the append has lost, and one above it says nothing.
class Writer {
  public:
    Writer(Pool& pool, const Statements& statements, std::chrono::milliseconds timeout)
        : pool_(pool), statements_(statements), timeout_(timeout) {}

    // One result a row, in their order: its sequence, or why it was not appended. Items of an
    // atomic batch name different streams. The deadline is that of the first 64 MiB; each 64 MiB
    // more have `timeout`. So has finding out what became of some whose answer was lost.
    [[nodiscard]] std::vector<Result<std::uint64_t>> write(Lease lease, std::span<const Row> rows,
                                                           Batch mode, TimePoint deadline);

  private:
    struct Head {
        std::uint64_t sequence = 0;
        std::uint64_t fence = 0;
    };
    using Results = std::vector<Result<std::uint64_t>>;
    using Numbers = std::vector<std::size_t>;  // of rows

    [[nodiscard]] Results write_chunk(Lease& lease, std::span<const Row> rows, Batch mode,
                                      TimePoint deadline);
    // The rows in halves, and so on, where one of them is held by somebody's transaction: the
    // others need not wait for it.
    [[nodiscard]] Results write_halves(Lease& lease, std::span<const Row> rows, TimePoint deadline);
    [[nodiscard]] Results settle(Lease& lease, std::span<const Row> rows, Batch mode,
                                 Reply<std::vector<bool>> landed, TimePoint deadline);
    // Which rows landed. Unknown if the server has warned. `hurries`: for locks it waits a moment.
    [[nodiscard]] Reply<std::vector<bool>> attempt(Lease& lease, std::span<const Row> rows,
                                                   Batch mode, TimePoint deadline,
                                                   bool hurries = false);
    [[nodiscard]] Reply<std::vector<bool>> attempt_atomic(Lease& lease,
                                                          std::span<const Query> queries,
                                                          std::span<const Row> rows,
                                                          TimePoint deadline);
    [[nodiscard]] Reply<std::vector<Head>> heads_of(Lease& lease, std::span<const Row> rows,
                                                    TimePoint deadline);
    void explain_losers(Lease& lease, std::span<const Row> rows, const std::vector<bool>& landed,
                        Results& results, TimePoint deadline);
    [[nodiscard]] Results resolve(std::span<const Row> rows, Batch mode, const Error& lost);
    [[nodiscard]] Reply<Results> resolve_once(std::span<const Row> rows, Batch mode,
                                              TimePoint deadline);

    Pool& pool_;
    const Statements& statements_;
    std::chrono::milliseconds timeout_;
};

}  // namespace dedup::pg
