// The embedded engine. The parts:
//
//   append.cpp    group commit: callers queue, one of them leads
//   seal.cpp      starting a new segment, and sealing full ones in the background
//   creation.cpp  finding a store, and creating one
//   recovery.cpp  opening for writing
//   reading.cpp   opening for reading, and following a live writer
//   log_store.cpp lookups, histories, scans, statistics
//   sweep.cpp     sweeping: advancing the horizon, and the report
//   count.cpp     finding what a horizon removes
//   recount.cpp   what lies in a segment, entry by entry
//   next_expiry.cpp  when the next sweep has something to remove
//   damage.cpp    what of the log cannot be read
//   reclaim.cpp   dropping and compacting segments
//   verify.cpp    checking every frame and every catalog entry
//   repair.cpp    making a new store of what is intact in a damaged one
//   clock_reset.cpp  jumps of the clock in the log, and setting the store's time back
//
// Locks, in the order in which they may be taken:
//
//   sweep_mutex_  one sweep at a time
//   queue_mutex_  who leads the next group
//   flush_mutex_  between the leader and the flusher of Durability::async
//   catalog_mutex_  writing to the catalog, until the view shows it
//   view_mutex_   the view and its rows; never held during I/O, except by a read-only store that
//                 takes up what the writer has added
//   readers_      what lookups read: the view, and the newest delta
//
// What has no lock belongs to the leader: the one caller for whom committing_ is true.
//
// A forked child has a copy of all this, with locks that threads of the parent held and without
// those threads. So before any lock, a call looks whether it is in the process that opened the
// store (check_process). And a thread that is cancelled while it leads would leave the others
// waiting, so no call that locks or waits can be cancelled on its way (NoCancel); those that write
// can be before they begin.
//
// Memory may run out at every allocation. Three rules make that an error like others:
//   - Whoever others wait for answers them without allocating (run_leader, Finally, answered).
//   - What has been encoded and not written is forgotten, and the store goes on (abandon_work).
//   - From the first byte written until memory shows it, an Unfinished stands guard. Then only
//     opening the store again tells how far it came: the store takes no more writes, and writes
//     nothing more to the catalog, either.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "catalog/catalog.hpp"
#include "contract/capacity.hpp"
#include "contract/store_counters.hpp"
#include "dedup/log_store.hpp"
#include "engine/head_search.hpp"
#include "engine/reader_gates.hpp"
#include "engine/view.hpp"
#include "env/env.hpp"
#include "env/owned_mutex.hpp"
#include "env/process.hpp"
#include "log/segment_writer.hpp"

namespace dedup {

// The whole of an error when memory has run out: so short that a string holds it in itself.
inline constexpr const char* kOutOfMemory = "out of memory";
static_assert(std::string_view(kOutOfMemory).size() < 16);

// What tests set and nobody else.
struct LogStoreInternals {
    std::uint64_t catalog_map_bytes = kCatalogMapBytes;
    std::uint64_t id_mask = UINT64_MAX;
    bool* only_catalog = nullptr;  // becomes true if it is the catalog that keeps a reader out
    bool ignore_jumps = false;     // of the clock: while records are copied, or it is reset
    // How long a sweep waits for readers of segments that it removes together.
    std::chrono::milliseconds readers_wait{100};
    // Called before waiting for the sealer, after a change of the catalog, and before a reader
    // takes its first snapshot of that.
    std::function<void()> pause = [] {};
};

inline constexpr const char* kLockName = "LOCK";

// A store opens files as long as it is open: neither a change of the working directory nor of a
// symbolic link may take it to others.
[[nodiscard]] Result<Path> fixed_path(const Path& path);
// A file that only takes up room, to be removed when a sweep needs some.
inline constexpr const char* kReserveName = "reserve";
inline constexpr std::uint64_t kReserveBytes = 1024 * 1024;
// How many segments may wait to be sealed before appends wait for the sealer. A log with more of
// them is sealed piece by piece before it opens, so that memory stays bounded.
inline constexpr std::size_t kUnsealedMax = 4;

// Numbers of the unsealed segments at the moment when `sequence` was the last one applied.
struct TailNumbers {
    struct Part {
        std::shared_ptr<Unsealed> unsealed;
        Tally streams;
        std::size_t entries = 0;
        SegmentRow row;
    };
    std::uint64_t sequence = 0;
    std::vector<Part> parts;    // newest first
    SegmentTallies superseded;  // of all of them together
    SegmentTallies reclaimed;

