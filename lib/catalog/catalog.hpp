// The catalog: what is known about sealed segments. What never changes lies in a file beside each
// of them (index_file.hpp), and what does in LMDB. All of it can be rebuilt from the log.
// docs/format.md describes the tables.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "catalog/lmdb_env.hpp"
#include "index/absent_ids.hpp"
#include "index/census.hpp"
#include "index/filter.hpp"
#include "index/index_file.hpp"
#include "index/sealed_index.hpp"
#include "index/segment_row.hpp"
#include "log/manifest.hpp"
#include "log/segment.hpp"
#include "log/stream_id.hpp"

namespace dedup {

inline constexpr std::uint32_t kCatalogVersion = 2;  // 1 had the indexes, too
// Address space, not memory or disk: LMDB maps this much and uses what it needs. The map doubles
// should the catalog ever outgrow it.
inline constexpr std::uint64_t kCatalogMapBytes = std::uint64_t{64} << 30;

struct CatalogMeta {
    StoreId store_id{};
    HashSecret secret{};
};

// What the catalog knows of sweeps. The layout on disk is this structure, followed by its checksum.
struct SweepState {
    std::uint64_t steps = 0;    // of the last manifest that it has followed; see Manifest
    Horizon counted;            // what this removes has been counted and reported
    std::uint64_t evicted = 0;  // completed streams, since the store was created
    std::int64_t last_sweep_ms = 0;
    std::uint64_t reports = 0;  // so far; the last kReportsMax are kept

    bool operator==(const SweepState&) const = default;
};
static_assert(sizeof(SweepState) == 7 * 8);

inline constexpr std::uint64_t kReportsMax = 100;

// What a count has found in one sealed segment.
struct Counted {
    Tally removed;
    std::optional<Tally> superseded = {};  // replaces what the census says
    std::int64_t expires_min_ms = 0;
};

// A sealed segment as a snapshot shows it.
struct SealedSegment {
    SegmentRow row;
    SealedIndex index;
    Filter filter;                              // in the memory of its run
    JointFilter joint;                          // of its run; without data if that has none
    std::shared_ptr<const std::string> census;  // encoded
    std::shared_ptr<const Segment> segment;
    std::shared_ptr<const IndexFile> file;  // which `index` lies in
};

// Segments whose ids differ in their lowest bits only. When the last of them is sealed, they get a
// joint filter, which they have as long as half of their streams are there.
inline constexpr std::uint64_t kRunSegments = 16;

[[nodiscard]] constexpr std::uint64_t run_of(std::uint64_t segment_id) {
    return segment_id / kRunSegments;
}

// The filters of those that a snapshot shows: segments[begin], and so on.
struct SealedRun {
    std::uint64_t number = 0;
    std::size_t begin = 0;
    std::shared_ptr<const FilterRun> filters;
};

// The catalog at one moment. It keeps the files open that it shows, and nothing of LMDB's.
// Immutable but for what it remembers; any number of threads may use one.
class CatalogSnapshot {
  public:
    // `version` and `lmdb_bytes` are of the transaction that it was read in.
    CatalogSnapshot(std::uint64_t version, std::uint64_t lmdb_bytes,
                    std::vector<SealedSegment> segments, std::vector<SealedRun> runs)
        : version_(version),
          lmdb_bytes_(lmdb_bytes),
          segments_(std::move(segments)),
          runs_(std::move(runs)) {}

    // Oldest first, both.
    [[nodiscard]] const std::vector<SealedSegment>& segments() const { return segments_; }
    [[nodiscard]] const std::vector<SealedRun>& runs() const { return runs_; }
    // The segment with this id; nullptr if it is not there.
    [[nodiscard]] const SealedSegment* find(std::uint64_t id) const;
    [[nodiscard]] std::uint64_t filter_bytes() const;
    [[nodiscard]] std::uint64_t version() const { return version_; }
    [[nodiscard]] std::uint64_t lmdb_bytes() const { return lmdb_bytes_; }
    // Of LMDB's file and the index files.
    [[nodiscard]] std::uint64_t used_bytes() const;
    // Ids that have turned out to be in none of the indexes.
    [[nodiscard]] AbsentIds& absent() const { return absent_; }

  private:
    std::uint64_t version_;
    std::uint64_t lmdb_bytes_;
    std::vector<SealedSegment> segments_;
    std::vector<SealedRun> runs_;
    mutable AbsentIds absent_;
};

using SnapshotPtr = std::shared_ptr<const CatalogSnapshot>;

// Writes the index of a segment that is sealed, with the joint filter of its run if it is the last
// of that, and opens it; `sealed` are those that have been before. `entries` are sorted by id, and
// row.entries of them.
// Errors: as write_index_file, and those of opening.
[[nodiscard]] Result<std::shared_ptr<const IndexFile>> write_index(
    Env& env, const Path& log, const CatalogMeta& meta, const SegmentRow& row,
    std::span<const IndexEntry> entries, std::span<const SealedSegment> sealed);

// The open files of a segment that is being sealed.
struct AddedSegment {
    std::shared_ptr<const Segment> segment;  // as it was written
    std::shared_ptr<const IndexFile> index;
};

class Catalog {
  public:
    // Creates a catalog in directory `path` for an empty store.
    [[nodiscard]] static Result<std::unique_ptr<Catalog>> create(
        Env& env, const Path& path, const CatalogMeta& meta,
        std::uint64_t map_bytes = kCatalogMapBytes);

