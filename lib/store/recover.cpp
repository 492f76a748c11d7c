#include "store/recover.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "index/index_file.hpp"
#include "record/try.hpp"
#include "store/creation.hpp"
#include "store/read_log.hpp"

namespace dedup {
namespace {

// What the log says, and whether the catalog goes with it.
struct FoundLog {
    ReplayedSegment newest;
    CatalogFit catalog;
    SnapshotPtr sealed;

    [[nodiscard]] const Manifest& manifest() const { return newest.unsealed->manifest; }
    // Whoever wrote last has closed the store: all but the mark at the end is on the disk. That
    // mark has nothing in it that would be missed, should it be lost.
    bool closed = false;
};

class Recovery {
  public:
    Recovery(StoreContext& context, ShownView& shown, const Reader& reader, StoreCatalog& catalog,
             LogClock& clock, Engine& engine)
        : context_(context),
          shown_(shown),
          reader_(reader),
          catalog_(catalog),
          clock_(clock),
          engine_(engine) {}

    // The order of the steps is what makes each of them safe: none acts on anything that a power
    // loss could still take away.
    Result<Recovered> run(const std::vector<std::uint64_t>& ids) {
        FoundLog found = DEDUP_TRY(read_log(ids));
        DEDUP_TRY(resume_writing(found));
        DEDUP_TRY(sync_names(found));
        DEDUP_TRY(update_catalog(found));
        DEDUP_TRY(remove_leftovers(found));
        DEDUP_TRY(show(found));
        DEDUP_TRY(
            engine_.sweep.begin(found.catalog.state, found.manifest(), recovered_.catalog_rebuilt));
        DEDUP_TRY(count_streams());
        return recovered_;
    }

  private:
    Result<FoundLog> read_log(const std::vector<std::uint64_t>& ids);
    Result<void> resume_writing(const FoundLog& found);
    Result<void> sync_names(const FoundLog& found);
    Result<void> update_catalog(FoundLog& found);
    Result<SnapshotPtr> follow_manifest(FoundLog& found, bool& log_damaged);
    Result<void> make_bad_indexes();
    Result<void> rebuild_catalog(FoundLog& found);
    Result<void> remove_leftovers(const FoundLog& found);
    Result<void> show(FoundLog& found);
    Result<void> count_streams();

