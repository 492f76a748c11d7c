// The contract of a stream store, whichever engine keeps it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dedup/error.hpp"
#include "dedup/metrics.hpp"
#include "dedup/record.hpp"
#include "dedup/store_clock.hpp"
#include "dedup/sweep.hpp"

namespace dedup {

class Waiters;

inline constexpr std::size_t kBatchItemsMax = 65'535;                  // in one append
inline constexpr std::size_t kAtomicBatchBytesMax = 64 * 1024 * 1024;  // encoded

// Names a stream. The bytes need to live for the call only.
struct StreamKey {
    std::string_view ns;
    std::string_view key;
};

// One item of a batch: "append `record` if the head of its stream is still `expected_sequence`".
// The stream is the record's ns and key; an empty or swept stream has head 0. The store assigns
// record.sequence; a record.claim_sequence of 0 becomes the assigned sequence.
struct Append {
    std::uint64_t expected_sequence = 0;
    Record record;
    bool flush = false;  // durable when append() returns, with Durability::async, too
};

enum class Batch : std::uint8_t {
    each,    // items succeed or fail each on its own, in order
    atomic,  // all items are appended, or none; no stream may be named twice
};

// A record and where it lies. Stores without files give segment 0.
struct Version {
    Record record;
    std::uint64_t segment = 0;
    std::uint64_t offset = 0;  // of the frame, in bytes from the start of the segment
    std::uint64_t bytes = 0;   // of the frame that holds the record
};

// How much of a stream's history is read at most: going back from its head, the version that
// reaches one of these is the last.
struct HistoryLimits {
    std::size_t versions_max = SIZE_MAX;  // at least 1
    std::size_t bytes_max = SIZE_MAX;     // of receipts and metadata
};

struct ScanOptions {
    std::string ns = {};           // empty: every namespace
    std::string key_prefix = {};   // empty: every key
    std::string cursor = {};       // empty: from the start; else ScanPage::cursor of the last page
    std::size_t heads_max = 1000;  // per page; at least 1. The rest of an atomic batch may follow
};

struct ScanPage {
    std::vector<Version> heads;
    std::string cursor;  // empty: that was all. A page may have few or no heads and a cursor.
};

// How much a store may hold. 0: no limit. At a limit, appends that would begin a new stream get
// out_of_space, and all others still succeed: what is in flight can always be completed.
struct Capacity {
    std::uint64_t keys_max = 0;   // streams, expired ones that no sweep has removed included
    std::uint64_t bytes_max = 0;  // of the log; what is in flight may go beyond it
    // At a limit the append sweeps first, which removes what has expired. If that gives no room, it
    // removes completed streams, those with the oldest head first: as many as it needs and, where
    // there are more, a sixty-fourth of keys_max or a sixteenth of bytes_max beyond, so that not
    // every append has to. Streams in flight and released ones are never evicted. Such a sweep's
    // report stands in sweep_history(). An append that would have no room even without all
    // completed streams gets out_of_space at once and evicts nothing. Namespaces share the limit: a
    // busy one evicts the receipts of others, so tenants that must not need a store each.
    bool evict_oldest = false;
};

struct StoreStats {
    std::string store_id;         // 32 hex digits, random, given when the store was created
    std::uint64_t in_flight = 0;  // streams by the state of their head, expired ones included
    std::uint64_t completed = 0;
    std::uint64_t released = 0;
    // All versions, superseded ones included where the engine keeps them.
    std::uint64_t records = 0;
    // The highest sequence that may have been assigned; 0 in a new store. Where sequences are set
    // aside in blocks (asynchronous durability, databases) that is the last one set aside.
    std::uint64_t last_sequence = 0;
    std::int64_t time_high_ms = 0;  // the highest time that the store has seen
    // What its clock said when this was asked for. If that is less, the clock was wrong, or is.
    std::int64_t clock_ms = 0;
    ClockHistory clock;                     // jumps and resets
    std::optional<SweepWithheld> withheld;  // why a sweep would remove nothing now
    std::uint64_t segments_sealed = 0;
    std::uint64_t segments_unsealed = 0;
    std::uint64_t log_bytes = 0;      // of all segments
    std::uint64_t catalog_bytes = 0;  // in use
    std::uint64_t tail_bytes = 0;     // of the unsealed segments: what a recovery replays
    std::uint64_t memory_bytes = 0;   // held by the store's own tables
    // What the last opening had to mend.
    std::uint64_t torn_bytes_dropped = 0;
    bool catalog_rebuilt = false;
    std::string background_error;  // why the last background work failed; empty if it did not
    // Why the store takes no more writes since one has failed; empty: it takes them. Opened again,
    // it does.
    std::string write_error;
    std::uint64_t evicted = 0;       // completed streams, since the store was created
    std::int64_t last_sweep_ms = 0;  // SweepReport::now_ms of the last sweep; 0: none yet
    std::string sweep_error;         // why the last sweep failed; empty if it did not
    // As in SweepReport: what this store has met since it was opened and could not read.
    std::uint64_t damaged = 0;
    std::string damage;

