// The store: what all its parts share.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "contract/capacity.hpp"
#include "contract/store_counters.hpp"
#include "contract/sweep_tally.hpp"
#include "dedup/postgres_store.hpp"
#include "env/process.hpp"
#include "postgres/append_queue.hpp"
#include "postgres/head_rows.hpp"
#include "postgres/pool.hpp"
#include "postgres/statements.hpp"
#include "postgres/target.hpp"
#include "postgres/writer.hpp"

namespace dedup::pg {

class PostgresStore;

inline constexpr int kScanTimes = 60;
// Of a sweep: a tenth of a second. The smaller a batch, the more of it goes into finding its
// beginning.
inline constexpr std::int64_t kBatchRowsMax = 50'000;

// Where the store's time comes from. A time that looks like a jump is first held against what other
// clients have seen: this one may only have slept.
struct TimeSource {
    Clock given;  // empty: the server's
    ServerClock server;
    std::atomic<PostgresStore*> store = nullptr;

    [[nodiscard]] std::int64_t now_ms();
};

// Threads: any, for every function of the contract. Callers of append queue; a leader
// writes what all in its group want in one transaction, over one connection. Locks are held while
// nothing is waited for but each other, except room_mutex_, sweep_mutex_ and sequences_mutex_,
// which are held during requests to the server, in this order.
class PostgresStore final : public StreamStore {
  public:
    PostgresStore(Target target, std::shared_ptr<TimeSource> time);
    ~PostgresStore() override;
    // In a forked child nothing of the parent's store is destroyed.
    static void operator delete(PostgresStore* store, std::destroying_delete_t) {
        delete_unless_inherited(store, store->process_);
    }

    // Connects, and reads what the store is. Errors: as open_postgres.
    [[nodiscard]] Result<void> begin();

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override;
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override;
    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override;
    Result<ScanPage> scan(const ScanOptions& options) override;
    Result<SweepReport> sweep(const SweepOptions& options) override;
    Result<std::vector<SweepReport>> sweep_history() override;
    Result<StoreStats> stats() override;
    StoreMetrics metrics() const override { return counters_.snapshot(); }
    // Not where an append may be refused though the stream is there.
    bool reads_are_remote() const override { return !target_.options.read_only && !bounded(); }
    Result<void> flush() override;
    Result<void> close() override;

    // Raises the store's time to what its other clients have seen. False: the server is away.
    [[nodiscard]] bool learn_time();
    [[nodiscard]] bool looks_like_jump(std::int64_t time_ms) const {
        return time_.would_jump(time_ms);
    }
    [[nodiscard]] std::int64_t highest_time_ms() { return time_.saw_time(0); }

  private:
    // An item of a group, and where its result goes.
    struct Pending {
        const Append* item = nullptr;
        Result<std::uint64_t>* result = nullptr;
    };
    // Counts a call as running, so that close() waits for it.
    class Call;
    struct Sweeping;  // one sweep, see sweeping.hpp
    struct Batches;   // of what it removes, see remove.cpp

    // What keeps a call from running at all.
    [[nodiscard]] std::optional<Error> unusable(bool writes) const;
    [[nodiscard]] TimePoint deadline() const {
        return std::chrono::steady_clock::now() + target_.options.timeout;
    }

    // How old a block of sequences, and what is known of the server's clock, may become.
    [[nodiscard]] std::chrono::milliseconds age_max() const {
        return std::max(grace() / 2, std::chrono::milliseconds(100));
    }

    // append.cpp
    void carry_out(Request& group) noexcept;
    void write_each(Request& group);
    void write_atomic(Request& request);
    void write(std::span<const Pending> items, Batch mode);
    void write_once(std::span<const Pending> items, Batch mode, TimePoint until);
    void forget_block();
    [[nodiscard]] Result<std::uint64_t> take_sequences(Lease& lease, std::size_t count,
                                                       std::uint64_t above, TimePoint until);
    [[nodiscard]] Result<void> take_block(Lease& lease, TimePoint until);
    [[nodiscard]] Result<void> note_time(Lease& lease, std::span<const Pending> items,
                                         TimePoint until);
    [[nodiscard]] Result<void> write_clock(Lease& lease, TimePoint until);
    void take_meta(const Table& meta);

