// The embedded engine. The parts:
//
//   append.cpp    group commit: callers queue, one of them leads
//   seal.cpp      starting a new segment, and sealing full ones in the background
//   recovery.cpp  opening for writing
//   reading.cpp   opening for reading, and following a live writer
//   log_store.cpp lookups, histories, scans, statistics
//   verify.cpp    checking every frame and every catalog entry
//   repair.cpp    making a new store of what is intact in a damaged one
//
// Locks, in the order in which they may be taken:
//
//   queue_mutex_  who leads the next group
//   flush_mutex_  between the leader and the flusher of Durability::async
//   view_mutex_   the view and its rows; never held during I/O, except by a read-only store that
//                 takes up what the writer has added
//   readers_      what lookups read: the view, and the newest delta
//
// What has no lock belongs to the leader: the one caller for whom committing_ is true.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "catalog/catalog.hpp"
#include "dedup/log_store.hpp"
#include "env/env.hpp"
#include "log/segment_writer.hpp"
#include "record/codec.hpp"
#include "store/reader_gates.hpp"
#include "store/unsealed.hpp"

namespace dedup {

// What tests set and nobody else.
struct LogStoreInternals {
    std::uint64_t catalog_map_bytes = kCatalogMapBytes;
    std::uint64_t id_mask = UINT64_MAX;
    bool tolerate_damage = false;  // at the end of the log, when reading: for verification
};

// How many segments may wait to be sealed before appends wait for the sealer. A log with more of
// them is sealed piece by piece before it opens, so that memory stays bounded.
inline constexpr std::size_t kUnsealedMax = 4;
// A frame is hardly ever smaller; a delta of this many entries a segment need not grow.
inline constexpr std::uint64_t kFrameBytesTypical = 128;

// What lookups see at one moment. Immutable, but for the newest delta.
struct View {
    std::vector<std::shared_ptr<Unsealed>> unsealed;  // newest first
    SnapshotPtr sealed;
};
using ViewPtr = std::shared_ptr<const View>;

// A record found in the log. The views live as long as the FrameBuffer that it was read with.
struct Located {
    const Segment* segment = nullptr;
    IndexEntry entry;
    Link link;
    RecordView record;
    std::uint64_t frame_bytes = 0;
};

// Entries with one id in the unsealed segments. Mostly there is at most one, which needs no
// allocation.
struct Candidate {
    const Segment* segment = nullptr;
    IndexEntry entry;
};
struct Candidates {
    Candidate newest;
    std::vector<Candidate> older;
};

class LogStore final : public StreamStore {
  public:
    [[nodiscard]] static Result<std::unique_ptr<LogStore>> open(
        Env& env, const Path& path, const OpenOptions& options,
        const LogStoreInternals& internals = {});
    ~LogStore() override;

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override;
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override;
    Result<std::vector<Version>> history(StreamKey stream) override;
    Result<ScanPage> scan(const ScanOptions& options) override;
    Result<StoreStats> stats() override;
    Result<void> flush() override;
    Result<void> close() override;

    [[nodiscard]] Result<VerifyReport> verify(const Progress& progress);

  private:
    struct Request;
    struct Group;
    class Turn;
    class Commit;
    friend class Salvage;

    LogStore(Env& env, Path path, const OpenOptions& options, const LogStoreInternals& internals);

    // recovery.cpp
    Result<void> take_lock();
    Result<void> open_for_writing();
    Result<void> open_for_reading();
    Result<void> sync_directories();
    Result<void> create_files();
    Result<void> make_catalog(CatalogMeta meta);
    [[nodiscard]] Error missing_segment(std::uint64_t id) const;
    Result<std::vector<std::uint64_t>> list_segments();
    Result<SnapshotPtr> open_catalog(const std::vector<std::uint64_t>& ids);
    Result<void> check_segment(const Segment& segment, std::uint64_t previous_id,
                               std::uint64_t previous_bytes) const;
    Result<void> recover(const std::vector<std::uint64_t>& ids);
    Result<void> inspect_newest(const Unsealed& newest);

    // reading.cpp
    Result<void> follow();
    Result<void> follow_catalog();
    Result<void> take_up(Unsealed& newest);
    Result<bool> follow_segments();

    // seal.cpp
    [[nodiscard]] std::uint64_t choose_segment_bytes(std::uint64_t log_bytes) const;
    Result<void> start_segment();
    Result<void> wait_for_room();
    void seal_in_background();
    Result<void> seal(const Unsealed& oldest);
    Result<void> resize_catalog(const std::function<Result<void>()>& resize);
    [[nodiscard]] ViewPtr without_sealed(SnapshotPtr sealed) const;

    // append.cpp
    Result<void> ready_to_write() const;
    Error fail(const Error& cause);
    void run_leader(Group& group);
    Result<void> lead(const std::function<Result<void>()>& work);
    void flush_in_background();
    Result<void> flush_written();
    Result<void> reserve_sequences();
    Result<void> write_mark(std::uint64_t sequence);
    Result<void> finish_writing();

