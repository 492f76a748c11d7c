// Opening a store for writing: repairing what a crash left.
//
// What a process that died has written is read whether or not it has been flushed, and after a
// flush that failed it is read although it is not on the disk. So recover() changes nothing by
// what it has read before that is durable. The order: read; make the newest segment durable, then
// the names; then change the catalog; then remove files.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include "log/frame_reader.hpp"
#include "record/invalid.hpp"
#include "store/log_store.hpp"

namespace dedup {
namespace {

constexpr std::chrono::milliseconds kLockPoll{20};
// What a catalog that is being made anew says of the steps that it has followed.
constexpr std::uint64_t kStepsUnfinished = UINT64_MAX;

using fs_perms = std::filesystem::perms;

Result<void> check_options(const OpenOptions& options) {
    using namespace std::chrono_literals;
    if (options.flush_interval < 1ms || options.flush_interval > 1min) {
        return invalid(fmt::format("flush_interval is {} ms; 1 to 60,000 are allowed",
                                   options.flush_interval.count()));
    }
    if (options.lock_timeout < 0ms || options.grace < 0ms) {
        return invalid("lock_timeout and grace cannot be negative");
    }
    if (options.segment_bytes != 0 &&
        (options.segment_bytes < kSegmentBytesMin || options.segment_bytes > kSegmentBytesMax)) {
        return invalid(fmt::format("segment_bytes is {}; 0 or {} to {} are allowed",
                                   options.segment_bytes, kSegmentBytesMin, kSegmentBytesMax));
    }
    if (!options.clock) {
        return invalid("there is no clock");
    }
    if ((options.permissions & fs_perms::owner_all) != fs_perms::owner_all ||
        (options.permissions & ~fs_perms::all) != fs_perms::none) {
        return invalid(fmt::format("permissions are {:04o}; 0700 to 0777 are allowed",
                                   static_cast<unsigned>(options.permissions)));
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<LogStore>> LogStore::open(Env& env, const Path& path,
                                                 const OpenOptions& options,
                                                 const LogStoreInternals& internals) {
    const NoCancel no_cancel;
    if (auto checked = check_options(options); !checked) {
        return std::unexpected(checked.error());
    }
    const auto found = find_store(env, path);
    if (!found) {
        return std::unexpected(found.error());
    }
    if (!*found && (options.read_only || !options.create)) {
        return invalid(fmt::format("there is no store at {}", path.string()));
    }
    std::unique_ptr<LogStore> store(new LogStore(env, path, options, internals));
    Result<void> opened;
    try {
        opened = options.read_only ? store->open_for_reading() : store->open_for_writing();
    } catch (const std::bad_alloc&) {
        opened = std::unexpected(Error{Code::out_of_space, kOutOfMemory, ENOMEM});
    }
    if (!opened) {
        store->failed_ = true;  // so that closing it writes nothing to what has not been recovered
        return std::unexpected(std::move(opened).error());
    }
    return store;
}

Result<std::unique_ptr<LogStore>> LogStore::open(const Path& path, const OpenOptions& options,
                                                 const LogStoreInternals& internals) {
    const auto fixed = fixed_path(path);
    if (!fixed) {
        return std::unexpected(fixed.error());
    }
    auto env = posix_env_of(*fixed, options.permissions);
    auto store = open(*env, *fixed, options, internals);
    if (store) {
        (*store)->owned_env_ = std::move(env);
    }
    return store;
}

Result<void> LogStore::take_lock() {
    const auto give_up = std::chrono::steady_clock::now() + options_.lock_timeout;
    while (true) {
        auto lock = env_.lock(path_ / kLockName);
        if (lock) {
            lock_ = std::move(*lock);
            return {};
        }
        if (lock.error().code != Code::busy || std::chrono::steady_clock::now() >= give_up) {
            return std::unexpected(lock.error());
        }
        std::this_thread::sleep_for(kLockPoll);
    }
}

Result<void> LogStore::open_for_writing() {
    auto done = env_.make_directory(path_);
    if (done) {
        done = take_lock();
    }
    if (done) {
        done = env_.make_directory(log_path_);
    }
    if (!done) {
        return done;
    }
    auto ids = list_segments();
    if (ids && ids->empty()) {
        done = create_files();
        ids = std::vector<std::uint64_t>{1};
    }
    if (!ids || !done) {
        return ids ? done : std::unexpected(ids.error());
    }
    if (auto recovered = recover(*ids); !recovered) {
        return recovered;
    }
    keep_reserve();
    try {
        sealer_ = start_thread("dedup-sealer", [this] { seal_in_background(); });
        if (options_.durability == Durability::async) {
            flusher_ = start_thread("dedup-flusher", [this] { flush_in_background(); });
        }
    } catch (const std::system_error& error) {
        return std::unexpected(Error{
            Code::io,
            fmt::format("cannot start a thread for store {}: {}", path_.string(), error.what()),
            error.code().value()});
    }
    const std::vector<ClockReset>& resets = manifest_.clock.resets;
    if (resets.empty() || resets.back().finished) {
        return {};
    }
    // On a full disk it waits for another opening: a sweep may make room, and needs this one.
    auto finished = finish_reset();
    return finished || finished.error().code == Code::out_of_space ? Result<void>() : finished;
}

Error LogStore::missing_segment(std::uint64_t id) const {
    return {Code::corruption,
            fmt::format("{} is missing; it is part of the log: put it back, or save what is left "
                        "in a new store with `dedupctl repair`",
                        (log_path_ / segment_file_name(id)).string())};
}

// The ids of all segment files, ascending.
Result<std::vector<std::uint64_t>> LogStore::list_segments() const {
    const auto names = env_.list(log_path_);
    if (!names) {
        return std::unexpected(names.error());
    }
    std::vector<std::uint64_t> ids;
    for (const std::string& name : *names) {
        if (const auto id = segment_id(name)) {
            ids.push_back(*id);
        }
    }
    std::ranges::sort(ids);
    return ids;
}

// Errors: corruption, if it has to be rebuilt.
Result<void> LogStore::open_catalog() {
    auto catalog = options_.read_only ? Catalog::open_for_reading(env_, catalog_path_)
                                      : Catalog::open(catalog_path_, internals_.catalog_map_bytes);
    if (!catalog) {
        const bool rebuildable =
            catalog.error().code == Code::corruption || catalog.error().os_error == ENOENT;
        return std::unexpected(rebuildable ? Error{Code::corruption, catalog.error().message}
                                           : catalog.error());
    }
    if ((*catalog)->meta().store_id != store_id_) {
        return std::unexpected(catalog_problem("it belongs to another store"));
    }
    catalog_ = std::move(*catalog);
    locator_ = {catalog_->meta().secret, internals_.id_mask};
    return {};
}

Error LogStore::catalog_problem(std::string_view what) const {
    return {Code::corruption, fmt::format("catalog {}: {}", catalog_path_.string(), what)};
}

// Compares the catalog with the manifest that holds, and changes neither.
// Errors: corruption, if segments are missing that the catalog knows of.
Result<LogStore::CatalogFit> LogStore::compare_catalog(const Unsealed& newest_segment) {
    const Manifest& manifest = newest_segment.manifest;
    const std::uint64_t newest = newest_segment.row.id;
    const auto state = catalog_->sweep_state();
    const auto rows = catalog_->rows();
    CatalogFit fit;
    const auto misfit = [&](const Error& error) {
        fit.problem = error;
        return fit;
    };
    if (!state || !rows) {
        const Error error = state ? rows.error() : state.error();
        return error.code == Code::corruption ? Result<CatalogFit>(misfit(error))
                                              : std::unexpected(error);
    }
    sweep_state_ = *state;
    if (state->steps == kStepsUnfinished) {
        return misfit(catalog_problem("it was not finished"));
    }
    // The catalog only ever follows what is durable in the log. If it is ahead, the log has lost
    // its end, and with it sequences that must not be given again.
    if (!rows->empty() && rows->back().id >= newest) {
        const auto missing = std::ranges::upper_bound(*rows, newest, {}, &SegmentRow::id);
        return std::unexpected(missing_segment(missing == rows->end() ? newest + 1 : missing->id));
    }
    if (state->steps > manifest.steps) {
        return std::unexpected(missing_segment(newest + 1));
    }
    // A sweep writes a step to the log first, and the catalog follows.
    if (state->steps != manifest.steps && state->steps + 1 != manifest.steps) {
        return misfit(catalog_problem("it is not of the same age as the log"));
    }
    auto next = manifest.segments.begin();
    for (const SegmentRow& row : *rows) {
        if (next != manifest.segments.end() && *next == SegmentLength{row.id, row.bytes}) {
            ++next;
        } else if (state->steps != manifest.steps &&
                   std::ranges::find(manifest.segments, row.id, &SegmentLength::id) ==
                       manifest.segments.end()) {
            fit.given_up.push_back(row.id);
        } else {
            return misfit(
                catalog_problem(fmt::format("it does not know the log before segment {}", row.id)));
        }
    }
    // A segment is sealed, and its row in the catalog, before a sweep takes it out of the log.
    if (state->steps != manifest.steps && manifest.given_up != 0 &&
        (fit.given_up.empty() || fit.given_up.back() != manifest.given_up)) {
        return misfit(catalog_problem("it does not know what a sweep has dropped"));
    }
    if (manifest.horizon != Horizon() &&
        manifest.segments.end() - next >= static_cast<std::ptrdiff_t>(kUnsealedMax)) {
        return misfit(catalog_problem("it knows too few segments"));
    }
    return fit;
}

// Errors: corruption, if the catalog has to be rebuilt; io, if a segment is missing.
Result<SnapshotPtr> LogStore::first_snapshot() {
    auto snapshot = catalog_->snapshot(env_, log_path_, nullptr);
    if (!snapshot && snapshot.error().code == Code::io && snapshot.error().os_error == ENOENT) {
        return std::unexpected(
            Error{Code::io,
                  fmt::format("{}; it is part of the log: restore it, or save the rest with "
                              "`dedupctl repair`",
                              snapshot.error().message),
                  ENOENT});
    }
    return snapshot;
}

// Checks that every segment of the log is there and belongs to this store.
Result<void> LogStore::check_log(const std::vector<std::uint64_t>& ids,
                                 const Unsealed& newest) const {
    if (newest.row.bytes == kSegmentHeaderBytes) {
        return std::unexpected(newest.segment->corruption(
            kSegmentHeaderBytes, "there is no valid manifest at the segment's beginning"));
    }
    for (const auto& [id, bytes] : newest.manifest.segments) {
        if (!std::ranges::binary_search(ids, id)) {
            return std::unexpected(missing_segment(id));
        }
        const auto segment = Segment::open(env_, log_path_, id);
        if (!segment) {
            return std::unexpected(segment.error());
        }
        if ((*segment)->header().store_id != store_id_) {
            return std::unexpected(
                (*segment)->corruption(kSegmentStoreIdAt, "it belongs to another store"));
        }
    }
    return {};
}

// How large the newest segment is going to be: mostly as the one before it. Whatever its header
// says of that one, memory is asked for as much as the largest segment needs.
std::uint64_t LogStore::expected_bytes(const Segment& newest, std::uint64_t file_bytes) const {
    const std::uint64_t previous = newest.header().previous_bytes;
    const std::uint64_t usual = previous == 0 ? choose_segment_bytes(0) : previous;
    return std::min(std::max(usual, file_bytes), kSegmentFileBytesMax);
}

// Opens and replays a segment, which must have `bytes` bytes of frames if that is not 0.
Result<std::shared_ptr<Unsealed>> LogStore::replay_segment(std::uint64_t id, std::uint64_t bytes,
                                                           std::uint64_t& flushed) {
    const auto segment = Segment::open(env_, log_path_, id);
    if (!segment) {
        return std::unexpected(segment.error());
    }
    const auto file_bytes = (*segment)->bytes_there();
    if (!file_bytes) {
        return std::unexpected(file_bytes.error());
    }
    const std::uint64_t room =
        bytes == 0 ? expected_bytes(**segment, *file_bytes) : std::min(bytes, *file_bytes);
    auto unsealed = std::make_shared<Unsealed>(*segment, room);
    const auto replayed = replay(*unsealed, locator_, bytes);
    if (!replayed) {
        return std::unexpected(replayed.error());
    }
    for (const auto& [begin, end] : unsealed->damaged) {
        (void)note_damage(**segment, begin,
                          (*segment)->corruption(begin, "there is no valid frame"));
    }
    flushed = *replayed;
    if (bytes != 0 && unsealed->row.bytes != bytes) {
        return std::unexpected((*segment)->corruption(
            unsealed->row.bytes, fmt::format("it should be {} bytes long", bytes)));
    }
    return unsealed;
}

// Opens a store that is there. The order of the steps is what makes each of them safe: none acts on
// anything that a power loss could still take away.
Result<void> LogStore::recover(const std::vector<std::uint64_t>& ids) {
    auto found = read_log(ids);
    if (!found) {
        return std::unexpected(found.error());
    }
    auto done = resume_writing(*found);
    if (done) {
        done = sync_directories();
    }
    if (done) {
        done = update_catalog(*found);
    }
    if (done) {
        done = remove_leftovers();
    }
    if (done) {
        done = replay_tail(std::move(found->sealed), found->newest);
    }
    return done ? finish_sweep() : done;
}

// What the log says, and whether the catalog goes with it. Changes nothing.
Result<LogStore::FoundLog> LogStore::read_log(const std::vector<std::uint64_t>& ids) {
    const auto newest_segment = Segment::open(env_, log_path_, ids.back());
    if (!newest_segment) {
        return std::unexpected(newest_segment.error());
    }
    store_id_ = (*newest_segment)->header().store_id;
    const auto opened = open_catalog();
    if (!opened && opened.error().code != Code::corruption) {
        return std::unexpected(opened.error());
    }
    // The log first: a damaged or missing segment is no reason to rebuild the catalog.
    FoundLog found;
    auto newest = replay_segment(ids.back(), 0, found.flushed);
    if (!newest) {
        return std::unexpected(newest.error());
    }
    found.newest = std::move(*newest);
    auto whole = inspect_newest(*found.newest);
    if (whole) {
        whole = check_log(ids, *found.newest);
    }
    if (!whole) {
        return std::unexpected(whole.error());
    }
    if (!opened) {
        found.catalog.problem = opened.error();
        return found;
    }
    auto fit = compare_catalog(*found.newest);
    if (!fit) {
        return std::unexpected(fit.error());
    }
    found.catalog = std::move(*fit);
    return found;
}

// Makes all that was read of the newest segment durable, and goes on writing there.
Result<void> LogStore::resume_writing(const FoundLog& found) {
    const Unsealed& newest = *found.newest;
    auto writer = SegmentWriter::resume(env_, log_path_, newest.segment->header(), found.flushed,
                                        newest.row.bytes);
    if (!writer) {
        return std::unexpected(writer.error());
    }
    writer_ = std::move(*writer);
    manifest_ = newest.manifest;
    return {};
}

// Takes the rows out of the catalog that the manifest has given up, which is what is left of a
// sweep that was cut short; or makes the catalog anew.
Result<void> LogStore::update_catalog(FoundLog& found) {
    bool log_damaged = false;  // a catalog made anew would not mend it
    const auto follow_manifest = [&]() -> Result<SnapshotPtr> {
        if (found.catalog.problem) {
            return std::unexpected(*found.catalog.problem);
        }
        if (!found.catalog.given_up.empty()) {
            sweep_state_.steps = manifest_.steps;
            auto dropped = catalog_->drop(found.catalog.given_up, sweep_state_);
            if (!dropped) {
                return std::unexpected(dropped.error());
            }
        }
        auto snapshot = first_snapshot();
        if (snapshot ||
            (snapshot.error().code != Code::corruption && snapshot.error().os_error != EIO)) {
            return snapshot;
        }
        const auto made = make_bad_indexes();
        log_damaged = !made;
        return made ? first_snapshot() : std::unexpected(made.error());
    };
    auto sealed = follow_manifest();
    if (!sealed && !log_damaged && sealed.error().code == Code::corruption) {
        if (auto rebuilt = rebuild_catalog(); !rebuilt) {
            return rebuilt;
        }
        auto newest =
            replay_segment(found.newest->row.id, 0, found.flushed);  // with the new secret
        if (!newest) {
            return std::unexpected(newest.error());
        }
        found.newest = std::move(*newest);
        sealed = first_snapshot();
    }
    if (!sealed) {
        return std::unexpected(sealed.error());
    }
    found.sealed = std::move(*sealed);
    return {};
}

// Index files that are missing or damaged are made anew, from their segments.
// Errors: corruption (of the log), io, out_of_space.
Result<void> LogStore::make_bad_indexes() {
    const auto rows = catalog_->rows();
    if (!rows) {
        return {};  // the snapshot says so, too
    }
    for (const SegmentRow& row : *rows) {
        const auto index =
            IndexFile::open(env_, log_path_, store_id_, catalog_->meta().secret, row.id, row.bytes);
        if (index && (*index)->header().row.entries == row.entries && (*index)->filters_intact()) {
            continue;
        }
        if (!index && index.error().code != Code::corruption && index.error().os_error != EIO) {
            return std::unexpected(index.error());
        }
        std::uint64_t flushed = 0;
        const auto unsealed = replay_segment(row.id, row.bytes, flushed);
        if (!unsealed) {
            return std::unexpected(unsealed.error());
        }
        const std::vector<IndexEntry> entries = (*unsealed)->delta.sorted();
        if (entries.size() != row.entries) {
            return {};  // the catalog is wrong
        }
        // Without the joint filter of its run, which is only for speed.
        if (auto written = write_index_file(env_, log_path_,
                                            {store_id_, catalog_->meta().secret, row}, entries, {});
            !written) {
            return written;
        }
    }
    return {};
}

Result<void> LogStore::rebuild_catalog() {
    catalog_.reset();
    if (auto made = make_catalog(); !made) {
        return made;
    }
    catalog_rebuilt_ = true;
    if (auto opened = open_catalog(); !opened) {
        return opened;
    }
    // Until all is counted it is of no use: should this be cut short, the next opening begins anew.
    sweep_state_ = {};
    sweep_state_.steps = kStepsUnfinished;
    return catalog_->count({}, sweep_state_, nullptr);
}

// Removes the files of segments that the manifest has given up, and of those that were never
// named.
Result<void> LogStore::remove_leftovers() {
    const auto names = env_.list(log_path_);
    if (!names) {
        return std::unexpected(names.error());
    }
    for (const std::string& name : *names) {
        const auto indexed = indexed_segment(name);
        const auto id = indexed ? indexed : segment_id(name);
        const bool given_up = id && (indexed || *id != writer_->segment()->id()) &&
                              std::ranges::find(manifest_.segments, *id, &SegmentLength::id) ==
                                  manifest_.segments.end();
        if (given_up || (!id && name.ends_with(".tmp"))) {
            if (auto removed = env_.remove(log_path_ / name); !removed) {
                return removed;
            }
        }
    }
    return {};
}

// Counts what a sweep that was cut short has removed, or all of a catalog made anew.
Result<void> LogStore::finish_sweep() {
    if (catalog_rebuilt_ || sweep_state_.counted != manifest_.horizon ||
        sweep_state_.steps != manifest_.steps) {
        if (auto counted = finish_counting(); !counted) {
            return counted;
        }
    }
    segment_bytes_ = choose_segment_bytes(log_bytes(*view_));
    const auto streams = live_streams(*view_, tail_numbers(*view_));
    if (!streams) {
        return std::unexpected(streams.error());
    }
    streams_ = streams->total();
    return {};
}

// Makes the view: replays the segments that the catalog does not know, and seals them if they are
// many. Into a catalog that is rebuilt, all but the newest are sealed, so that they can be counted.
Result<void> LogStore::replay_tail(SnapshotPtr snapshot, const std::shared_ptr<Unsealed>& newest) {
    const std::size_t unsealed_max =
        catalog_rebuilt_ && newest->manifest.steps != 0 ? 1 : kUnsealedMax;
    auto view = std::make_shared<View>();
    std::int64_t time_ms = newest->manifest.time_high_ms;
    const auto take_over = [&](const SegmentRow& row) {
        next_sequence_ = std::max(next_sequence_, row.next_sequence);
        if (row.id >= newest->manifest.time_from_segment()) {
            time_ms = std::max(time_ms, row.time_high_ms);
        }
    };
    std::uint64_t sealed_last = 0;
    for (const SealedSegment& sealed : snapshot->segments()) {
        take_over(sealed.row);
        sealed_last = sealed.row.id;
    }
    view->sealed = std::move(snapshot);
    take_over(newest->row);
    view->unsealed.push_back(newest);
    // While a rebuilt catalog has counted nothing, nothing may seem to be removed; see seal().
    if (!catalog_rebuilt_) {
        view->horizon = newest->manifest.horizon;
    }
    const Manifest& manifest = newest->manifest;
    for (const auto& [id, bytes] : manifest.segments) {
        if (id <= sealed_last) {
            continue;
        }
        std::uint64_t flushed = 0;
        const auto unsealed = replay_segment(id, bytes, flushed);
        if (!unsealed) {
            return std::unexpected(unsealed.error());
        }
        take_over((*unsealed)->row);
        view->unsealed.insert(view->unsealed.begin() + 1, *unsealed);
        set_view(view);
        if (view->unsealed.size() > unsealed_max && !options_.read_only) {
            const std::shared_ptr<Unsealed> oldest = view->unsealed.back();
            view.reset();
            if (auto done = seal(*oldest); !done) {
                return done;
            }
            view = std::make_shared<View>(*view_);
        }
    }
    view = std::make_shared<View>(*view);
    view->horizon = view->unsealed.front()->manifest.horizon;
    applied_sequence_ = next_sequence_ - 1;
    set_view(view);
    written_time_ms_ = time_ms;
    saw_time(time_ms);
    adopt_clock(newest->manifest);
    return {};
}

// Judges what lies behind the last valid frame of the log.
Result<void> LogStore::inspect_newest(const Unsealed& newest) {
    const auto file_bytes = newest.segment->bytes_there();
    if (!file_bytes) {
        return std::unexpected(file_bytes.error());
    }
    const auto tail = inspect_tail(*newest.segment, newest.row.bytes, *file_bytes);
    if (!tail) {
        return std::unexpected(tail.error());
    }
    torn_bytes_dropped_ = tail->torn_bytes;
    return {};
}

}  // namespace dedup
