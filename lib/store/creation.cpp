// Finding a store, and creating one.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "record/invalid.hpp"
#include "store/log_store.hpp"

namespace dedup {
namespace {

// What a store has besides its log only once its first segment is durable. While one of these is
// there, a log without segments has not just been begun: it is lost.
constexpr std::array<std::string_view, 2> kTraces = {"catalog", kReserveName};

bool is_trace(const std::string& name) {
    return std::ranges::find(kTraces, name) != kTraces.end();
}

Error lost_log(const Path& path) {
    return {Code::corruption,
            fmt::format("store {} has lost its log: {} has no segments, although there is a "
                        "catalog or a reserve beside it; put the segments back, or remove {} to "
                        "begin with an empty store",
                        path.string(), (path / "log").string(), path.string())};
}

}  // namespace

Result<bool> LogStore::find_store(Env& env, const Path& path) {
    const auto type = env.type(path);
    if (!type) {
        return std::unexpected(type.error());
    }
    if (*type == PathType::absent) {
        return false;
    }
    if (*type != PathType::directory) {
        return invalid(fmt::format("{} is not a directory, and a store is one; name another path",
                                   path.string()));
    }
    const auto names = env.list(path);
    if (!names) {
        return std::unexpected(names.error());
    }
    if (std::ranges::find(*names, "log") != names->end()) {
        return true;
    }
    // A creation that was cut short may have left the lock.
    const auto is_ours = [](const std::string& name) {
        return name == kLockName || is_trace(name);
    };
    if (!std::ranges::all_of(*names, is_ours)) {
        return invalid(
            fmt::format("{} is a directory with other things in it, not a store; name another path",
                        path.string()));
    }
    if (std::ranges::any_of(*names, is_trace)) {
        return std::unexpected(lost_log(path));
    }
    return false;
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

// Of a log without segments. Errors: corruption (it had some), invalid_argument (there is no store,
// and none is to be created).
Result<void> LogStore::check_creatable() const {
    const auto names = env_.list(path_);
    if (!names) {
        return std::unexpected(names.error());
    }
    if (std::ranges::any_of(*names, is_trace)) {
        return std::unexpected(lost_log(path_));
    }
    if (options_.read_only || !options_.create) {
        return invalid(fmt::format("there is no store at {}", path_.string()));
    }
    return {};
}

// The first segment and the catalog of a new store. The store exists with the segment's name; only
// then comes the catalog, which tells a log that is lost from one that was never begun.
Result<void> LogStore::create_files() {
    auto done = check_creatable();
    SegmentHeader header;
    header.id = 1;
    if (done) {
        done = env_.random(header.store_id);
    }
    if (!done) {
        return done;
    }
    if (const auto segment = SegmentWriter::create(env_, log_path_, header, {}); !segment) {
        return std::unexpected(segment.error());
    }
    done = sync_directories();
    store_id_ = header.store_id;
    return done ? make_catalog() : done;
}

// Makes an empty catalog with a new secret in place of whatever is there.
Result<void> LogStore::make_catalog() {
    CatalogMeta meta;
    meta.store_id = store_id_;
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
    return env_.sync_directory(path_);
}

}  // namespace dedup
