// Opening a store for writing: creating it, and repairing what a crash left.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include "log/frame_reader.hpp"
#include "store/log_store.hpp"

namespace dedup {
namespace {

constexpr std::chrono::milliseconds kLockPoll{20};

std::string_view const kLockName = "LOCK";

Error invalid(std::string message) {
    return {Code::invalid_argument, std::move(message)};
}

Result<void> check_options(const OpenOptions& options) {
    using namespace std::chrono_literals;
    if (options.flush_interval < 1ms || options.flush_interval > 1min) {
        return std::unexpected(invalid(fmt::format(
            "flush_interval is {} ms; 1 to 60,000 are allowed", options.flush_interval.count())));
    }
    if (options.lock_timeout < 0ms || options.grace < 0ms) {
        return std::unexpected(invalid("lock_timeout and grace cannot be negative"));
    }
    if (options.segment_bytes != 0 &&
        (options.segment_bytes < kSegmentBytesMin || options.segment_bytes > kSegmentBytesMax)) {
        return std::unexpected(
            invalid(fmt::format("segment_bytes is {}; 0 or {} to {} are allowed",
                                options.segment_bytes, kSegmentBytesMin, kSegmentBytesMax)));
    }
    if (!options.clock) {
        return std::unexpected(invalid("there is no clock"));
    }
    return {};
}

// True if there is a store at `path`, false if one could be created there.
Result<bool> find_store(Env& env, const Path& path) {
    const auto type = env.type(path);
    if (!type) {
        return std::unexpected(type.error());
    }
    if (*type == PathType::absent) {
        return false;
    }
    if (*type != PathType::directory) {
        return std::unexpected(invalid(fmt::format(
            "{} is not a directory, and a store is one; name another path", path.string())));
    }
    const auto names = env.list(path);
    if (!names) {
        return std::unexpected(names.error());
    }
    if (std::ranges::find(*names, "log") != names->end()) {
        return true;
    }
    // A creation that was cut short may have left some of this.
    const bool empty = std::ranges::all_of(
        *names, [](const std::string& name) { return name == kLockName || name == "catalog"; });
    if (!empty) {
        return std::unexpected(invalid(
            fmt::format("{} is a directory with other things in it, not a store; name another path",
                        path.string())));
    }
    return false;
}

Result<void> remove_if_there(Env& env, const Path& path) {
    auto removed = env.remove(path);
    if (!removed && removed.error().os_error == ENOENT) {
        return {};
    }
    return removed;
}

}  // namespace

Result<std::unique_ptr<LogStore>> LogStore::open(Env& env, const Path& path,
                                                 const OpenOptions& options,
                                                 const LogStoreInternals& internals) {
    if (auto checked = check_options(options); !checked) {
        return std::unexpected(checked.error());
    }
    const auto found = find_store(env, path);
    if (!found) {
        return std::unexpected(found.error());
    }
    if (!*found && (options.read_only || !options.create)) {
        return std::unexpected(invalid(fmt::format("there is no store at {}", path.string())));
    }
    std::unique_ptr<LogStore> store(new LogStore(env, path, options, internals));
    auto opened = options.read_only ? store->open_for_reading() : store->open_for_writing();
    if (!opened) {
        return std::unexpected(opened.error());
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
    if (!ids) {
        return std::unexpected(ids.error());
    }
    if (ids->empty()) {
        if (!options_.create) {
            return std::unexpected(invalid(fmt::format("there is no store at {}", path_.string())));
        }
        if (auto created = create_files(); !created) {
            return created;
        }
        ids = std::vector<std::uint64_t>{1};
    }
    if (auto recovered = recover(*ids); !recovered) {
        return recovered;
    }
    if (auto synced = sync_directories(); !synced) {
        return synced;
    }
    try {
        sealer_ = std::thread([this] { seal_in_background(); });
        if (options_.durability == Durability::async) {
            flusher_ = std::thread([this] { flush_in_background(); });
        }
    } catch (const std::system_error& error) {
        return std::unexpected(Error{
            Code::io,
            fmt::format("cannot start a thread for store {}: {}", path_.string(), error.what()),
            error.code().value()});
    }
    return {};
}

// Makes the names of the store and of what is in it durable. At every opening: one before may have
// been cut short just after it had created them.
Result<void> LogStore::sync_directories() {
    for (const Path& directory : {log_path_, path_}) {
        if (auto synced = env_.sync_directory(directory); !synced) {
            return synced;
        }
    }
    auto synced = env_.sync_directory(path_ / "..");
    // Whoever may not read the parent directory did not create the store in it either.
    return synced || synced.error().code == Code::read_only ? Result<void>() : synced;
}

// The catalog and the first segment of a new store. The segment comes last: with it, the store
// exists.
Result<void> LogStore::create_files() {
    if (const auto old = Catalog::open(catalog_path_, true, internals_.catalog_map_bytes); old) {
        const auto snapshot = (*old)->snapshot(env_, log_path_, nullptr);
        if (!snapshot || !(*snapshot)->segments().empty()) {
            return std::unexpected(Error{
                Code::corruption, fmt::format("{} is empty, although the catalog knows segments "
                                              "that should be there; restore them",
                                              log_path_.string())});
        }
    }
    CatalogMeta meta;
    auto done = env_.random(meta.store_id);
    if (done) {
        done = make_catalog(meta);
    }
    if (!done) {
        return done;
    }
    SegmentHeader header;
    header.store_id = meta.store_id;
    header.id = 1;
    if (const auto segment = SegmentWriter::create(env_, log_path_, header); !segment) {
        return std::unexpected(segment.error());
    }
    return {};
}

// Makes an empty catalog with a new secret in place of whatever is there.
Result<void> LogStore::make_catalog(CatalogMeta meta) {
    auto done = env_.random(meta.secret);
    for (const char* name : {"data.mdb", "lock.mdb"}) {
        if (done) {
            done = remove_if_there(env_, catalog_path_ / name);
        }
    }
    if (!done) {
        return done;
    }
    if (const auto catalog =
            Catalog::create(env_, catalog_path_, meta, internals_.catalog_map_bytes);
        !catalog) {
        return std::unexpected(catalog.error());
    }
    return {};
}

Error LogStore::missing_segment(std::uint64_t id) const {
    return {Code::corruption,
            fmt::format("{} is missing; it is part of the log and must be restored",
                        (log_path_ / segment_file_name(id)).string())};
}

// The ids of all segment files, ascending. A writer removes what a cut-short creation left.
Result<std::vector<std::uint64_t>> LogStore::list_segments() {
    const auto names = env_.list(log_path_);
    if (!names) {
        return std::unexpected(names.error());
    }
    std::vector<std::uint64_t> ids;
    for (const std::string& name : *names) {
        if (const auto id = segment_id(name)) {
            ids.push_back(*id);
        } else if (!options_.read_only && name.ends_with(".tmp")) {
            if (auto removed = env_.remove(log_path_ / name); !removed) {
                return std::unexpected(removed.error());
            }
        }
    }
    std::ranges::sort(ids);
    return ids;
}

// Opens the catalog and takes a snapshot. Errors: corruption, if it has to be rebuilt.
Result<SnapshotPtr> LogStore::open_catalog(const std::vector<std::uint64_t>& ids) {
    auto catalog = Catalog::open(catalog_path_, !options_.read_only, internals_.catalog_map_bytes);
    if (!catalog) {
        const bool rebuildable =
            catalog.error().code == Code::corruption || catalog.error().os_error == ENOENT;
        return std::unexpected(rebuildable ? Error{Code::corruption, catalog.error().message}
                                           : catalog.error());
    }
    const auto rebuild = [&](std::string_view why) {
        return std::unexpected(
            Error{Code::corruption, fmt::format("catalog {}: {}", catalog_path_.string(), why)});
    };
    if ((*catalog)->meta().store_id != store_id_) {
        return rebuild("it belongs to another store");
    }
    auto snapshot = (*catalog)->snapshot(env_, log_path_, nullptr);
    if (!snapshot) {
        // A segment that the catalog names is gone: nothing that a new catalog would mend.
        return std::unexpected(
            snapshot.error().os_error == ENOENT
                ? Error{Code::io,
                        fmt::format("{}; it is part of the log and must be restored",
                                    snapshot.error().message),
                        ENOENT}
                : snapshot.error());
    }
    const auto& sealed = (*snapshot)->segments();
    if (sealed.size() > ids.size()) {
        return rebuild("it knows more segments than there are");
    }
    for (std::size_t i = 0; i < sealed.size(); ++i) {
        if (sealed[i].row.id != ids[i]) {
            return rebuild(fmt::format("it does not know segment {}", ids[i]));
        }
        if (auto checked = check_segment(*sealed[i].segment, i == 0 ? 0 : sealed[i - 1].row.id,
                                         i == 0 ? 0 : sealed[i - 1].row.bytes);
            !checked) {
            return std::unexpected(checked.error());
        }
    }
    catalog_ = std::move(*catalog);
    locator_ = {catalog_->meta().secret, internals_.id_mask};
    return snapshot;
}

// Checks that a segment belongs to this store and follows the one before it.
Result<void> LogStore::check_segment(const Segment& segment, std::uint64_t previous_id,
                                     std::uint64_t previous_bytes) const {
    const SegmentHeader& header = segment.header();
    if (header.store_id != store_id_) {
        return std::unexpected(
            segment.corruption(kSegmentStoreIdAt, "it belongs to another store"));
    }
    if (header.previous_id != previous_id) {
        return std::unexpected(missing_segment(header.previous_id));
    }
    if (header.previous_bytes != previous_bytes) {
        return std::unexpected(Error{
            Code::corruption, fmt::format("{} is damaged at offset {}: it should be {} bytes long",
                                          (log_path_ / segment_file_name(previous_id)).string(),
                                          previous_bytes, header.previous_bytes)});
    }
    return {};
}

Result<void> LogStore::recover(const std::vector<std::uint64_t>& ids) {
    // All headers first: a damaged segment is no reason to rebuild the catalog.
    SegmentHeader newest;
    for (const std::uint64_t id : ids) {
        const auto segment = Segment::open(env_, log_path_, id);
        if (!segment) {
            return std::unexpected(segment.error());
        }
        newest = (*segment)->header();
    }
    store_id_ = newest.store_id;
    auto snapshot = open_catalog(ids);
    if (!snapshot && snapshot.error().code == Code::corruption) {
        CatalogMeta meta;
        meta.store_id = store_id_;
        if (auto made = make_catalog(meta); !made) {
            return made;
        }
        catalog_rebuilt_ = true;
        snapshot = open_catalog(ids);
    }
    if (!snapshot) {
        return std::unexpected(snapshot.error());
    }

    auto view = std::make_shared<View>();
    view->sealed = std::move(*snapshot);
    const auto& sealed = view->sealed->segments();
    std::uint64_t previous_id = sealed.empty() ? 0 : sealed.back().row.id;
    std::uint64_t previous_bytes = sealed.empty() ? 0 : sealed.back().row.bytes;
    std::uint64_t flushed = 0;
    std::uint64_t log_bytes = 0;
    for (const SealedSegment& segment : sealed) {
        next_sequence_ = std::max(next_sequence_, segment.row.next_sequence);
        written_time_ms_ = std::max(written_time_ms_, segment.row.time_high_ms);
        log_bytes += segment.row.bytes;
    }
    for (std::size_t i = sealed.size(); i < ids.size(); ++i) {
        auto segment = Segment::open(env_, log_path_, ids[i]);
        if (!segment) {
            return std::unexpected(segment.error());
        }
        if (auto checked = check_segment(**segment, previous_id, previous_bytes); !checked) {
            return checked;
        }
        const auto file_bytes = (*segment)->file().size();
        if (!file_bytes) {
            return std::unexpected(file_bytes.error());
        }
        const bool last = i + 1 == ids.size();
        auto unsealed = std::make_shared<Unsealed>(
            *segment,
            std::max(last ? choose_segment_bytes(log_bytes) : 0, *file_bytes) / kFrameBytesTypical);
        const auto replayed = replay(*unsealed, locator_);
        if (!replayed) {
            return std::unexpected(replayed.error());
        }
        flushed = *replayed;
        previous_id = ids[i];
        previous_bytes = unsealed->row.bytes;
        next_sequence_ = std::max(next_sequence_, unsealed->row.next_sequence);
        written_time_ms_ = std::max(written_time_ms_, unsealed->row.time_high_ms);
        log_bytes += unsealed->row.bytes;
        view->unsealed.insert(view->unsealed.begin(), std::move(unsealed));
        set_view(view);
        if (view->unsealed.size() > kUnsealedMax) {
            const std::shared_ptr<Unsealed> oldest = view->unsealed.back();
            view.reset();
            if (auto done = seal(*oldest); !done) {
                return done;
            }
            view = std::make_shared<View>(*view_);
        }
    }
    set_view(view);
    saw_time(written_time_ms_);
    if (view->unsealed.empty()) {
        return std::unexpected(missing_segment(ids.back() + 1));
    }
    if (auto inspected = inspect_newest(*view->unsealed.front()); !inspected) {
        return inspected;
    }
    auto writer =
        SegmentWriter::resume(env_, log_path_, newest, flushed, view->unsealed.front()->row.bytes);
    if (!writer) {
        return std::unexpected(writer.error());
    }
    writer_ = std::move(*writer);
    segment_bytes_ = choose_segment_bytes(log_bytes);
    return {};
}

// Judges what lies behind the last valid frame of the log.
Result<void> LogStore::inspect_newest(const Unsealed& newest) {
    const auto file_bytes = newest.segment->file().size();
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
