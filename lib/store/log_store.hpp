// The embedded engine, as its users see it. It is put together from rooms, each of which holds its
// state and that state's lock:
//
//   - Reader: reads a view (heads, histories, links). For any thread.
//   - ShownView: the view, and the numbers that go with it. Its lock; lookups go through gates.
//   - StoreCatalog: the catalog, and writing to it. Its locks.
//   - CommitQueue: who has the turn, the right to write. Its lock.
//   - LogWriter: the newest segment, sequences, the manifest. The turn; a lock for flushes.
//   - Sealer: moves full segments' indexes into files. Its lock; its own thread.
//   - SweepPlanner, LogSweep: horizon, counts, space. The planner's mutex.
//   - Follower: what a writer has added, in a read-only store. Its lock.
//
// Locks, in the order in which they may be taken:
//
//   the planner's mutex, the turn, LogWriter's lock for flushes, StoreCatalog's lock for writing,
//   the follower's lock, the view's, the gates; the others are taken alone, under any of these.
//   (Only close() has the last turn when it waits for a sweep: the queue refuses that by then.)
//
// A forked child has a copy of all this, with locks that threads of the parent held and without
// those threads. So before any lock, a call looks whether it is in the process that opened the
// store. And a thread that is cancelled while it has the turn would leave the others waiting, so no
// call that locks or waits can be cancelled on its way (NoCancel); those that write can be before
// they begin.
#pragma once

#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <vector>

#include "dedup/log_store.hpp"
#include "engine/log_clock.hpp"
#include "engine/reader.hpp"
#include "engine/scan.hpp"
#include "engine/store_catalog.hpp"
#include "store/engine.hpp"
#include "store/follower.hpp"
#include "store/recover.hpp"

namespace dedup {

class LogStore final : public StreamStore {
  public:
    [[nodiscard]] static Result<std::unique_ptr<LogStore>> open(
        Env& env, const Path& path, const OpenOptions& options,
        const LogStoreInternals& internals = {});
    // The same with the system's files.
    [[nodiscard]] static Result<std::unique_ptr<LogStore>> open(
        const Path& path, const OpenOptions& options, const LogStoreInternals& internals = {});
    ~LogStore() override;
    // In a forked child nothing of the parent's store is destroyed.
    static void operator delete(LogStore* store, std::destroying_delete_t);

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override;
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override;
    Result<std::optional<Record>> head(StreamKey stream) override;
    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override;
    Result<ScanPage> scan(const ScanOptions& options) override;
    Result<SweepReport> sweep(const SweepOptions& options) override;
    Result<std::vector<SweepReport>> sweep_history() override;
    Result<StoreStats> stats() override;
    StoreMetrics metrics() const override { return context_.counters.snapshot(); }
    Result<void> flush() override;
    Result<void> close() override;

    // Sets the store's time back to what its clock says; nullopt if that is not earlier. While
    // nobody else uses the store.
    [[nodiscard]] Result<std::optional<ClockReset>> reset_clock();

    // For verification and repair. What their writer has done is taken up by a read-only store.
    [[nodiscard]] Result<void> take_up() { return follow_writer(); }
    [[nodiscard]] StoreContext& context() { return context_; }
    [[nodiscard]] const Reader& reader() const { return reader_; }
    [[nodiscard]] StoreCatalog& catalog() { return catalog_; }
    [[nodiscard]] Engine& engine() { return *engine_; }  // open for writing

  private:
    LogStore(Env& env, const Path& path, const OpenOptions& options,
             const LogStoreInternals& internals);

    Result<void> open_for_writing();
    Result<void> start_threads();
    Result<void> follow_writer();
    Result<void> finish_reset();
    Result<std::optional<Record>> put_right(const Record& head, const ClockReset& reset);
    Result<void> close_once();
    Result<void> close_engine();

    std::shared_ptr<Env> owned_env_;  // null: the caller's, which outlives the store
    StoreContext context_;
    ShownView shown_;
    const Reader reader_;
    StoreCatalog catalog_;
    LogClock log_clock_;
    SweepPlanner planner_;
    std::unique_ptr<Engine> engine_;      // null: open for reading
    std::unique_ptr<Follower> follower_;  // null: open for writing
    Recovered recovered_;

    std::once_flag closed_once_;
    Result<void> close_result_;
};

}  // namespace dedup
