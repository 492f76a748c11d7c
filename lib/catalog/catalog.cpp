#include "catalog/catalog.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "catalog/lmdb_check.hpp"
#include "catalog/report.hpp"
#include "env/bytes.hpp"

namespace dedup {
namespace {

// Keys: one letter, and for what belongs to a segment its id, big-endian, so that LMDB's order
// is the log's.
constexpr char kMetaKey = 'm';
constexpr char kRowKey = 's';
constexpr char kCensusKey = 'c';
constexpr char kSweepKey = 'w';
constexpr char kReportKey = 'r';  // with the report's number

constexpr std::size_t kSegmentKeyBytes = 1 + sizeof(std::uint64_t);

std::string segment_key(char table, std::uint64_t id) {
    std::string key(kSegmentKeyBytes, table);
    store(key.data() + 1, __builtin_bswap64(id));
    return key;
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

Error older_version(const Path& path, std::uint32_t version) {
    return {Code::corruption, fmt::format("catalog {} has format version {}, which is an older one",
                                          path.string(), version)};
}

// The segment whose index has the joint filter of a run, if it still knows all of `segments`, which
// are of that run, and these are not less than half of what it was made for.
const SealedSegment* find_joint(std::span<const SealedSegment> segments) {
    const auto with_joint = std::ranges::find_if(segments, [](const SealedSegment& segment) {
        return segment.file->header().joint_bytes != 0;
    });
    if (with_joint == segments.end()) {
        return nullptr;
    }
    const IndexHeader& header = with_joint->file->header();
    std::uint64_t streams = 0;
    for (const SealedSegment& segment : segments) {
        if ((header.joint_members >> segment.row.id % kRunSegments & 1) == 0) {
            return nullptr;
        }
        streams += segment.row.entries;
    }
    return JointFilter::bytes_for(2 * streams) < header.joint_bytes ? nullptr : &*with_joint;
}

// The filters of a run of segments, from memory where they are in `previous`, which may be null,
// and else from the files.
Result<std::shared_ptr<const FilterRun>> load_run(std::span<SealedSegment> segments,
                                                  const SealedRun* previous, const Path& catalog) {
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
    const SealedSegment* const joint = find_joint(segments);
    auto filters =
        FilterRun::allocate(entries, joint == nullptr ? 0 : joint->file->header().joint_bytes);
    if (filters && joint != nullptr && !joint->file->copy_joint(filters->joint_data())) {
        filters = FilterRun::allocate(entries, 0);  // it is only for speed
    }
    if (!filters) {
        return std::unexpected(Error{
            Code::failed, fmt::format("there is not enough memory for the filters of catalog {}",
                                      catalog.string())});
    }
    Result<void> done;
    for (std::size_t i = 0; i < segments.size() && done; ++i) {
        SealedSegment& segment = segments[i];
        if (segment.filter.data != nullptr) {
            std::memcpy(filters->data(i), segment.filter.data, Filter::bytes_for(entries[i]));
        } else {
            done = segment.file->copy_filter(filters->data(i));
        }
        segment.filter = filters->filters()[i];
    }
    return done ? Result<std::shared_ptr<const FilterRun>>(std::move(filters))
                : std::unexpected(done.error());
}

Result<std::vector<SealedRun>> load_runs(std::span<SealedSegment> segments,
                                         const SnapshotPtr& previous, const Path& catalog) {
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
        auto filters = load_run(part, known, catalog);
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

std::uint64_t CatalogSnapshot::used_bytes() const {
    std::uint64_t bytes = lmdb_bytes_;
    for (const SealedSegment& segment : segments_) {
        bytes += segment.file->bytes();
    }
    return bytes;
}

Result<std::unique_ptr<Catalog>> Catalog::create(Env& env, const Path& path,
                                                 const CatalogMeta& meta, std::uint64_t map_bytes) {
    if (auto made = env.make_directory(path); !made) {
        return std::unexpected(made.error());
    }
    auto lmdb = LmdbEnv::open(path, map_bytes);
    if (!lmdb) {
        return std::unexpected(lmdb.error());
    }
    Result<void> done;
    {
        auto txn = LmdbTxn::begin(*lmdb, true);
        if (!txn) {
            return std::unexpected(txn.error());
        }
        MetaValue value;
        value.meta = meta;
        done = txn->put({&kMetaKey, 1}, with_checksum(value));
        if (done) {
            done = txn->put({&kSweepKey, 1}, with_checksum(SweepState{}));
        }
        if (done) {
            done = txn->commit();
        }
    }
    if (done) {
        done = env.sync_directory(path);
    }
    if (!done) {
        return std::unexpected(done.error());
    }
    return std::unique_ptr<Catalog>(new Catalog(path, std::move(*lmdb), nullptr, meta));
}

std::optional<CatalogMeta> Catalog::find_meta(File& file) {
    constexpr std::uint64_t kSearchedMax = std::uint64_t{16} << 30;
    constexpr std::size_t kBlockBytes = std::size_t{1} << 20;
    constexpr std::size_t kValueBytes = sizeof(MetaValue) + sizeof(std::uint64_t);
    // The key, and what the value begins with.
    std::array<std::string, kCatalogVersion> begins;
    for (std::uint32_t version = 1; version <= kCatalogVersion; ++version) {
        std::string& begin = begins[version - 1];
        begin.assign(1 + sizeof version, kMetaKey);
        store(begin.data() + 1, version);
    }
    std::string block(kBlockBytes, '\0');
    for (std::uint64_t at = 0; at < kSearchedMax; at += kBlockBytes - kValueBytes) {
        const auto got = file.read(at, block);
        const std::string_view bytes(block.data(), got ? *got : 0);
        for (const std::string& begin : begins) {
            for (auto found = bytes.find(begin); found != std::string_view::npos;
                 found = bytes.find(begin, found + 1)) {
                MetaValue value;
                if (read_checked(bytes.substr(found + 1, kValueBytes), value)) {
                    return value.meta;
                }
            }
        }
        if (bytes.size() < kBlockBytes) {
            break;
        }
    }
    return std::nullopt;
}

Result<std::unique_ptr<Catalog>> Catalog::open(const Path& path, std::uint64_t map_bytes) {
    std::error_code error;
    if (!std::filesystem::exists(path / "data.mdb", error)) {
        return std::unexpected(
            os_failure("open", path / "data.mdb", error ? error.value() : ENOENT));
    }
    auto lmdb = LmdbEnv::open(path, map_bytes);
    return lmdb ? open(path, std::move(*lmdb), nullptr) : std::unexpected(lmdb.error());
}

Result<std::unique_ptr<Catalog>> Catalog::open_for_reading(Env& env, const Path& path) {
    auto source = env.open(path / "data.mdb", OpenMode::read);
    if (!source) {
        return std::unexpected(source.error());
    }
    // Before a copy is made: an older one has all indexes in it.
    const auto meta = find_lmdb_value(path / "data.mdb", **source, {&kMetaKey, 1});
    if (meta && meta->size() >= sizeof(std::uint32_t) &&
        load<std::uint32_t>(meta->data()) < kCatalogVersion) {
        return std::unexpected(older_version(path, load<std::uint32_t>(meta->data())));
    }
    auto lmdb = LmdbEnv::open_copy(path, **source);
    return lmdb ? open(path, std::move(*lmdb), std::move(*source)) : std::unexpected(lmdb.error());
}

Result<std::unique_ptr<Catalog>> Catalog::open(const Path& path, std::shared_ptr<LmdbEnv> env,
                                               std::unique_ptr<File> source) {
    const auto txn = LmdbTxn::begin(env, false);
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
    if (value.version != kCatalogVersion) {
        return std::unexpected(older_version(path, value.version));
    }
    return std::unique_ptr<Catalog>(
        new Catalog(path, std::move(env), std::move(source), value.meta));
}

Catalog::Catalog(Path path, std::shared_ptr<LmdbEnv> env, std::unique_ptr<File> source,
                 const CatalogMeta& meta)
    : path_(std::move(path)),
      source_(std::move(source)),
      meta_(meta),
      env_(std::move(env)),
      opened_version_(env_->version()) {
    if (source_) {
        const auto state = read_lmdb_state(path_ / "data.mdb", *source_);
        page_bytes_ = state ? state->page_bytes : 0;
        metas_ = source_->map(2 * page_bytes_);
    }
}

Result<void> Catalog::copy_to(File& to) const {
    std::unique_lock lock(copy_mutex_);
    const std::shared_ptr<LmdbEnv> env = env_;
    lock.unlock();
    return env->copy_to(to);
}

std::uint64_t Catalog::version() const {
    if (!source_) {
        return env_->version();
    }
    if (!metas_.empty()) {
        return newest_commit(metas_, page_bytes_);
    }
    const auto state = read_lmdb_state(path_ / "data.mdb", *source_);
    return state ? state->commit : 0;
}

// A transaction on the newest state: for a reader, of a copy that is made if there is none yet.
Result<LmdbTxn> Catalog::read() const {
    if (!source_) {
        return LmdbTxn::begin(env_, false);
    }
    const std::lock_guard lock(copy_mutex_);
    if (version() != env_->version()) {
        auto newer = LmdbEnv::open_copy(path_, *source_);
        if (!newer) {
            return std::unexpected(newer.error());
        }
        env_ = std::move(*newer);
    }
    return LmdbTxn::begin(env_, false);
}

Result<SnapshotPtr> Catalog::snapshot(Env& env, const Path& log, const SnapshotPtr& previous,
                                      const AddedSegment& added) const {
    std::vector<SealedSegment> segments;
    std::uint64_t version = 0;
    std::uint64_t lmdb_bytes = 0;
    {
        const auto txn = read();
        if (!txn) {
            return std::unexpected(txn.error());
        }
        version = txn->version();
        lmdb_bytes = txn->env().used_bytes();
        const auto rows = read_rows(*txn);
        if (!rows) {
            return std::unexpected(rows.error());
        }
        segments.reserve(rows->size());
        for (const SegmentRow& row : *rows) {
            const auto census = txn->get(segment_key(kCensusKey, row.id));
            if (!census) {
                return std::unexpected(census.error());
            }
            const SealedSegment* const known = previous ? previous->find(row.id) : nullptr;
            SealedSegment& segment =
                known != nullptr ? segments.emplace_back(*known) : segments.emplace_back();
            segment.row = row;
            segment.joint = {};
            if (known == nullptr || *segment.census != *census) {
                segment.census = std::make_shared<const std::string>(*census);
            }
        }
    }
    for (SealedSegment& sealed : segments) {
        if (sealed.file) {
            continue;
        }
        const SegmentRow& row = sealed.row;
        const bool is_added = added.segment && added.segment->id() == row.id;
        auto index =
            is_added ? Result<std::shared_ptr<const IndexFile>>(added.index)
                     : IndexFile::open(env, log, meta_.store_id, meta_.secret, row.id, row.bytes);
        if (!index) {
            return std::unexpected(index.error());
        }
        if ((*index)->header().row.entries != row.entries) {
            return std::unexpected(
                damaged(path_, fmt::format("segment {} has {} streams in its index, and here {}",
                                           row.id, (*index)->header().row.entries, row.entries)));
        }
        auto segment = Segment::open(env, log, row.id, row.bytes);
        if (!segment && !is_added) {
            return std::unexpected(segment.error());
        }
        sealed.segment = segment ? *segment : added.segment;
        sealed.file = std::move(*index);
        sealed.index = sealed.file->index();
    }
    auto runs = load_runs(segments, previous, path_);
    if (!runs) {
        return std::unexpected(runs.error());
    }
    return std::make_shared<const CatalogSnapshot>(version, lmdb_bytes, std::move(segments),
                                                   std::move(*runs));
}

Result<SnapshotPtr> Catalog::only(const SnapshotPtr& snapshot,
                                  std::span<const SegmentLength> log) const {
    std::vector<SealedSegment> segments;
    for (const SealedSegment& segment : snapshot->segments()) {
        if (std::ranges::binary_search(log, segment.row.id, {}, &SegmentLength::id)) {
            segments.push_back(segment);
        }
    }
    if (segments.size() == snapshot->segments().size()) {
        return snapshot;
    }
    auto runs = load_runs(segments, snapshot, path_);
    if (!runs) {
        return std::unexpected(runs.error());
    }
    return std::make_shared<const CatalogSnapshot>(snapshot->version(), snapshot->lmdb_bytes(),
                                                   std::move(segments), std::move(*runs));
}

namespace {

// The joint filter of the run that segment `row` completes, and whose streams it knows, in
// `header`. Empty if an index of the run is damaged: whoever asks for that will be told, and this
// is only for speed.
std::string make_joint_filter(const SegmentRow& row, std::span<const IndexEntry> entries,
                              std::span<const SealedSegment> sealed, IndexHeader& header) {
    header.joint_members = std::uint64_t{1} << row.id % kRunSegments;
    std::uint64_t count = entries.size();
    std::vector<const SealedSegment*> others;
    for (const SealedSegment& other : sealed) {
        if (run_of(other.row.id) == run_of(row.id) && other.row.id != row.id) {
            header.joint_members |= std::uint64_t{1} << other.row.id % kRunSegments;
            count += other.row.entries;
            others.push_back(&other);
        }
    }
    std::string filter(JointFilter::bytes_for(count), '\0');
    const auto add = [&](const StreamId& id) {
        FilterBits(id).add_to<JointFilter>(filter.data(), filter.size());
    };
    for (const SealedSegment* const other : others) {
        for (std::uint64_t i = 0; i < other->index.size(); ++i) {
            const auto entry = other->index.entry(i);
            if (!entry) {
                header.joint_members = 0;
                return {};
            }
            add(entry->id);
        }
    }
    for (const IndexEntry& entry : entries) {
        add(entry.id);
    }
    header.joint_bytes = filter.size();
    return filter;
}

}  // namespace

Result<std::shared_ptr<const IndexFile>> write_index(Env& env, const Path& log,
                                                     const CatalogMeta& meta, const SegmentRow& row,
                                                     std::span<const IndexEntry> entries,
                                                     std::span<const SealedSegment> sealed) {
    IndexHeader header{meta.store_id, meta.secret, row};
    std::string joint;
    if (run_of(row.id + 1) != run_of(row.id)) {
        joint = make_joint_filter(row, entries, sealed, header);
    }
    auto written = write_index_file(env, log, header, entries, joint);
    return written ? IndexFile::open(env, log, meta.store_id, meta.secret, row.id, row.bytes)
                   : std::unexpected(written.error());
}

// make(txn) in a transaction that is committed; again with a larger map if this one is full.
template <class Make>
Result<void> Catalog::change(Make make) {
    while (true) {
        auto done = [&]() -> Result<void> {
            auto txn = LmdbTxn::begin(env_, true);
            if (!txn) {
                return std::unexpected(txn.error());
            }
            Result<void> made = make(*txn);
            return made ? txn->commit() : made;
        }();
        if (done || done.error().code != Code::unavailable) {
            return done;
        }
        if (auto grown = env_->grow(); !grown) {
            return grown;
        }
    }
}

Result<void> Catalog::add(SegmentRow row, const Census& census, const SegmentTallies& superseded) {
    return change([&](LmdbTxn& txn) -> Result<void> {
        const auto there = txn.get(segment_key(kRowKey, row.id));
        if (!there) {
            return std::unexpected(there.error());
        }
        auto done = put_counts(txn, row, census);
        if (there->data() != nullptr) {
            // An earlier attempt got this far and failed later; a sweep may have been since.
            return done;
        }
        for (const auto& [id, tally] : superseded) {
            if (done && id != row.id) {
                done = change_counts(txn, id, [&](SegmentRow&, Census& older) {
                    dedup::add(older.superseded, tally);
                });
            }
        }
        return done;
    });
}

Result<void> Catalog::count(const std::map<std::uint64_t, Counted>& counted,
                            const SweepState& state, const SweepReport* report) {
    return change([&](LmdbTxn& txn) {
        auto done = txn.put({&kSweepKey, 1}, with_checksum(state));
        if (done && report != nullptr) {
            done = txn.put(segment_key(kReportKey, state.reports), encode_report(*report));
        }
        if (done && state.reports > kReportsMax) {
            done = txn.remove(segment_key(kReportKey, state.reports - kReportsMax));
        }
        for (const auto& [id, found] : counted) {
            if (done) {
                done = change_counts(txn, id, [&](SegmentRow& row, Census& census) {
                    row.expires_min_ms = found.expires_min_ms;
                    dedup::add(census.removed, found.removed);
                    census.superseded = found.superseded.value_or(std::move(census.superseded));
                });
            }
        }
        return done;
    });
}

Result<void> Catalog::drop(std::span<const std::uint64_t> ids, const SweepState& state) {
    return change([&](LmdbTxn& txn) {
        auto done = txn.put({&kSweepKey, 1}, with_checksum(state));
        for (const std::uint64_t id : ids) {
            for (const char table : {kRowKey, kCensusKey}) {
                if (done) {
                    done = txn.remove(segment_key(table, id));
                }
            }
        }
        return done;
    });
}

Result<std::vector<SegmentRow>> Catalog::rows() const {
    const auto txn = read();
    return txn ? read_rows(*txn) : std::unexpected(txn.error());
}

Result<SweepState> Catalog::sweep_state() const {
    const auto txn = read();
    if (!txn) {
        return std::unexpected(txn.error());
    }
    const auto bytes = txn->get({&kSweepKey, 1});
    if (!bytes) {
        return std::unexpected(bytes.error());
    }
    SweepState state;
    if (!read_checked(*bytes, state)) {
        return std::unexpected(damaged(path_, "what it knows of sweeps is missing or not intact"));
    }
    return state;
}

Result<std::vector<SweepReport>> Catalog::reports() const {
    const auto state = sweep_state();
    if (!state) {
        return std::unexpected(state.error());
    }
    const auto txn = read();
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
                damaged(path_, fmt::format("sweep report {} is not intact", number)));
        }
        reports.push_back(std::move(*report));
    }
    return reports;
}

}  // namespace dedup