    // log_store.cpp
    [[nodiscard]] Error closed_error() const;
    [[nodiscard]] Result<ViewPtr> view() const;
    void set_view(ViewPtr view);
    [[nodiscard]] Result<ViewPtr> view_for_reading();
    static Candidates probe(const View& view, const StreamId& id);
    [[nodiscard]] Candidates locked_probe(const View& view, const StreamId& id) const;
    void head_chunk(const View& view, std::span<const StreamKey> streams,
                    std::span<Result<std::optional<Record>>> results) const;
    template <class Accept>
    Result<std::optional<Located>> find_newest(const View& view, const StreamId& id,
                                               const Candidates& unsealed, Accept accept) const;
    static Result<bool> find_in_frame(const Frame& frame, StreamKey stream, Located& at);
    static Result<bool> read_record(Located& at, StreamKey stream, FrameBuffer& buffer);
    Result<bool> is_head(const View& view, const Located& at) const;
    Result<void> scan_segment(const View& view, const Segment& segment, std::uint64_t end,
                              const ScanOptions& options, std::uint64_t& offset, ScanPage& page,
                              std::uint64_t& budget) const;

    Env& env_;
    const Path path_;
    const Path log_path_;
    const Path catalog_path_;
    const OpenOptions options_;
    const LogStoreInternals internals_;
    Locator locator_;
    StoreId store_id_{};
    std::unique_ptr<Lock> lock_;
    std::unique_ptr<Catalog> catalog_;

    mutable std::mutex view_mutex_;
    ViewPtr view_;               // changed by set_view only
    ReaderGates<View> readers_;  // gates taken after view_mutex_; guard the newest delta
    bool resizing_ = false;      // the catalog's map is about to move, and view_ has no snapshot
    mutable std::condition_variable resized_;
    std::condition_variable sealer_wakes_;  // there is a full segment, or an end
    std::condition_variable room_;          // a segment has been sealed, or that failed
    std::string background_error_;
    bool sealer_stops_ = false;
    std::thread sealer_;

    std::mutex queue_mutex_;
    std::condition_variable turn_;
    std::shared_ptr<Group> next_group_;
    bool committing_ = false;
    int waiting_leaders_ = 0;  // in lead()
    std::atomic<bool> closed_{false};

    std::mutex flush_mutex_;
    std::condition_variable flusher_wakes_;
    bool flusher_stops_ = false;
    std::thread flusher_;

    // Read-only.
    std::mutex follow_mutex_;           // one follower at a time; taken before view_mutex_
    std::uint64_t finished_early_ = 0;  // where the newest segment seemed to end too early
    std::string damage_;                // what tolerate_damage tolerated

    // The leader's.
    std::unique_ptr<SegmentWriter> writer_;
    std::uint64_t segment_bytes_ = 0;
    std::uint64_t next_sequence_ = 1;
    std::uint64_t reserved_sequence_ = 0;  // Durability::async: the last that a mark allows
    std::int64_t written_time_ms_ = 0;     // the highest time that is in the log
    bool records_since_mark_ = false;

    std::atomic<bool> failed_{false};
    mutable std::mutex failure_mutex_;
    std::string failure_;

    std::uint64_t torn_bytes_dropped_ = 0;
    bool catalog_rebuilt_ = false;
};

// Looks from new to old for the record of a stream that `accept` recognises: accept(Located&)
// gives true for the stream, false for one that merely shares its id, or an error. `unsealed` is
// what probe() has found.
template <class Accept>
Result<std::optional<Located>> LogStore::find_newest(const View& view, const StreamId& id,
                                                     const Candidates& unsealed,
                                                     Accept accept) const {
    if (unsealed.newest.segment != nullptr) {
        for (std::size_t i = 0; i <= unsealed.older.size(); ++i) {
            const Candidate& candidate = i == 0 ? unsealed.newest : unsealed.older[i - 1];
            Located at;
            at.segment = candidate.segment;
            at.entry = candidate.entry;
            const Result<bool> accepted = accept(at);
            if (!accepted) {
                return std::unexpected(accepted.error());
            }
            if (*accepted) {
                return at;
            }
        }
    }
    const auto damaged = [&](const SealedSegment& sealed, std::string_view what) {
        return std::unexpected(
            Error{Code::corruption,
                  std::string(what) + " of segment " + std::to_string(sealed.row.id) + " in " +
                      catalog_path_.string() +
                      " is damaged; close the store and remove that directory: opening the store "
                      "for writing rebuilds it from the log"});
    };
    const auto& segments = view.sealed->segments();
    for (auto sealed = segments.rbegin(); sealed != segments.rend(); ++sealed) {
        const Presence presence = sealed->filter.test(id);
        if (presence == Presence::damaged) {
            return damaged(*sealed, "the filter");
        }
        if (presence == Presence::absent) {
            continue;
        }
        auto position = sealed->index.lower_bound(id);
        for (; position && *position < sealed->index.size(); ++*position) {
            const auto entry = sealed->index.entry(*position);
            if (!entry) {
                position.reset();
                break;
            }
            if (entry->id != id) {
                break;
            }
            Located at;
            at.segment = sealed->segment.get();
            at.entry = *entry;
            const Result<bool> accepted = accept(at);
            if (!accepted) {
                return std::unexpected(accepted.error());
            }
            if (*accepted) {
                return at;
            }
        }
        if (!position) {
            return damaged(*sealed, "the index");
        }
    }
    return std::nullopt;
}

}  // namespace dedup
