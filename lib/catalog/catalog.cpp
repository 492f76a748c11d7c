#include "catalog/catalog.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "catalog/report.hpp"
#include "env/bytes.hpp"

namespace dedup {
namespace {

// Keys: one letter, and for what belongs to a segment its id, big-endian, so that LMDB's order
// is the log's.
constexpr char kMetaKey = 'm';
constexpr char kRowKey = 's';
constexpr char kIndexKey = 'i';
constexpr char kFilterKey = 'f';
constexpr char kCensusKey = 'c';
constexpr char kSweepKey = 'w';
constexpr char kReportKey = 'r';  // with the report's number

constexpr std::size_t kSegmentKeyBytes = 1 + sizeof(std::uint64_t);

std::string segment_key(char table, std::uint64_t id) {
    std::string key(kSegmentKeyBytes, table);
    store(key.data() + 1, __builtin_bswap64(id));
    return key;
}

// Whose blob it is, for its checksums.
std::uint64_t blob_owner(char table, std::uint64_t id) {
    return id * 2 + (table == kFilterKey ? 1 : 0);
}

struct MetaValue {
    std::uint32_t version = kCatalogVersion;
    std::uint32_t reserved = 0;
    CatalogMeta meta;
};
static_assert(sizeof(MetaValue) == 8 + 16 + 192);

template <class T>
std::string with_checksum(const T& value) {
    std::string bytes(sizeof value + sizeof(std::uint64_t), '\0');
    store(bytes.data(), value);
    store(bytes.data() + sizeof value, XXH3_64bits(bytes.data(), sizeof value));
    return bytes;
}

template <class T>
bool read_checked(std::string_view bytes, T& value) {
    if (bytes.size() != sizeof value + sizeof(std::uint64_t) ||
        load<std::uint64_t>(bytes.data() + sizeof value) !=
            XXH3_64bits(bytes.data(), sizeof value)) {
        return false;
    }
    value = load<T>(bytes.data());
    return true;
}

Error damaged(const Path& path, std::string_view what) {
    return {Code::corruption, fmt::format("catalog {} is damaged: {}", path.string(), what)};
}

Result<CheckedBlob> find_blob(const LmdbTxn& txn, char table, std::uint64_t id,
                              std::uint64_t data_bytes, std::shared_ptr<CheckedBlocks> checked) {
    const auto blob = txn.get(segment_key(table, id));
    if (!blob) {
        return std::unexpected(blob.error());
    }
    if (blob->size() != blob_bytes(data_bytes)) {
        return std::unexpected(damaged(
            txn.env().path(), fmt::format("the {} of segment {} has {} bytes and should have {}",
                                          table == kIndexKey ? "index" : "filter", id, blob->size(),
                                          blob_bytes(data_bytes))));
    }
    if (!checked) {
        checked = std::make_shared<CheckedBlocks>(data_bytes);
    }
    return CheckedBlob(*blob, data_bytes, blob_owner(table, id), std::move(checked));
}

// Takes the filter of a segment into memory.
Result<void> copy_filter(const LmdbTxn& txn, const SegmentRow& row, char* to) {
    const std::uint64_t bytes = filter_bytes(row.entries);
    const auto blob = find_blob(txn, kFilterKey, row.id, bytes, nullptr);
    if (!blob) {
        return std::unexpected(blob.error());
    }
    std::memcpy(to, blob->data(), bytes);
    if (!blob->intact()) {
        return std::unexpected(
            damaged(txn.env().path(), fmt::format("the filter of segment {}", row.id)));
    }
    return {};
}

// The filters of `segments`, from memory where there is one, and else from the catalog; the very
// set of `previous` if it has them all.
Result<std::shared_ptr<const FilterSet>> load_filters(const LmdbTxn& txn,
                                                      std::vector<SealedSegment>& segments,
                                                      const SnapshotPtr& previous) {
    const auto is_known = [](const SealedSegment& segment) {
        return segment.filter.data != nullptr;
    };
    if (previous && segments.size() == previous->segments().size() &&
        std::ranges::all_of(segments, is_known)) {
        return previous->filter_set();
    }
    std::vector<std::uint64_t> entries;
    entries.reserve(segments.size());
    for (const SealedSegment& segment : segments) {
        entries.push_back(segment.row.entries);
    }
    auto filters = FilterSet::allocate(entries);
    if (!filters) {
        return std::unexpected(Error{
            Code::failed, fmt::format("there is not enough memory for the filters of catalog {}",
                                      txn.env().path().string())});
    }
    for (std::size_t i = 0; i < segments.size(); ++i) {
        SealedSegment& segment = segments[i];
        if (is_known(segment)) {
            std::memcpy(filters->data(i), segment.filter.data, filter_bytes(entries[i]));
        } else if (auto copied = copy_filter(txn, segment.row, filters->data(i)); !copied) {
            return std::unexpected(copied.error());
        }
        segment.filter = filters->filters()[i];
    }
    return filters;
}

// The rows of all sealed segments, oldest first.
Result<std::vector<SegmentRow>> read_rows(const LmdbTxn& txn) {
    std::vector<SegmentRow> rows;
    MDB_cursor* cursor = nullptr;
    if (const int rc = mdb_cursor_open(txn.get(), txn.env().database(), &cursor); rc != 0) {
        return std::unexpected(lmdb_failure("read", txn.env().path(), rc));
    }
    const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> closer(cursor, mdb_cursor_close);
    std::string first(1, kRowKey);
    MDB_val key{first.size(), first.data()};
    MDB_val value{};
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        const std::string_view name(static_cast<const char*>(key.mv_data), key.mv_size);
        if (name.empty() || name.front() != kRowKey) {
            break;
        }
        SegmentRow row;
        if (!read_checked({static_cast<const char*>(value.mv_data), value.mv_size}, row) ||
            name != segment_key(kRowKey, row.id) || row.entries > row.records() ||
            row.records() > row.bytes) {
            return std::unexpected(
                damaged(txn.env().path(),
                        fmt::format("the row after {} segments is not intact", rows.size())));
        }
        rows.push_back(row);
    }
    if (rc != 0 && rc != MDB_NOTFOUND) {
        return std::unexpected(lmdb_failure("read", txn.env().path(), rc));
    }
    return rows;
}

Result<void> put_blob(LmdbTxn& txn, char table, std::uint64_t id, std::uint64_t data_bytes,
                      auto fill) {
    auto blob = txn.reserve(segment_key(table, id), blob_bytes(data_bytes));
    if (!blob) {
        return std::unexpected(blob.error());
    }
    fill(blob_data(*blob));
    finish_blob(*blob, data_bytes, blob_owner(table, id));
    return {};
}

// Reads the census of a segment; nullopt if the segment is not there.
Result<std::optional<Census>> read_census(const LmdbTxn& txn, std::uint64_t id) {
    const auto bytes = txn.get(segment_key(kCensusKey, id));
    if (!bytes) {
        return std::unexpected(bytes.error());
    }
    if (bytes->data() == nullptr) {
        return std::nullopt;
    }
    auto census = decode_census(*bytes);
    if (!census) {
        return std::unexpected(
            damaged(txn.env().path(), fmt::format("the census of segment {} is not intact", id)));
    }
    return std::optional(std::move(*census));
}

Result<void> put_counts(LmdbTxn& txn, SegmentRow row, const Census& census) {
    row.streams = total(census.streams);
    row.superseded = total(census.superseded);
    row.removed = total(census.removed);
    if (auto done = txn.put(segment_key(kRowKey, row.id), with_checksum(row)); !done) {
        return done;
    }
    return txn.put(segment_key(kCensusKey, row.id), encode_census(census));
}

// Changes the row and the census of a segment, if it is there.
Result<void> change_counts(LmdbTxn& txn, std::uint64_t id,
                           const std::function<void(SegmentRow&, Census&)>& change) {
    auto census = read_census(txn, id);
    if (!census) {
        return std::unexpected(census.error());
    }
    if (!*census) {
        return {};
    }
    const auto bytes = txn.get(segment_key(kRowKey, id));
    if (!bytes) {
        return std::unexpected(bytes.error());
    }
    SegmentRow row;
    if (!read_checked(*bytes, row)) {
        return std::unexpected(
            damaged(txn.env().path(), fmt::format("the row of segment {} is not intact", id)));
    }
    change(row, **census);
    return put_counts(txn, row, **census);
}

}  // namespace

