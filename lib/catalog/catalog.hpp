// The catalog: what is known about sealed segments, in LMDB. All of it can be rebuilt from the log.
// docs/format.md describes its tables.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "catalog/filter.hpp"
#include "catalog/lmdb_env.hpp"
#include "catalog/sealed_index.hpp"
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

// Streams by the state of their head; indexed by State.
using StreamDeltas = std::array<std::int64_t, 3>;

// One sealed segment. The layout on disk is this structure, followed by its checksum.
struct SegmentRow {
    std::uint64_t id = 0;
    std::uint64_t bytes = 0;       // exact length of the file
    std::uint64_t records = 0;     // all versions
    std::uint64_t entries = 0;     // streams with a record in it: the entries of its index
    std::uint64_t superseded = 0;  // entries whose stream has a newer record in a later segment
    std::uint64_t next_sequence = 1;
    std::int64_t time_high_ms = 0;
    std::int64_t expires_max_ms = 0;  // latest expiry of its records; INT64_MAX: one never expires
    StreamDeltas streams{};            // what the segment added to the store's streams by state

    bool operator==(const SegmentRow&) const = default;
};
static_assert(sizeof(SegmentRow) == 11 * 8);

// A sealed segment as a snapshot shows it.
struct SealedSegment {
    SegmentRow row;
    SealedIndex index;
    Filter filter;
    std::shared_ptr<const Segment> segment;
};

// The catalog at one moment. It pins an LMDB read transaction, into whose map the indexes and
// filters point. Immutable; any number of threads may use one.
class CatalogSnapshot {
  public:
    CatalogSnapshot(LmdbTxn txn, std::vector<SealedSegment> segments)
        : txn_(std::move(txn)), segments_(std::move(segments)) {}

    // Oldest first.
    [[nodiscard]] const std::vector<SealedSegment>& segments() const { return segments_; }
    [[nodiscard]] std::uint64_t version() const { return txn_.version(); }
    [[nodiscard]] std::uint64_t used_bytes() const { return txn_.env().used_bytes(); }

  private:
    LmdbTxn txn_;
    std::vector<SealedSegment> segments_;
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

    [[nodiscard]] const CatalogMeta& meta() const { return meta_; }

    // The catalog as it is now. Segment files and checked blocks are taken over from `previous`
    // where it has them, and opened in directory `log` of `env` otherwise.
    // Errors: corruption, io, unavailable (another process has resized the map: let go of all
    // snapshots and call adopt_size).
    [[nodiscard]] Result<SnapshotPtr> snapshot(Env& env, const Path& log,
                                               const SnapshotPtr& previous) const;

    // Whether `snapshot` is out of date.
    [[nodiscard]] bool changed_since(const CatalogSnapshot& snapshot) const {
        return env_->version() != snapshot.version();
    }

    // Adds a sealed segment in one durable transaction. `entries` are sorted by id. `superseded`
    // says how many entries of which older segments it made old.
    // Errors: unavailable (the map is full: let go of all snapshots and call grow), out_of_space,
    // io. Nothing has changed then.
    [[nodiscard]] Result<void> add(const SegmentRow& row, std::span<const IndexEntry> entries,
                                   const std::map<std::uint64_t, std::uint64_t>& superseded);

    // No snapshot may be alive in this process for these two.
    [[nodiscard]] Result<void> grow() { return env_->grow(); }
    [[nodiscard]] Result<void> adopt_size() { return env_->adopt_size(); }

  private:
    Catalog(std::shared_ptr<LmdbEnv> env, const CatalogMeta& meta)
        : env_(std::move(env)), meta_(meta) {}

    std::shared_ptr<LmdbEnv> env_;
    CatalogMeta meta_;
};

}  // namespace dedup
