#include "catalog/catalog.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <set>

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
constexpr char kJointKey = 'j';  // with the run's number
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
    return table == kJointKey ? ~id : id * 2 + (table == kFilterKey ? 1 : 0);
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

// Copies a filter into memory.
Result<void> copy_filter(const LmdbTxn& txn, char table, std::uint64_t id, std::uint64_t bytes,
                         char* to) {
    const auto blob = find_blob(txn, table, id, bytes, nullptr);
    if (!blob) {
        return std::unexpected(blob.error());
    }
    std::memcpy(to, blob->data(), bytes);
    if (!blob->intact()) {
        return std::unexpected(damaged(
            txn.env().path(),
            fmt::format("the filter of {} {}", table == kJointKey ? "run" : "segment", id)));
    }
    return {};
}

// The size of the joint filter of a run; 0 if it has none.
Result<std::uint64_t> joint_bytes(const LmdbTxn& txn, std::uint64_t run) {
    const auto blob = txn.get(segment_key(kJointKey, run));
    if (!blob) {
        return std::unexpected(blob.error());
    }
    if (blob->data() == nullptr) {
        return 0;
    }
    const auto bytes = blob_data_bytes(blob->size());
    if (!bytes || *bytes == 0 || *bytes % JointFilter::kBlockBytes != 0) {
        return std::unexpected(
            damaged(txn.env().path(), fmt::format("the filter of run {} has {} bytes, which is "
                                                  "no filter's size",
                                                  run, blob->size())));
    }
    return *bytes;
}

// The filters of a run of segments, from memory where they are in `previous`, which may be null,
// and else from the catalog.
Result<std::shared_ptr<const FilterRun>> load_run(const LmdbTxn& txn, std::uint64_t number,
                                                  std::span<SealedSegment> segments,
                                                  const SealedRun* previous) {
    const bool all_known = std::ranges::all_of(
        segments, [](const SealedSegment& segment) { return segment.filter.data != nullptr; });
    if (previous != nullptr && all_known &&
        segments.size() == previous->filters->filters().size()) {
        return previous->filters;
    }
    std::vector<std::uint64_t> entries;
    entries.reserve(segments.size());
    for (const SealedSegment& segment : segments) {
        entries.push_back(segment.row.entries);
    }
    const auto joint = joint_bytes(txn, number);
    if (!joint) {
        return std::unexpected(joint.error());
    }
    auto filters = FilterRun::allocate(entries, *joint);
    if (!filters) {
        return std::unexpected(Error{
            Code::failed, fmt::format("there is not enough memory for the filters of catalog {}",
                                      txn.env().path().string())});
    }
    Result<void> done;
    if (*joint != 0) {
        done = copy_filter(txn, kJointKey, number, *joint, filters->joint_data());
    }
    for (std::size_t i = 0; i < segments.size() && done; ++i) {
        SealedSegment& segment = segments[i];
        const std::uint64_t bytes = Filter::bytes_for(entries[i]);
        if (segment.filter.data != nullptr) {
            std::memcpy(filters->data(i), segment.filter.data, bytes);
        } else {
            done = copy_filter(txn, kFilterKey, segment.row.id, bytes, filters->data(i));
        }
        segment.filter = filters->filters()[i];
    }
    return done ? Result<std::shared_ptr<const FilterRun>>(std::move(filters))
                : std::unexpected(done.error());
}