std::uint64_t SegmentRow::bytes_of(const StateCounts& counts) const {
    std::uint64_t sum = 0;
    for (const State state : {State::in_flight, State::completed, State::released}) {
        if (versions[state] != 0) {
            sum += version_bytes[state] / versions[state] * counts[state];
        }
    }
    return std::min(sum, bytes);
}

Result<std::unique_ptr<Catalog>> Catalog::create(Env& env, const Path& path,
                                                 const CatalogMeta& meta, std::uint64_t map_bytes) {
    if (auto made = env.make_directory(path); !made) {
        return std::unexpected(made.error());
    }
    auto lmdb = LmdbEnv::open(path, true, map_bytes);
    if (!lmdb) {
        return std::unexpected(lmdb.error());
    }
    auto txn = LmdbTxn::begin(*lmdb, true);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    MetaValue value;
    value.meta = meta;
    auto done = txn->put({&kMetaKey, 1}, with_checksum(value));
    if (done) {
        done = txn->put({&kSweepKey, 1}, with_checksum(SweepState{}));
    }
    if (done) {
        done = txn->commit();
    }
    if (done) {
        done = env.sync_directory(path);
    }
    if (!done) {
        return std::unexpected(done.error());
    }
    return std::unique_ptr<Catalog>(new Catalog(std::move(*lmdb), meta));
}