    StoreContext& context_;
    ShownView& shown_;
    const Reader& reader_;
    StoreCatalog& catalog_;
    LogClock& clock_;
    Engine& engine_;
    Recovered recovered_;
};

// Changes nothing.
Result<FoundLog> Recovery::read_log(const std::vector<std::uint64_t>& ids) {
    const auto segment = DEDUP_TRY(Segment::open(context_.env, context_.log_path, ids.back()));
    context_.store_id = segment->header().store_id;
    auto catalog = open_catalog(context_);
    if (!catalog && catalog.error().code != Code::corruption) {
        return std::unexpected(catalog.error());
    }
    // The log first: a damaged or missing segment is no reason to make the catalog anew.
    FoundLog found;
    found.newest = DEDUP_TRY(replay_segment(context_, ids.back(), 0));
    recovered_.torn_bytes_dropped = DEDUP_TRY(inspect_newest(*found.newest.unsealed));
    found.closed = found.newest.frames.closed && recovered_.torn_bytes_dropped == 0;
    DEDUP_TRY(check_log(context_, ids, *found.newest.unsealed));
    if (!catalog) {
        found.catalog.problem = catalog.error();
        return found;
    }
    found.catalog = DEDUP_TRY(compare_catalog(context_, **catalog, *found.newest.unsealed));
    catalog_.set(std::move(*catalog));
    return found;
}

// Makes all that was read of the newest segment durable, and goes on writing there.
Result<void> Recovery::resume_writing(const FoundLog& found) {
    const Unsealed& newest = *found.newest.unsealed;
    engine_.writer.resume(DEDUP_TRY(SegmentWriter::resume(
                              context_.env, context_.log_path, newest.segment->header(),
                              found.newest.frames.flushed, newest.row.bytes, !found.closed)),
                          newest.manifest, *engine_.lock);
    return {};
}

// A writer appends to a segment only once its name is durable. So in one that was closed, all names
// are, if the lock says that those of the directories were before.
Result<void> Recovery::sync_names(const FoundLog& found) {
    if (found.closed && engine_.lock->names_noted()) {
        return {};
    }
    DEDUP_TRY(sync_directories(context_));
    engine_.lock->note_names();
    return {};
}

// Takes the rows out of the catalog that the manifest has given up, which is what is left of a
// sweep that was cut short; or makes the catalog anew.
Result<void> Recovery::update_catalog(FoundLog& found) {
    bool log_damaged = false;
    auto sealed = follow_manifest(found, log_damaged);
    if (!sealed && !log_damaged && sealed.error().code == Code::corruption) {
        DEDUP_TRY(rebuild_catalog(found));
        sealed = first_snapshot(context_, *catalog_.get());
    }
    found.sealed = DEDUP_TRY(std::move(sealed));
    return {};
}

// Errors: corruption. With `log_damaged`, it is of the log, and a catalog made anew would not mend
// it.
Result<SnapshotPtr> Recovery::follow_manifest(FoundLog& found, bool& log_damaged) {
    if (found.catalog.problem) {
        return std::unexpected(*found.catalog.problem);
    }
    Catalog& catalog = *catalog_.get();
    if (!found.catalog.given_up.empty()) {
        found.catalog.state.steps = found.manifest().steps;
        DEDUP_TRY(catalog.drop(found.catalog.given_up, found.catalog.state));
    }
    auto snapshot = first_snapshot(context_, catalog);
    if (snapshot ||
        (snapshot.error().code != Code::corruption && snapshot.error().os_error != EIO)) {
        return snapshot;
    }
    const auto made = make_bad_indexes();
    log_damaged = !made;
    return made ? first_snapshot(context_, catalog) : std::unexpected(made.error());
}

// Index files that are missing or damaged are made anew, from their segments.
// Errors: corruption (of the log), io, out_of_space.
Result<void> Recovery::make_bad_indexes() {
    const CatalogMeta& meta = catalog_.get()->meta();
    const auto rows = catalog_.get()->rows();
    if (!rows) {
        return {};  // the snapshot says so, too
    }
    for (const SegmentRow& row : *rows) {
        const auto index = IndexFile::open(context_.env, context_.log_path, context_.store_id,
                                           meta.secret, row.id, row.bytes);
        if (index && (*index)->header().row.entries == row.entries && (*index)->filters_intact()) {
            continue;
        }
        if (!index && index.error().code != Code::corruption && index.error().os_error != EIO) {
            return std::unexpected(index.error());
        }
        const auto replayed = DEDUP_TRY(replay_segment(context_, row.id, row.bytes));
        const std::vector<IndexEntry> entries = replayed.unsealed->delta.sorted();
        if (entries.size() != row.entries) {
            return {};  // the catalog is wrong
        }
        // Without the joint filter of its run, which is only for speed.
        DEDUP_TRY(write_index_file(context_.env, context_.log_path,
                                   {context_.store_id, meta.secret, row}, entries, {}));
    }
    return {};
}

// Makes an empty catalog, and reads the newest segment again, with the new secret.
Result<void> Recovery::rebuild_catalog(FoundLog& found) {
    catalog_.set(nullptr);
    DEDUP_TRY(make_catalog(context_));
    recovered_.catalog_rebuilt = true;
    auto catalog = DEDUP_TRY(open_catalog(context_));
    // Until all is counted it is of no use: should this be cut short, the next opening begins anew.
    found.catalog.state = {};
    found.catalog.state.steps = kStepsUnfinished;
    DEDUP_TRY(catalog->count({}, found.catalog.state, nullptr));
    catalog_.set(std::move(catalog));
    found.newest = DEDUP_TRY(replay_segment(context_, found.newest.unsealed->row.id, 0));
    return {};
}

// Removes the files of segments that the manifest has given up, and of those that were never
// named.
Result<void> Recovery::remove_leftovers(const FoundLog& found) {
    const auto& segments = found.manifest().segments;
    for (const std::string& name : DEDUP_TRY(context_.env.list(context_.log_path))) {
        const auto indexed = indexed_segment(name);
        const auto id = indexed ? indexed : segment_id(name);
        const bool given_up =
            id && (indexed || *id != found.newest.unsealed->row.id) &&
            std::ranges::find(segments, *id, &SegmentLength::id) == segments.end();
        if (given_up || (!id && name.ends_with(".tmp"))) {
            DEDUP_TRY(context_.env.remove(context_.log_path / name));
        }
    }
    return {};
}

// Into a catalog that is made anew, all segments but the newest are sealed, so that they can be
// counted.
Result<void> Recovery::show(FoundLog& found) {
    MakeView from;
    from.sealed = std::move(found.sealed);
    from.newest = found.newest.unsealed;
    from.rebuilt = recovered_.catalog_rebuilt;
    from.unsealed_max = from.rebuilt && found.manifest().steps != 0 ? 1 : kUnsealedMax;
    from.seal = [&](const Unsealed& oldest) { return engine_.sealer.seal(oldest); };
    const std::uint64_t next_sequence = DEDUP_TRY(make_view(context_, shown_, std::move(from)));
    engine_.writer.begin(next_sequence, clock_.adopt(found.manifest()));
    return {};
}

Result<void> Recovery::count_streams() {
    const Now now = DEDUP_TRY(reader_.now());
    engine_.writer.choose_segment_bytes(log_bytes(reader_, *now.view));
    engine_.writer.set_streams(DEDUP_TRY(live_streams(reader_, now)).total());
    return {};
}

}  // namespace

Result<Recovered> recover(StoreContext& context, ShownView& shown, const Reader& reader,
                          StoreCatalog& catalog, LogClock& clock, Engine& engine,
                          const std::vector<std::uint64_t>& ids) {
    return Recovery(context, shown, reader, catalog, clock, engine).run(ids);
}

}  // namespace dedup