    // Of one part. Of the streams that sweeps have removed, only those are left out that have begun
    // anew.
    [[nodiscard]] Census census(std::size_t part) const;
    // True only if `horizon` leaves no stream whose head is in this part.
    [[nodiscard]] bool removes_all(std::size_t part, const Horizon& horizon) const;
};

struct Recounted;

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
    Result<std::vector<Version>> history(StreamKey stream) override;
    Result<ScanPage> scan(const ScanOptions& options) override {
        return scan(options, OnDamage::stop);
    }
    Result<SweepReport> sweep(const SweepOptions& options) override;
    Result<std::vector<SweepReport>> sweep_history() override;
    Result<StoreStats> stats() override;
    StoreMetrics metrics() const override { return counters_.snapshot(); }
    Result<void> flush() override;
    Result<void> close() override;

    [[nodiscard]] Result<VerifyReport> verify(const Progress& progress);
    [[nodiscard]] Result<std::optional<ClockReset>> reset_clock();

  private:
    struct Request;
    struct Group;
    class Turn;
    class Commit;
    class Unfinished;
    friend class Salvage;

    LogStore(Env& env, Path path, const OpenOptions& options, const LogStoreInternals& internals);

    // creation.cpp
    // True if there is a store at `path`, false if one could be created there.
    [[nodiscard]] static Result<bool> find_store(Env& env, const Path& path);
    Result<void> sync_directories();
    Result<void> check_creatable() const;
    Result<void> create_files();
    Result<void> make_catalog();

    // recovery.cpp
    Result<void> take_lock();
    Result<void> open_for_writing();
    [[nodiscard]] Error missing_segment(std::uint64_t id) const;
    Result<std::vector<std::uint64_t>> list_segments() const;
    Result<void> open_catalog();
    [[nodiscard]] Error catalog_problem(std::string_view what) const;
    [[nodiscard]] std::uint64_t expected_bytes(const Segment& newest,
                                               std::uint64_t file_bytes) const;
    Result<std::shared_ptr<Unsealed>> replay_segment(std::uint64_t id, std::uint64_t bytes,
                                                     std::uint64_t& flushed);
    Result<void> check_log(const std::vector<std::uint64_t>& ids, const Unsealed& newest) const;
    // How the catalog goes with the manifest that holds.
    struct CatalogFit {
        std::optional<Error> problem;         // why it has to be made anew
        std::vector<std::uint64_t> given_up;  // rows of segments that are out of the log
    };
    struct FoundLog {
        std::shared_ptr<Unsealed> newest;
        std::uint64_t flushed = 0;  // of it, for certain
        CatalogFit catalog;
        SnapshotPtr sealed;
    };
    Result<CatalogFit> compare_catalog(const Unsealed& newest_segment);
    Result<SnapshotPtr> first_snapshot();
    Result<void> recover(const std::vector<std::uint64_t>& ids);
    Result<FoundLog> read_log(const std::vector<std::uint64_t>& ids);
    Result<void> resume_writing(const FoundLog& found);
    Result<void> update_catalog(FoundLog& found);
    Result<void> rebuild_catalog();
    Result<void> remove_leftovers();
    Result<void> finish_sweep();
    Result<void> make_bad_indexes();
    Result<void> replay_tail(SnapshotPtr snapshot, const std::shared_ptr<Unsealed>& newest);
    Result<void> inspect_newest(const Unsealed& newest);

    // reading.cpp
    Result<void> open_for_reading();
    Result<void> follow();
    Result<void> try_open_for_reading(std::vector<std::uint64_t>& ids);
    bool writer_went_on(const std::vector<std::uint64_t>& ids) const;
    Result<void> follow_catalog(SnapshotPtr& sealed);
    Result<void> take_up(Unsealed& newest);
    Result<std::uint64_t> next_segment(std::uint64_t previous_id);
    Result<bool> follow_segments(std::shared_ptr<View>& next);
    Result<bool> try_follow();