Result<std::unique_ptr<Catalog>> Catalog::open(const Path& path, bool writable,
                                               std::uint64_t map_bytes) {
    auto lmdb = LmdbEnv::open(path, writable, map_bytes);
    if (!lmdb) {
        return std::unexpected(lmdb.error());
    }
    const auto txn = LmdbTxn::begin(*lmdb, false);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    const auto bytes = txn->get({&kMetaKey, 1});
    if (!bytes) {
        return std::unexpected(bytes.error());
    }
    if (bytes->size() >= sizeof(std::uint32_t) &&
        load<std::uint32_t>(bytes->data()) > kCatalogVersion) {
        return std::unexpected(
            Error{Code::unsupported_version,
                  fmt::format("catalog {} has format version {}, and this program knows versions "
                              "up to {}; use a newer one",
                              path.string(), load<std::uint32_t>(bytes->data()), kCatalogVersion)});
    }
    MetaValue value;
    if (!read_checked(*bytes, value)) {
        return std::unexpected(damaged(path, "its meta row is missing or not intact"));
    }
    return std::unique_ptr<Catalog>(new Catalog(std::move(*lmdb), value.meta));
}

Result<SnapshotPtr> Catalog::snapshot(Env& env, const Path& log, const SnapshotPtr& previous,
                                      const std::shared_ptr<const Segment>& added) const {
    auto txn = LmdbTxn::begin(env_, false);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    const auto rows = read_rows(*txn);
    if (!rows) {
        return std::unexpected(rows.error());
    }
    const auto known_as = [&](const SegmentRow& row) -> const SealedSegment* {
        if (!previous) {
            return nullptr;
        }
        const auto found = std::ranges::lower_bound(
            previous->segments(), row.id, {}, [](const SealedSegment& s) { return s.row.id; });
        return found == previous->segments().end() || found->row.id != row.id ? nullptr : &*found;
    };
    std::vector<SealedSegment> segments;
    for (const SegmentRow& row : *rows) {
        const SealedSegment* const known = known_as(row);
        auto index = find_blob(*txn, kIndexKey, row.id, index_bytes(row.entries),
                               known ? known->index.blob().checked() : nullptr);
        if (!index) {
            return std::unexpected(index.error());
        }
        const auto census = txn->get(segment_key(kCensusKey, row.id));
        if (!census) {
            return std::unexpected(census.error());
        }
        std::shared_ptr<const Segment> segment = known ? known->segment : nullptr;
        if (!segment && added && added->id() == row.id) {
            segment = added;
        }
        if (!segment) {
            auto opened = Segment::open(env, log, row.id, row.bytes);
            if (!opened) {
                return std::unexpected(opened.error());
            }
            segment = std::move(*opened);
        }
        segments.push_back({row, SealedIndex(std::move(*index), row.entries),
                            known ? known->filter : Filter(), *census, std::move(segment)});
    }
    auto filters = load_filters(*txn, segments, previous);
    if (!filters) {
        return std::unexpected(filters.error());
    }
    return std::make_shared<const CatalogSnapshot>(std::move(*txn), std::move(segments),
                                                   std::move(*filters));
}