    [[nodiscard]] std::uint64_t streams() const { return in_flight + completed + released; }
};

// A durable map from (namespace, key) to a stream of records. All functions may be called from
// any thread. No function blocks for longer than its own I/O and that of the group it joins.
class DEDUP_API StreamStore {
  public:
    virtual ~StreamStore() = default;
    StreamStore(const StreamStore&) = delete;
    StreamStore& operator=(const StreamStore&) = delete;

    // Appends each item of `batch` whose expected sequence is the head's, and returns one result
    // an item: the assigned sequence, or why the item was not appended. Of all appends, from any
    // thread, that name one stream and one expected sequence, exactly one succeeds. When this
    // returns, what succeeded is durable as the store's options say, and visible to readers.
    // An atomic batch in which any item fails appends nothing: if an item cannot be appended
    // whatever the heads are, all items get its error; if a head is not the expected one, all get
    // sequence_conflict, each with the head of its own stream.
    // Errors an item: sequence_conflict (head_sequence is set), invalid_argument, out_of_space,
    // read_only, closed, failed, outcome_unknown (the flush failed, or memory ran out behind the
    // write), corruption, io. std::bad_alloc: nothing of the batch has been appended.
    [[nodiscard]] virtual std::vector<Result<std::uint64_t>> append(std::span<const Append> batch,
                                                                    Batch mode = Batch::each) = 0;

    // The newest record of each stream, whatever its state or age; nullopt if there is none.
    // Errors an item: invalid_argument (no stream can have this name), closed, corruption, io.
    [[nodiscard]] virtual std::vector<Result<std::optional<Record>>> heads(
        std::span<const StreamKey> streams) = 0;

    // As heads, for one stream.
    [[nodiscard]] virtual Result<std::optional<Record>> head(StreamKey stream) {
        return std::move(heads({&stream, 1}).front());
    }

    // All records of a stream that are still stored, oldest first; the last is the stream's head.
    // Those that sweeps have dropped are missing, also between two that are there. An engine need
    // not keep any but the head. Within `limits`, the newest ones.
    [[nodiscard]] virtual Result<std::vector<Version>> history(
        StreamKey stream, const HistoryLimits& limits = {}) = 0;

    // The heads of all streams, a page at a time, in the store's own order: that of the log, or of
    // a table's key. A stream that does not change
    // between the first page and the last is given exactly once; one that changes, or that a sweep
    // moves or removes, meanwhile, may be given again or not any more. No other is left out.
    [[nodiscard]] virtual Result<ScanPage> scan(const ScanOptions& options) = 0;

    // Removes the streams whose head has expired, gives back space, and says exactly what went. A
    // removed stream is as if it had never been: its head sequence is 0 again, and a claim of it
    // from before stays dead, as sequences are never used again. One sweep runs at a time; a
    // second caller waits. A dry run also works on a store that is open read-only.
    // Appends and reads go on meanwhile.
    // Errors: closed, read_only, failed, corruption, io, out_of_space, busy (called from within the
    // progress of a sweep). What had been counted before
    // the error stays removed; its report is in sweep_history() and says `interrupted`.
    [[nodiscard]] virtual Result<SweepReport> sweep(const SweepOptions& options = {}) = 0;

    // The reports of the last 100 sweeps that removed or gave back anything, newest first.
    [[nodiscard]] virtual Result<std::vector<SweepReport>> sweep_history() = 0;

    [[nodiscard]] virtual Result<StoreStats> stats() = 0;

    // What this object has done since it was opened; also after close(). Cheap: reads no disk.
    // (All zeros from a store that does not count.)
    [[nodiscard]] virtual StoreMetrics metrics() const { return {}; }

    // Makes every append that was acknowledged before this call durable. With Durability::sync
    // they already are.
    [[nodiscard]] virtual Result<void> flush() = 0;

    // Flushes and gives up all files and locks. Later calls get Code::closed; closing again gives
    // the same result again. A second caller waits until the first has closed. The destructor
    // closes too, but cannot say what failed.
    // Errors: busy (called from within the progress of a sweep; nothing is closed), those of flush.
    [[nodiscard]] virtual Result<void> close() = 0;

    // Whether reading heads takes about as long as appending, as where both are a request to
    // another machine. Whoever begins a stream that is probably new may then append at once, and
    // read where that conflicts.
    [[nodiscard]] virtual bool reads_are_remote() const { return false; }

    // The store's time: its clock's, but never less than the highest that it has seen.
    [[nodiscard]] std::int64_t now_ms() { return time_.now_ms(); }

    [[nodiscard]] std::chrono::milliseconds grace() const { return time_.grace(); }

  protected:
    StreamStore(Clock clock, std::chrono::milliseconds grace,
                StoreClock::Jumps jumps = StoreClock::Jumps::withhold);
    // For a store around another one, which outlives it: its time is that one's, and who waits for
    // a key of the one is woken by a decision through the other.
    explicit StreamStore(StreamStore& inner);

    StoreClock time_;
    std::shared_ptr<Waiters> waiters_;  // callers of Cache::wait, and Async's; never null

  private:
    friend struct CacheInside;
};

}  // namespace dedup