    // seal.cpp
    [[nodiscard]] std::uint64_t choose_segment_bytes(std::uint64_t log_bytes) const;
    Result<void> start_segment();
    Result<Census> census_to_seal(const Unsealed& oldest);
    Result<void> write_catalog(const std::function<Result<void>()>& write,
                               const AddedSegment& added = {});
    Result<void> wait_for_room();
    void seal_in_background();
    void seal_now();
    Result<void> seal(const Unsealed& oldest);
    [[nodiscard]] ViewPtr with_sealed(SnapshotPtr sealed) const;

    // append.cpp
    // Items of a batch for which the capacity has no room, and what they take.
    struct Refused {
        std::vector<std::size_t> items;
        std::vector<Room> wanted;  // of each; in an atomic batch, of all together
    };
    std::vector<Result<std::uint64_t>> append_once(std::span<const Append> batch, Batch mode,
                                                   Refused& refused);
    void make_room_and_append(std::span<const Append> batch, Batch mode, Refused refused,
                              std::vector<Result<std::uint64_t>>& results);
    Result<void> ready_to_write() const;
    Error fail(const Error& cause);
    // The error of memory that has run out. Whether anything was written is unknown, if the store
    // has failed.
    [[nodiscard]] Error out_of_memory() const noexcept;
    Error abandon_work() noexcept;
    template <class Work>
    auto answered(Work work) const -> decltype(work());
    Result<void> close_now();
    void run_leader(Group& group) noexcept;
    void expect_entries(const View& view, std::size_t entries);
    Result<void> lead(const std::function<Result<void>()>& work);
    void flush_in_background();
    Result<void> flush_written();
    Result<void> sync_written();
    Result<void> write_buffered(SegmentWriter& writer);
    Result<void> reserve_sequences();
    Result<void> write_mark(std::uint64_t sequence);
    Result<void> write_manifest(Manifest manifest, bool is_step = true);
    Result<void> write_now(FrameKind kind, std::string_view body, std::uint64_t sequence);
    Result<void> finish_writing();
    [[nodiscard]] std::string name() const;
    [[nodiscard]] Result<void> check_room(std::uint64_t pending_streams, const Room& wanted) const;

    // clock_reset.cpp
    Result<void> note_clock();
    Result<void> begin_clock(ClockHistory clock, std::int64_t time_ms);
    Result<void> finish_reset();
    Result<std::optional<Record>> put_right(const Record& head, const ClockReset& reset);
    void adopt_clock(const Manifest& manifest);
    [[nodiscard]] std::optional<SweepWithheld> why_withheld(const View& view,
                                                            const SweepOptions& options,
                                                            std::int64_t now_ms);
    [[nodiscard]] ClockHistory clock_as_seen();

    // sweep.cpp
    struct Now {
        ViewPtr view;
        TailNumbers tail;
    };
    // What a sweep does for the sake of an append.
    struct MakeRoom {
        Room evict;                   // so much at least, oldest completions first
        std::uint64_t log_bytes = 0;  // give back space until the log has so few; 0: as always
        Usage usage = {};             // filled in: of the store when the sweep is done
    };
    Result<SweepReport> sweep_locked(const SweepOptions& options, MakeRoom* room);
    Result<void> plan_sweep(const SweepOptions& options, SweepReport& report);
    Result<void> run_sweep(const SweepOptions& options, MakeRoom* room, SweepReport& report);
    [[nodiscard]] bool has_counted_all() const;
    Result<StateCounts> advance(const SweepOptions& options, const MakeRoom* room,
                                SweepReport& report);
    [[nodiscard]] std::uint64_t log_bytes(const View& view) const;
    Result<Horizon> next_horizon(const View& view, const SweepReport& report, const Room& evict);
    Result<std::uint64_t> oldest_completed(const View& view, Horizon horizon,
                                           const Room& evict) const;
    Result<Usage> usage();
    Result<void> set_horizon(Horizon to, Now& now, SweepReport& report);
    Result<void> finish_counting();
    Result<void> drop_given_up();
    void wait_for_readers(const std::shared_ptr<const Segment>& segment,
                          std::chrono::steady_clock::time_point until) const;
    void rest_beside_appends(std::uint64_t pause_us);
    Result<void> with_reserve(const std::function<Result<void>()>& work);
    void keep_reserve() const;
    Result<Room> make_room(std::span<const Room> wanted, std::uint64_t round);

