// The catalog: what is known about sealed segments, in LMDB. All of it can be rebuilt from the log.
// docs/format.md describes its tables.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "catalog/absent_ids.hpp"
#include "catalog/census.hpp"
#include "catalog/filter.hpp"
#include "catalog/lmdb_env.hpp"
#include "catalog/sealed_index.hpp"
#include "log/manifest.hpp"
#include "log/segment.hpp"
#include "log/stream_id.hpp"

namespace dedup {

inline constexpr std::uint32_t kCatalogVersion = 1;
// Address space, not memory or disk: LMDB maps this much and uses what it needs. The map doubles
// should the catalog ever outgrow it.
inline constexpr std::uint64_t kCatalogMapBytes = std::uint64_t{64} << 30;

struct CatalogMeta {
    StoreId store_id{};
    HashSecret secret{};
};

// One sealed segment. The layout on disk is this structure, followed by its checksum.
struct SegmentRow {
    std::uint64_t id = 0;
    std::uint64_t bytes = 0;    // exact length of the file
    std::uint64_t entries = 0;  // streams with a record in it: the entries of its index
    std::uint64_t next_sequence = 1;
    std::int64_t time_high_ms = 0;
    std::int64_t expires_min_ms = INT64_MAX;  // nothing in it expires before; moves up with sweeps
    std::int64_t expires_max_ms = 0;  // latest expiry of its records; INT64_MAX: one never expires
    // All versions, by the state that each gives its stream, and the bytes that these take.
    StateCounts versions{};
    StateCounts version_bytes{};
    // The totals of its census.
    StateCounts streams{};
    StateCounts superseded{};
    StateCounts removed{};

    [[nodiscard]] StateCounts live() const {
        StateCounts live = streams;
        live -= superseded;
        live -= removed;
        return live;
    }
    [[nodiscard]] std::uint64_t records() const { return versions.total(); }
    // About what the records of so many streams take of its bytes: records of one state are taken
    // to be of one size.
    [[nodiscard]] std::uint64_t bytes_of(const StateCounts& counts) const;

    bool operator==(const SegmentRow&) const = default;
};
static_assert(sizeof(SegmentRow) == 22 * 8);

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
    Filter filter;            // in the memory of its run
    JointFilter joint;        // of its run; without data if that has none
    std::string_view census;  // encoded, in the snapshot's map
    std::shared_ptr<const Segment> segment;
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

// The catalog at one moment. It pins an LMDB read transaction, into whose map the indexes point.
// Immutable but for what it remembers; any number of threads may use one.
class CatalogSnapshot {
  public:
    CatalogSnapshot(LmdbTxn txn, std::vector<SealedSegment> segments, std::vector<SealedRun> runs)
        : txn_(std::move(txn)), segments_(std::move(segments)), runs_(std::move(runs)) {}

    // Oldest first, both.
    [[nodiscard]] const std::vector<SealedSegment>& segments() const { return segments_; }
    [[nodiscard]] const std::vector<SealedRun>& runs() const { return runs_; }
    // The segment with this id; nullptr if it is not there.
    [[nodiscard]] const SealedSegment* find(std::uint64_t id) const;
    [[nodiscard]] std::uint64_t filter_bytes() const;
    [[nodiscard]] std::uint64_t version() const { return txn_.version(); }
    [[nodiscard]] std::uint64_t used_bytes() const { return txn_.env().used_bytes(); }
    // Ids that have turned out to be in none of the indexes.
    [[nodiscard]] AbsentIds& absent() const { return absent_; }

  private:
    LmdbTxn txn_;
    std::vector<SealedSegment> segments_;
    std::vector<SealedRun> runs_;
    mutable AbsentIds absent_;
};

using SnapshotPtr = std::shared_ptr<const CatalogSnapshot>;

class Catalog {
  public:
    // Creates a catalog in directory `path` for an empty store.
    [[nodiscard]] static Result<std::unique_ptr<Catalog>> create(
        Env& env, const Path& path, const CatalogMeta& meta,
        std::uint64_t map_bytes = kCatalogMapBytes);

    // Errors: corruption (missing, damaged or incomplete), unsupported_version, io, busy.
    [[nodiscard]] static Result<std::unique_ptr<Catalog>> open(
        const Path& path, bool writable, std::uint64_t map_bytes = kCatalogMapBytes);

    // What open() would give as meta(), from the bytes of a file that may be damaged or cut: found
    // by its checksum, wherever it lies. Reads the file and nothing else.
    [[nodiscard]] static std::optional<CatalogMeta> find_meta(File& file);

    [[nodiscard]] const CatalogMeta& meta() const { return meta_; }

    // The catalog as it is now. Segment files and checked blocks are taken over from `previous`
    // where it has them, and opened in directory `log` of `env` otherwise. `added` is one of them,
    // open as it was written; it is taken if it cannot be opened as a sealed one.
    // Errors: corruption, io, unavailable (another process has resized the map: let go of all
    // snapshots and call adopt_size).
    [[nodiscard]] Result<SnapshotPtr> snapshot(
        Env& env, const Path& log, const SnapshotPtr& previous,
        const std::shared_ptr<const Segment>& added = nullptr) const;

    // Changes with each transaction, of any process.
    [[nodiscard]] std::uint64_t version() const { return env_->version(); }
    // Whether `snapshot` is out of date.
    [[nodiscard]] bool changed_since(const CatalogSnapshot& snapshot) const {
        return env_->version() != snapshot.version();
    }
    // Whether it has changed since open() or create().
    [[nodiscard]] bool changed_since_open() const { return env_->version() != opened_version_; }

    // Each of the following is one durable transaction.
    // Errors: unavailable (the map is full: let go of all snapshots and call grow), out_of_space,
    // corruption, io. Nothing has changed then.

    // Adds a sealed segment; the row's totals are filled in. `entries` are sorted by id.
    // `superseded` says which streams of which older segments have a newer record in it.
    [[nodiscard]] Result<void> add(SegmentRow row, std::span<const IndexEntry> entries,
                                   const Census& census, const SegmentTallies& superseded);

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

    // No snapshot may be alive in this process for these two.
    [[nodiscard]] Result<void> grow() { return env_->grow(); }
    [[nodiscard]] Result<void> adopt_size() { return env_->adopt_size(); }

  private:
    Catalog(std::shared_ptr<LmdbEnv> env, const CatalogMeta& meta)
        : env_(std::move(env)), meta_(meta), opened_version_(env_->version()) {}

    std::shared_ptr<LmdbEnv> env_;
    CatalogMeta meta_;
    std::uint64_t opened_version_;
};

}  // namespace dedup