Result<std::vector<SealedRun>> load_runs(const LmdbTxn& txn, std::span<SealedSegment> segments,
                                         const SnapshotPtr& previous) {
    std::vector<SealedRun> runs;
    for (std::size_t begin = 0; begin < segments.size();) {
        const std::uint64_t number = run_of(segments[begin].row.id);
        std::size_t end = begin;
        while (end < segments.size() && run_of(segments[end].row.id) == number) {
            ++end;
        }
        const SealedRun* known = nullptr;
        if (previous) {
            const auto found = std::ranges::find(previous->runs(), number, &SealedRun::number);
            known = found == previous->runs().end() ? nullptr : &*found;
        }
        const auto part = segments.subspan(begin, end - begin);
        auto filters = load_run(txn, number, part, known);
        if (!filters) {
            return std::unexpected(filters.error());
        }
        for (SealedSegment& segment : part) {
            segment.joint = (*filters)->joint();
        }
        runs.push_back({number, begin, std::move(*filters)});
        begin = end;
    }
    return runs;
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

// The row of a segment; nullopt if it is not there.
Result<std::optional<SegmentRow>> read_row(const LmdbTxn& txn, std::uint64_t id) {
    const auto bytes = txn.get(segment_key(kRowKey, id));
    if (!bytes) {
        return std::unexpected(bytes.error());
    }
    if (bytes->data() == nullptr) {
        return std::nullopt;
    }
    SegmentRow row;
    if (!read_checked(*bytes, row)) {
        return std::unexpected(
            damaged(txn.env().path(), fmt::format("the row of segment {} is not intact", id)));
    }
    return row;
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

// Adds the joint filter of the run that segment `row` completes. One that was there before does not
// know the segment.
Result<void> put_joint_filter(LmdbTxn& txn, const SegmentRow& row,
                              std::span<const IndexEntry> entries) {
    const std::uint64_t run = run_of(row.id);
    auto removed = txn.remove(segment_key(kJointKey, run));
    if (!removed || run_of(row.id + 1) == run) {
        return removed;
    }
    std::vector<SealedIndex> others;
    std::uint64_t count = entries.size();
    for (std::uint64_t id = run * kRunSegments; id < row.id; ++id) {
        const auto other = read_row(txn, id);
        if (!other) {
            return std::unexpected(other.error());
        }
        if (!*other) {
            continue;
        }
        auto index = find_blob(txn, kIndexKey, id, index_bytes((*other)->entries), nullptr);
        if (!index) {
            return std::unexpected(index.error());
        }
        count += (*other)->entries;
        others.emplace_back(std::move(*index), (*other)->entries);
    }
    std::string filter(JointFilter::bytes_for(count), '\0');
    const auto add = [&](const StreamId& id) {
        FilterBits(id).add_to<JointFilter>(filter.data(), filter.size());
    };
    for (const SealedIndex& index : others) {
        for (std::uint64_t i = 0; i < index.size(); ++i) {
            const auto entry = index.entry(i);
            if (!entry) {
                return {};  // whoever asks for what is damaged will be told; this is only for speed
            }
            add(entry->id);
        }
    }
    for (const IndexEntry& entry : entries) {
        add(entry.id);
    }
    return put_blob(txn, kJointKey, run, filter.size(),
                    [&](char* data) { std::ranges::copy(filter, data); });
}

// Takes away the joint filter of a run that has lost more than half of its streams.
Result<void> drop_joint_filter(LmdbTxn& txn, std::uint64_t run) {
    const auto bytes = joint_bytes(txn, run);
    if (!bytes || *bytes == 0) {
        return bytes ? Result<void>() : std::unexpected(bytes.error());
    }
    std::uint64_t streams = 0;
    for (std::uint64_t id = run * kRunSegments; run_of(id) == run; ++id) {
        const auto row = read_row(txn, id);
        if (!row) {
            return std::unexpected(row.error());
        }
        streams += *row ? (*row)->entries : 0;
    }
    return streams == 0 || JointFilter::bytes_for(2 * streams) < *bytes
               ? txn.remove(segment_key(kJointKey, run))
               : Result<void>();
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
    auto row = read_row(txn, id);
    if (!row || !*row) {
        return std::unexpected(
            row ? damaged(txn.env().path(), fmt::format("the row of segment {} is missing", id))
                : row.error());
    }
    change(**row, **census);
    return put_counts(txn, **row, **census);
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

const SealedSegment* CatalogSnapshot::find(std::uint64_t id) const {
    const auto found = std::ranges::lower_bound(segments_, id, {},
                                                [](const SealedSegment& s) { return s.row.id; });
    return found == segments_.end() || found->row.id != id ? nullptr : &*found;
}

std::uint64_t CatalogSnapshot::filter_bytes() const {
    std::uint64_t bytes = 0;
    for (const SealedRun& run : runs_) {
        bytes += run.filters->bytes();
    }
    return bytes;
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

std::optional<CatalogMeta> Catalog::find_meta(File& file) {
    constexpr std::uint64_t kSearchedMax = std::uint64_t{16} << 30;
    constexpr std::size_t kBlockBytes = std::size_t{1} << 20;
    constexpr std::size_t kValueBytes = sizeof(MetaValue) + sizeof(std::uint64_t);
    std::string begin = {kMetaKey};  // the key, and what the value begins with
    begin.append(sizeof kCatalogVersion, '\0');
    store(begin.data() + 1, kCatalogVersion);
    std::string block(kBlockBytes, '\0');
    for (std::uint64_t at = 0; at < kSearchedMax; at += kBlockBytes - kValueBytes) {
        const auto got = file.read(at, block);
        const std::string_view bytes(block.data(), got ? *got : 0);
        for (auto found = bytes.find(begin); found != std::string_view::npos;
             found = bytes.find(begin, found + 1)) {
            MetaValue value;
            if (read_checked(bytes.substr(found + 1, kValueBytes), value)) {
                return value.meta;
            }
        }
        if (bytes.size() < kBlockBytes) {
            break;
        }
    }
    return std::nullopt;
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
    std::vector<SealedSegment> segments;
    for (const SegmentRow& row : *rows) {
        const SealedSegment* const known = previous ? previous->find(row.id) : nullptr;
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
        if (!segment) {
            auto opened = Segment::open(env, log, row.id, row.bytes);
            if (opened) {
                segment = std::move(*opened);
            } else if (added && added->id() == row.id) {
                segment = added;
            } else {
                return std::unexpected(opened.error());
            }
        }
        segments.push_back({row, SealedIndex(std::move(*index), row.entries),
                            known ? known->filter : Filter(), JointFilter(), *census,
                            std::move(segment)});
    }
    auto runs = load_runs(*txn, segments, previous);
    if (!runs) {
        return std::unexpected(runs.error());
    }
    return std::make_shared<const CatalogSnapshot>(std::move(*txn), std::move(segments),
                                                   std::move(*runs));
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
        const std::uint64_t bytes = Filter::bytes_for(entries.size());
        done = put_blob(*txn, kFilterKey, row.id, bytes, [&](char* data) {
            std::memset(data, 0, bytes);
            build_filter(entries, data);
        });
    }
    if (done) {
        done = put_joint_filter(*txn, row, entries);
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
                census.superseded = found.superseded.value_or(std::move(census.superseded));
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
    std::set<std::uint64_t> runs;
    for (const std::uint64_t id : ids) {
        for (const char table : {kRowKey, kIndexKey, kFilterKey, kCensusKey}) {
            if (done) {
                done = txn->remove(segment_key(table, id));
            }
        }
        runs.insert(run_of(id));
    }
    for (const std::uint64_t run : runs) {
        if (done) {
            done = drop_joint_filter(*txn, run);
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