    // count.cpp
    struct Count;
    using Found = std::function<Result<void>(const Located&)>;
    Result<Now> tail_now();
    [[nodiscard]] TailNumbers tail_numbers(const View& view) const;  // under view_mutex_
    Result<void> visit_entries(const SealedSegment& sealed,
                               const std::function<Result<void>(const IndexEntry&)>& visit) const;
    Result<void> visit_entries(const Unsealed& unsealed, std::size_t size,
                               const std::function<Result<void>(const IndexEntry&)>& visit) const;
    // The entries of one segment, sealed or not, as far as there were any when this was made.
    struct Entries {
        const Segment* segment = nullptr;
        const SealedSegment* sealed = nullptr;
        const Unsealed* unsealed = nullptr;  // the other one is null
        std::size_t size = 0;                // of those that are unsealed
        // Of the records, also of those that are gone.
        std::int64_t expires_min_ms = 0;
        std::int64_t expires_max_ms = 0;
        bool may_live = true;  // false: all are gone or superseded
    };
    [[nodiscard]] std::vector<Entries> all_entries(const View& view) const;
    Result<void> visit_entries(const Entries& entries,
                               const std::function<Result<void>(const IndexEntry&)>& visit) const;
    Result<bool> read_entry(const Segment& segment, const IndexEntry& entry, Located& at,
                            FrameBuffer& buffer) const;
    Result<void> try_read_entry(Located& at, FrameBuffer& buffer) const;
    Result<std::optional<Located>> follow_link(const View& view, const Link& link, StreamKey stream,
                                               FrameBuffer& buffer) const;
    static bool same_place(const Located& one, const Located& other);
    Result<std::optional<Located>> newest_of(const View& view, const Located& at,
                                             Candidates unsealed, FrameBuffer& buffer) const;
    Result<bool> was_head(const View& view, const Located& at, std::uint64_t as_of) const;
    Result<void> find_removed(const View& view, const Segment& segment, const IndexEntry& entry,
                              const Horizon& to, std::uint64_t as_of, const Found& found) const;
    Result<Tally> live_in_tail(const View& view, const TailNumbers& tail, std::size_t part,
                               const Horizon& to, const Found& found) const;
    Result<StateCounts> live_streams(const View& view, const TailNumbers& tail) const;
    Result<void> count(Count& count) const;
    Result<void> count_sealed(Count& count, const SealedSegment& sealed) const;
    std::function<Result<void>(const IndexEntry&)> offer_unanswered(Count& count,
                                                                    const Segment& segment) const;
    Result<void> count_tail(Count& count) const;

    // recount.cpp
    Result<Recounted> recount(const View& view, const SealedSegment& sealed, const Horizon& horizon,
                              std::uint64_t as_of) const;
    Result<void> check_counts(const Now& now, const SealedSegment& sealed,
                              std::vector<std::string>& problems) const;
    [[nodiscard]] bool may_show(const SealedSegment& sealed, const Horizon& horizon,
                                std::uint64_t live) const;

    // next_expiry.cpp
    Result<void> lower_expiry(const View& view, const Horizon& horizon, const Segment& segment,
                              const IndexEntry& entry, std::int64_t& best) const;
    Result<bool> removes_more(const View& view, const Horizon& next);
    Result<std::optional<std::int64_t>> next_expiry(const View& view, const Horizon& horizon) const;

    // damage.cpp
    Result<void> note_damage(const Segment& segment, std::uint64_t offset,
                             const Error& error) const;
    [[nodiscard]] bool has_damage(std::uint64_t segment_id) const;
    void forget_damage(std::span<const std::uint64_t> segment_ids);
    [[nodiscard]] std::pair<std::uint64_t, std::string> damage() const;

    // reclaim.cpp
    class Reclaim;

