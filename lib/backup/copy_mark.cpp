#include "backup/copy_mark.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <system_error>

#include "engine/context.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

constexpr std::string_view kMarkText =
    "Made by `dedupctl backup` or `restore`. Named COPY, this file says that the directory is a "
    "copy of a store, which the next backup replaces, and of which `dedupctl restore` makes a "
    "store; named PARTIAL, that it is not finished.\n";

// Whether there is nothing in it that is not of a copy, and so somebody else's.
Result<bool> is_only_partial(Env& env, const Path& path) {
    constexpr std::array<std::string_view, 5> kNames = {kLockName, kPartialName, kReserveName,
                                                        "log", "catalog"};
    return DEDUP_TRY(is_partial(env, path)) &&
           std::ranges::all_of(DEDUP_TRY(env.list(path)), [&](const std::string& name) {
               return std::ranges::find(kNames, name) != kNames.end();
           });
}

}  // namespace

Result<bool> is_copy(Env& env, const Path& path) {
    return DEDUP_TRY(env.type(path)) == PathType::directory &&
           DEDUP_TRY(env.type(path / kCopyName)) == PathType::file;
}

Result<bool> is_partial(Env& env, const Path& path) {
    return DEDUP_TRY(env.type(path)) == PathType::directory &&
           DEDUP_TRY(env.type(path / kPartialName)) == PathType::file;
}

Result<bool> is_rest(Env& env, const Path& path) {
    if (DEDUP_TRY(is_copy(env, path)) || DEDUP_TRY(is_partial(env, path))) {
        return true;
    }
    return DEDUP_TRY(env.type(path)) == PathType::directory &&
           std::ranges::all_of(DEDUP_TRY(env.list(path)),
                               [](const std::string& name) { return name == kLockName; });
}

Result<void> remove_directory(const Path& path) {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    return error ? std::unexpected(os_failure("remove", path, error.value())) : Result<void>();
}

Result<void> mark_as_partial(Env& env, const Path& path) {
    const Path partial = path / kPartialName;
    if (DEDUP_TRY(is_copy(env, path))) {
        DEDUP_TRY(env.rename(path / kCopyName, partial));
    } else if (!DEDUP_TRY(is_partial(env, path))) {
        const auto mark = DEDUP_TRY(env.open(partial, OpenMode::create));
        DEDUP_TRY(mark->write(0, kMarkText));
        DEDUP_TRY(mark->sync());
    }
    return env.sync_directory(path);
}

Result<void> mark_as_copy(Env& env, const Path& path) {
    DEDUP_TRY(env.rename(path / kPartialName, path / kCopyName));
    return env.sync_directory(path);
}

Result<void> remove_mark(Env& env, const Path& path) {
    DEDUP_TRY(env.remove(path / kPartialName));
    return env.sync_directory(path);
}

Result<void> remove_copy(const Path& path) {
    Env& env = posix_env();  // that of a copy that is made may know another directory by this name
    DEDUP_TRY(mark_as_partial(env, path));
    for (const std::string& name : DEDUP_TRY(env.list(path))) {
        if (name != kPartialName) {
            DEDUP_TRY(remove_directory(path / name));
        }
    }
    DEDUP_TRY(env.sync_directory(path));
    return remove_directory(path);
}

Result<void> remove_partial(Env& env, const Path& path) {
    if (!DEDUP_TRY(is_only_partial(env, path))) {
        return {};
    }
    const auto lock = DEDUP_TRY(env.lock(path / kLockName, {}));
    return DEDUP_TRY(is_only_partial(env, path)) ? remove_copy(path) : Result<void>();
}

}  // namespace dedup