    // room.cpp
    [[nodiscard]] bool bounded() const {
        return target_.options.capacity.keys_max != 0 || target_.options.capacity.bytes_max != 0;
    }
    void write_bounded(std::span<const Pending> items);
    [[nodiscard]] Result<void> room_for_all(std::span<const Pending> items, Room& wanted);
    [[nodiscard]] Result<void> make_room(const Room& wanted);
    [[nodiscard]] Result<Usage> count_usage(std::int64_t now_ms);
    [[nodiscard]] Result<std::vector<bool>> which_begin(std::span<const Pending> items);

    // sweep.cpp
    // The caller has sweep_mutex_.
    [[nodiscard]] Result<SweepReport> run_sweep(const SweepOptions& options, const Room& evicted);
    [[nodiscard]] Result<void> count_retained(Sweeping& sweeping);
    [[nodiscard]] Result<void> finish_sweep(Sweeping& sweeping);
    [[nodiscard]] std::int64_t sweep_time(const SweepOptions& options);

    // remove.cpp
    [[nodiscard]] Result<void> rehearse(Sweeping& sweeping);
    [[nodiscard]] Result<void> remove(Sweeping& sweeping, const Room& evicted);
    [[nodiscard]] Result<void> remove_expired(Sweeping& sweeping, std::int64_t floor);
    [[nodiscard]] Result<void> evict(Sweeping& sweeping, Room wanted, std::int64_t floor);
    [[nodiscard]] bool adapt(Batches& batches, const Trouble& trouble);
    [[nodiscard]] Reply<Table> remove_batch(Sweeping& sweeping, const Query& removal, bool evicted);
    [[nodiscard]] Reply<Table> try_batch(Lease& lease, Sweeping& sweeping, const Query& removal);

    // One request that only reads. Tries again on another connection if one was lost.
    // `times`: what goes through the whole table may take so many times as long.
    [[nodiscard]] Result<Table> read(const Query& query, int times = 1);
    [[nodiscard]] Result<Table> read_meta();
    [[nodiscard]] Result<void> read_heads(std::span<const StreamKey> asked,
                                          std::span<const std::size_t> places,
                                          std::vector<Result<std::optional<Record>>>& heads);

    const Target target_;
    const Statements statements_;
    const std::shared_ptr<TimeSource> source_;
    const ProcessMark process_;
    mutable Pool pool_;
    Writer writer_;
    StoreCounters counters_;
    std::string store_id_;

    mutable std::mutex calls_mutex_;  // guards the three below
    mutable std::condition_variable calls_changed_;
    mutable std::size_t calls_ = 0;
    bool closing_ = false;

    AppendQueue queue_;

    std::mutex sequences_mutex_;  // guards the block
    std::uint64_t next_sequence_ = 0;
    std::uint64_t block_end_ = 0;
    std::uint64_t block_generation_ = 0;  // of the pool when the block was taken
    TimePoint block_taken_;

    std::mutex clock_mutex_;  // guards the three below
    std::atomic<std::int64_t> written_time_ms_{0};
    std::uint64_t written_changes_ = 0;
    std::int64_t clock_version_ = 0;

    std::mutex room_mutex_;  // guards held_ and counted_
    Room held_;
    std::optional<TimePoint> counted_;

    std::mutex sweep_mutex_;  // one sweep at a time in this process; guards batch_rows_
    std::int64_t batch_rows_ = kBatchRowsMax;
    std::atomic<std::thread::id> sweeper_;
    std::mutex error_mutex_;
    std::string sweep_error_;
};

}  // namespace dedup::pg