    // log_store.cpp
    [[nodiscard]] Error closed_error() const;
    [[nodiscard]] Result<void> check_process() const;
    [[nodiscard]] Error called_back_error(std::string_view call) const;
    [[nodiscard]] Error damaged_index(const SealedSegment& sealed) const;
    [[nodiscard]] Result<ViewPtr> view() const;
    void set_view(ViewPtr view);
    Result<void> follow_writer();
    [[nodiscard]] Result<ViewPtr> view_for_reading();
    static void prefetch_filters(const View& view, const StreamId& id);
    static Candidates probe(const View& view, const StreamId& id);
    [[nodiscard]] Candidates locked_probe(const View& view, const StreamId& id) const;
    void head_chunk(const View& view, std::span<const StreamKey> streams,
                    std::span<Result<std::optional<Record>>> results) const;
    void find_head(const View& view, StreamKey stream, HeadSearch& search,
                   Result<std::optional<Record>>& head) const;
    template <class Accept>
    Result<std::optional<Located>> find_newest(const View& view, const StreamId& id,
                                               Candidates unsealed, Accept accept) const;
    template <class Accept>
    Result<bool> find_newest(HeadSearch& search, Located& at, Accept accept) const;
    static Result<bool> find_in_frame(const Frame& frame, StreamKey stream, Located& at);
    static Result<bool> read_record(Located& at, StreamKey stream, FrameBuffer& buffer);
    Result<std::optional<Located>> find_older(const View& view, std::uint64_t before_segment,
                                              StreamKey stream, const Record& newer,
                                              FrameBuffer& buffer) const;
    // What a scan does about a record that cannot be read.
    enum class OnDamage : std::uint8_t {
        stop,  // gives its error
        pass,  // notes it, and goes on behind it
    };
    Result<bool> is_head(const View& view, const Located& at, OnDamage on_damage) const;
    Result<ScanPage> scan(const ScanOptions& options, OnDamage on_damage);
    Result<void> scan_segment(const View& view, const Segment& segment, std::uint64_t end,
                              const ScanOptions& options, OnDamage on_damage, std::uint64_t& offset,
                              ScanPage& page, std::uint64_t& budget) const;

    std::shared_ptr<Env> owned_env_;  // null: the caller's, which outlives the store
    const ProcessMark mark_;
    Env& env_;
    const Path path_;
    const Path log_path_;
    const Path catalog_path_;
    const OpenOptions options_;
    const LogStoreInternals internals_;
    Locator locator_;
    StoreId store_id_{};
    StoreCounters counters_;
    std::unique_ptr<Lock> lock_;
    std::shared_ptr<Catalog> catalog_;  // changed under view_mutex_ once the store is open

    OwnedMutex sweep_mutex_;  // also held while a sweep calls back
    // Guarded by sweep_mutex_:
    SweepState sweep_state_;               // as in the catalog
    std::vector<std::uint64_t> given_up_;  // not in the manifest any more, but in the catalog
    // How far sweeps have got with segments that are still there, by id.
    struct Compacted {
        std::uint64_t offset = kSegmentHeaderBytes;
        std::uint64_t moved = 0;  // records
    };
    std::map<std::uint64_t, Compacted> compacted_;
    // Of what this removes nothing is left, and a sealed segment has nothing that expires earlier.
    Horizon looked_to_;
    std::map<std::uint64_t, std::int64_t> looked_expires_min_ms_;
    std::atomic<std::int64_t> last_sweep_ms_{0};  // also of one that found nothing to do

    std::mutex catalog_mutex_;
    mutable std::mutex view_mutex_;
    ViewPtr view_;                          // changed by set_view only
    ReaderGates<View> readers_;             // gates taken after view_mutex_; guard the newest delta
    std::condition_variable sealer_wakes_;  // there is a full segment, or an end
    std::condition_variable room_;          // a segment has been sealed, or that failed
    std::string background_error_;
    std::string sweep_error_;
    bool sealer_stops_ = false;
    bool sealing_ = false;
    bool horizon_waits_ = false;  // for the sealer to finish a segment
    bool counting_ = false;       // a horizon has been set and not yet counted: nothing is sealed
    std::uint64_t applied_sequence_ = 0;  // of the last record that readers see
    std::thread sealer_;