    // For the process that holds the store's lock.
    // Errors: corruption (missing, damaged or incomplete), unsupported_version, io.
    [[nodiscard]] static Result<std::unique_ptr<Catalog>> open(
        const Path& path, std::uint64_t map_bytes = kCatalogMapBytes);
    // For any number of others, who need the right to read only. What they see of it is a copy.
    // Errors: corruption, unsupported_version, io, unavailable.
    [[nodiscard]] static Result<std::unique_ptr<Catalog>> open_for_reading(Env& env,
                                                                           const Path& path);

    // What open() would give as meta(), from the bytes of a file that may be damaged or cut: found
    // by its checksum, wherever it lies. Reads the file and nothing else.
    [[nodiscard]] static std::optional<CatalogMeta> find_meta(File& file);

    [[nodiscard]] const CatalogMeta& meta() const { return meta_; }

    // The catalog as it is now. Open files are taken over from `previous` where it has them, and
    // opened in directory `log` of `env` otherwise. For `added`, which has just been sealed,
    // nothing has to be opened: that could fail, and the catalog has it already. Errors:
    // corruption, io.
    [[nodiscard]] Result<SnapshotPtr> snapshot(Env& env, const Path& log,
                                               const SnapshotPtr& previous,
                                               const AddedSegment& added = {}) const;

    // `snapshot` without the segments that `log`, which is in order, does not have any more; itself
    // if there are none. Errors: failed (memory).
    [[nodiscard]] Result<SnapshotPtr> only(const SnapshotPtr& snapshot,
                                           std::span<const SegmentLength> log) const;

    // Changes with each transaction of the writer's. 0 if it cannot be told.
    [[nodiscard]] std::uint64_t version() const;
    // Whether another catalog has been put in the place of the one that a reader has open.
    [[nodiscard]] bool replaced() const { return source_ && !source_->is_at(path_ / "data.mdb"); }
    // Whether `snapshot` is out of date.
    [[nodiscard]] bool changed_since(const CatalogSnapshot& snapshot) const {
        return version() != snapshot.version();
    }
    // Whether it has changed since it was opened or created.
    [[nodiscard]] bool changed_since_open() const { return version() != opened_version_; }

    // Writes to `to` what the last snapshot was read from. Of one that is open for reading.
    // Errors: io, out_of_space.
    [[nodiscard]] Result<void> copy_to(File& to) const;

    // Each of the following is one durable transaction.
    // Errors: out_of_space, corruption, io. Nothing has changed then.

    // Adds a sealed segment, whose index has been written; the row's totals are filled in.
    // `superseded` says which streams of which older segments have a newer record in it.
    [[nodiscard]] Result<void> add(SegmentRow row, const Census& census,
                                   const SegmentTallies& superseded);

    // Adds what has been counted to the censuses of sealed segments, takes over `state`, and keeps
    // `report`, if there is one, as number state.reports.
    [[nodiscard]] Result<void> count(const std::map<std::uint64_t, Counted>& counted,
                                     const SweepState& state, const SweepReport* report);

    // Forgets segments, and takes over `state`.
    [[nodiscard]] Result<void> drop(std::span<const std::uint64_t> ids, const SweepState& state);

    // Errors: corruption, io.
    [[nodiscard]] Result<std::vector<SegmentRow>> rows() const;  // oldest first
    [[nodiscard]] Result<SweepState> sweep_state() const;
    [[nodiscard]] Result<std::vector<SweepReport>> reports() const;  // newest first

  private:
    Catalog(Path path, std::shared_ptr<LmdbEnv> env, std::unique_ptr<File> source,
            const CatalogMeta& meta);

    [[nodiscard]] static Result<std::unique_ptr<Catalog>> open(const Path& path,
                                                               std::shared_ptr<LmdbEnv> env,
                                                               std::unique_ptr<File> source);
    [[nodiscard]] Result<LmdbTxn> read() const;
    template <class Make>
    Result<void> change(Make make);

    const Path path_;
    const std::unique_ptr<File> source_;  // null: env_ is of the file itself, not of a copy
    std::uint64_t page_bytes_ = 0;
    std::string_view metas_;  // mapped, if that can be, so that a look at the version costs no call
    const CatalogMeta meta_;
    mutable std::mutex copy_mutex_;  // guards env_ if it is of a copy
    mutable std::shared_ptr<LmdbEnv> env_;
    const std::uint64_t opened_version_;
};

}  // namespace dedup