Result<void> Catalog::add(SegmentRow row, std::span<const IndexEntry> entries, const Census& census,
                          const SegmentTallies& superseded) {
    auto txn = LmdbTxn::begin(env_, true);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    const auto there = txn->get(segment_key(kRowKey, row.id));
    if (!there) {
        return std::unexpected(there.error());
    }
    row.entries = entries.size();
    if (there->data() != nullptr) {
        // An earlier attempt got this far and failed later; a sweep may have been since.
        auto again = put_counts(*txn, row, census);
        return again ? txn->commit() : again;
    }
    auto done = put_blob(*txn, kIndexKey, row.id, index_bytes(entries.size()),
                         [&](char* data) { build_index(entries, data); });
    if (done) {
        const std::uint64_t bytes = filter_bytes(entries.size());
        done = put_blob(*txn, kFilterKey, row.id, bytes, [&](char* data) {
            std::memset(data, 0, bytes);
            build_filter(entries, data);
        });
    }
    if (done) {
        done = put_counts(*txn, row, census);
    }
    for (const auto& [id, tally] : superseded) {
        if (done && id != row.id) {
            done = change_counts(
                *txn, id, [&](SegmentRow&, Census& older) { dedup::add(older.superseded, tally); });
        }
    }
    return done ? txn->commit() : done;
}

Result<void> Catalog::count(const std::map<std::uint64_t, Counted>& counted,
                            const SweepState& state, const SweepReport* report) {
    auto txn = LmdbTxn::begin(env_, true);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    auto done = txn->put({&kSweepKey, 1}, with_checksum(state));
    if (done && report != nullptr) {
        done = txn->put(segment_key(kReportKey, state.reports), encode_report(*report));
    }
    if (done && state.reports > kReportsMax) {
        done = txn->remove(segment_key(kReportKey, state.reports - kReportsMax));
    }
    for (const auto& [id, found] : counted) {
        if (done) {
            done = change_counts(*txn, id, [&](SegmentRow& row, Census& census) {
                row.expires_min_ms = found.expires_min_ms;
                dedup::add(census.removed, found.removed);
            });
        }
    }
    return done ? txn->commit() : done;
}

Result<void> Catalog::drop(std::span<const std::uint64_t> ids, const SweepState& state) {
    auto txn = LmdbTxn::begin(env_, true);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    auto done = txn->put({&kSweepKey, 1}, with_checksum(state));
    for (const std::uint64_t id : ids) {
        for (const char table : {kRowKey, kIndexKey, kFilterKey, kCensusKey}) {
            if (done) {
                done = txn->remove(segment_key(table, id));
            }
        }
    }
    return done ? txn->commit() : done;
}

Result<std::vector<SegmentRow>> Catalog::rows() const {
    const auto txn = LmdbTxn::begin(env_, false);
    return txn ? read_rows(*txn) : std::unexpected(txn.error());
}

Result<SweepState> Catalog::sweep_state() const {
    const auto txn = LmdbTxn::begin(env_, false);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    const auto bytes = txn->get({&kSweepKey, 1});
    if (!bytes) {
        return std::unexpected(bytes.error());
    }
    SweepState state;
    if (!read_checked(*bytes, state)) {
        return std::unexpected(
            damaged(env_->path(), "what it knows of sweeps is missing or not intact"));
    }
    return state;
}

Result<std::vector<SweepReport>> Catalog::reports() const {
    const auto state = sweep_state();
    if (!state) {
        return std::unexpected(state.error());
    }
    const auto txn = LmdbTxn::begin(env_, false);
    if (!txn) {
        return std::unexpected(txn.error());
    }
    std::vector<SweepReport> reports;
    for (std::uint64_t number = state->reports; number > 0 && state->reports - number < kReportsMax;
         --number) {
        const auto bytes = txn->get(segment_key(kReportKey, number));
        if (!bytes) {
            return std::unexpected(bytes.error());
        }
        if (bytes->data() == nullptr) {
            continue;  // from before the catalog was rebuilt
        }
        auto report = decode_report(*bytes);
        if (!report) {
            return std::unexpected(
                damaged(env_->path(), fmt::format("sweep report {} is not intact", number)));
        }
        reports.push_back(std::move(*report));
    }
    return reports;
}

}  // namespace dedup