    std::mutex queue_mutex_;
    std::condition_variable turn_;
    std::shared_ptr<Group> next_group_;
    bool committing_ = false;
    int waiting_leaders_ = 0;  // in lead()
    std::atomic<bool> closed_{false};
    std::once_flag close_once_;
    Result<void> close_result_;

    std::mutex flush_mutex_;
    std::condition_variable flusher_wakes_;
    bool flusher_stops_ = false;
    std::thread flusher_;

    // Read-only.
    std::mutex follow_mutex_;                    // one follower at a time; taken before view_mutex_
    ClockHistory followed_clock_;                // the writer's, as last taken up
    std::uint64_t followed_steps_ = UINT64_MAX;  // of the manifest that the view goes with
    // Of the catalog, before the log's segments were listed and none came behind the newest. (Not
    // the version that is shown: a segment may have come and gone before that.)
    std::uint64_t log_end_version_ = UINT64_MAX;

    // The leader's.
    std::unique_ptr<SegmentWriter> writer_;
    std::atomic<std::uint64_t> segment_bytes_{0};
    std::uint64_t next_sequence_ = 1;
    std::uint64_t reserved_sequence_ = 0;  // Durability::async: the last that a mark allows
    // The highest time that is in the log. (Atomic for a read-only store, which compares its clock
    // with it.)
    std::atomic<std::int64_t> written_time_ms_{0};
    std::uint64_t clock_noted_ = 0;  // what clock_changes() was when it was last written down
    Manifest manifest_;              // the one that holds
    bool records_since_mark_ = false;

    std::atomic<bool> failed_{false};
    std::atomic<bool> torn_{false};  // failed with memory behind what is on the disk
    mutable std::mutex failure_mutex_;
    std::string failure_ = kOutOfMemory;  // unless it could be told

    std::atomic<std::uint64_t> streams_{0};  // that no sweep has removed; if keys_max is set

    // What has been met so far that cannot be read, by segment and offset, and why.
    mutable std::mutex damage_mutex_;
    mutable std::map<std::pair<std::uint64_t, std::uint64_t>, std::string> damaged_places_;

    std::uint64_t torn_bytes_dropped_ = 0;
    bool catalog_rebuilt_ = false;
};

// Stands guard while memory does not show what is on the disk, or may be. If an exception ends its
// scope, the store fails.
class LogStore::Unfinished {
  public:
    explicit Unfinished(LogStore& store) noexcept
        : store_(store), exceptions_(std::uncaught_exceptions()) {}
    ~Unfinished();
    Unfinished(const Unfinished&) = delete;
    Unfinished& operator=(const Unfinished&) = delete;

  private:
    LogStore& store_;
    const int exceptions_;
};

// What `work` gives; its error if memory runs out in it.
template <class Work>
auto LogStore::answered(Work work) const -> decltype(work()) {
    try {
        return work();
    } catch (const std::bad_alloc&) {
        return std::unexpected(out_of_memory());
    }
}

// Looks from new to old for the record of a stream that `accept` recognises: accept(Located&)
// gives true for the stream, false for one that merely shares its id, or an error. What it has not
// read may be of another stream. `unsealed` is what probe() has found.
template <class Accept>
Result<std::optional<Located>> LogStore::find_newest(const View& view, const StreamId& id,
                                                     Candidates unsealed, Accept accept) const {
    HeadSearch search(view, id, std::move(unsealed));
    Located at;
    const Result<bool> found = find_newest(search, at, accept);
    if (!found) {
        return std::unexpected(found.error());
    }
    return *found ? std::optional(at) : std::nullopt;
}

// The same, of a search that has perhaps been begun, into `at`.
template <class Accept>
Result<bool> LogStore::find_newest(HeadSearch& search, Located& at, Accept accept) const {
    while (true) {
        const auto more = search.next(at);
        if (!more) {
            return std::unexpected(damaged_index(*more.error()));
        }
        if (!*more) {
            return false;
        }
        const Result<bool> accepted = accept(at);
        if (!accepted || *accepted) {
            return accepted;
        }
    }
}

}  // namespace dedup
