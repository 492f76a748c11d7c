#include "store/creation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "log/segment_writer.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"

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

Result<bool> find_store(Env& env, const Path& path) {
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

Result<void> sync_directories(const StoreContext& context) {
    for (const Path& directory : {context.log_path, context.path}) {
        if (auto synced = context.env.sync_directory(directory); !synced) {
            return synced;
        }
    }
    auto synced = context.env.sync_directory(context.path / "..");
    // Whoever may not read the parent directory did not create the store in it either.
    return synced || synced.error().code == Code::read_only ? Result<void>() : synced;
}

Result<void> make_store_of_copy(const StoreContext& context) {
    const Path mark = context.path / kCopyMarkName;
    if (DEDUP_TRY(context.env.type(mark)) == PathType::absent) {
        return {};
    }
    DEDUP_TRY(context.env.remove(mark));
    return context.env.sync_directory(context.path);
}

Result<void> check_creatable(const StoreContext& context) {
    const auto names = context.env.list(context.path);
    if (!names) {
        return std::unexpected(names.error());
    }
    if (std::ranges::any_of(*names, is_trace)) {
        return std::unexpected(lost_log(context.path));
    }
    if (context.options.read_only || !context.options.create) {
        return invalid(fmt::format("there is no store at {}", context.path.string()));
    }
    return {};
}

Result<void> create_files(StoreContext& context) {
    auto done = check_creatable(context);
    SegmentHeader header;
    header.id = 1;
    if (done) {
        done = context.env.random(header.store_id);
    }
    if (!done) {
        return done;
    }
    if (const auto segment = SegmentWriter::create(context.env, context.log_path, header, {});
        !segment) {
        return std::unexpected(segment.error());
    }
    done = sync_directories(context);
    context.store_id = header.store_id;
    return done ? make_catalog(context) : done;
}

Result<void> make_catalog(const StoreContext& context) {
    CatalogMeta meta;
    meta.store_id = context.store_id;
    auto done = context.env.random(meta.secret);
    for (const char* name : {"data.mdb", "lock.mdb"}) {
        if (done) {
            done = remove_if_there(context.env, context.catalog_path / name);
        }
    }
    if (!done) {
        return done;
    }
    if (const auto catalog = Catalog::create(context.env, context.catalog_path, meta,
                                             context.internals.catalog_map_bytes);
        !catalog) {
        return std::unexpected(catalog.error());
    }
    return context.env.sync_directory(context.path);
}

}  // namespace dedup
