#include "backup/backup.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <system_error>

#include "backup/copy_files.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"
#include "repair/verify.hpp"
#include "store/read_log.hpp"

namespace dedup {
namespace {

// Sequences of a restored store go on at so many times the time in milliseconds: more than a store
// can assign, and until the year 2248 less than 2^53, above which JavaScript's numbers are not
// exact.
constexpr std::uint64_t kSequencesPerMs = 1024;

Path partial_of(const Path& target) {
    return target.string() + ".partial";
}

std::unexpected<Error> in_the_way(const Path& path, std::string_view what) {
    return invalid(fmt::format("there is something at {} already, {}; name another path",
                               path.string(), what));
}

bool lies_in(const Path& inner, const Path& outer) {
    std::error_code error;
    const Path inside = std::filesystem::weakly_canonical(inner, error)
                            .lexically_relative(std::filesystem::weakly_canonical(outer, error));
    return !inside.empty() && *inside.begin() != "..";
}

// Whether the directory has nothing in it but what a copy that was cut short has.
Result<bool> is_rest(Env& env, const Path& path) {
    constexpr std::array<std::string_view, 4> kNames = {kLockName, "log", "catalog", kReserveName};
    return std::ranges::all_of(DEDUP_TRY(env.list(path)), [&](const std::string& name) {
        return std::ranges::find(kNames, name) != kNames.end();
    });
}

// Makes the directory in which the copy comes to be, or empties the rest of one that was cut short.
// As long as the lock is held nobody else does.
Result<std::unique_ptr<Lock>> begin_partial(Env& env, const Path& partial, const Path& like) {
    const PathType type = DEDUP_TRY(env.type(partial));
    if (type == PathType::absent) {
        DEDUP_TRY(env.make_directory_like(partial, like));
    } else if (type != PathType::directory || !DEDUP_TRY(is_rest(env, partial))) {
        return in_the_way(partial, "which is not the rest of a copy that was cut short");
    }
    auto lock = DEDUP_TRY(env.lock(partial / kLockName, {}));
    for (const char* name : {"log", "catalog", kReserveName}) {
        std::error_code error;
        std::filesystem::remove_all(partial / name, error);
        if (error) {
            return std::unexpected(os_failure("remove", partial / name, error.value()));
        }
    }
    DEDUP_TRY(env.make_directory(partial / "log"));
    DEDUP_TRY(env.make_directory(partial / "catalog"));
    return lock;
}

// The id of the store whose log is in this directory; none if there is no such log.
Result<std::optional<StoreId>> store_id_at(Env& env, const Path& path) {
    if (DEDUP_TRY(env.type(path)) != PathType::directory ||
        DEDUP_TRY(env.type(path / "log")) != PathType::directory) {
        return std::nullopt;
    }
    const auto ids = DEDUP_TRY(list_segments(env, path / "log"));
    if (ids.empty()) {
        return std::nullopt;
    }
    return DEDUP_TRY(Segment::open(env, path / "log", ids.back()))->header().store_id;
}

// Keeps writers of the older copy out while it is replaced.
Result<std::vector<std::unique_ptr<Lock>>> lock_out_writers(Env& env, const Path& store) {
    std::vector<std::unique_ptr<Lock>> locks;
    for (const Path& path : {store / kLockName, store}) {
        locks.push_back(DEDUP_TRY(env.lock_out(path)));
    }
    return locks;
}

// What the copy is to be besides a copy.
using Change = std::function<Result<void>(LogStore&)>;

// Opens the copy as whoever restores it will: what a crash could have left of the store is mended,
// and the names are made durable.
Result<void> settle(Env& env, const Path& copy, const Change& change, BackupReport& report) {
    LogStoreInternals internals;
    internals.ignore_jumps = true;  // it has rested for no time
    OpenOptions options;
    options.create = false;
    const auto store = DEDUP_TRY(LogStore::open(env, copy, options, internals));
    if (change) {
        DEDUP_TRY(change(*store));
    }
    const StoreStats stats = DEDUP_TRY(store->stats());
    report.store_id = stats.store_id;
    report.keys = stats.streams();
    report.last_sequence = stats.last_sequence;
    return store->close();
}

Result<void> check(Env& env, const Path& copy, const Path& from, const Progress& progress) {
    const VerifyReport report = DEDUP_TRY(verify(env, copy, progress));
    if (report.problems.empty()) {
        return {};
    }
    return std::unexpected(
        Error{Code::corruption,
              fmt::format("the copy of {} is damaged, and so is the store, or the disk with the "
                          "copy: {}; look with `dedupctl verify`",
                          from.string(), report.problems.front())});
}

// Gives the copy its name. What was there gets the partial one's, and is removed.
Result<void> put_in_place(Env& env, const Path& partial, const Path& target, bool replace) {
    if (!replace) {
        DEDUP_TRY(env.rename(partial, target));
        return env.sync_directory(target / "..");
    }
    if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) != 0) {
        if (errno != EINVAL && errno != ENOSYS) {
            return std::unexpected(os_failure("replace", target, errno));
        }
        // Not in one step: for a moment, or should this be cut short, the older copy is beside.
        const Path older = target.string() + ".older";
        DEDUP_TRY(env.rename(target, older));
        DEDUP_TRY(env.rename(partial, target));
        DEDUP_TRY(env.rename(older, partial));
    }
    DEDUP_TRY(env.sync_directory(target / ".."));
    std::error_code ignored;
    std::filesystem::remove_all(partial, ignored);  // or the next copy does
    return {};
}

struct Wanted {
    Path from;
    Path to;
    bool replace = false;  // an older copy
    bool link = false;
    Change change = {};
};

Result<BackupReport> make_copy(Env& env, const Wanted& wanted, const Progress& progress) {
    OpenOptions reading;
    reading.read_only = true;
    auto store = DEDUP_TRY(LogStore::open(env, wanted.from, reading));
    if (lies_in(wanted.to, wanted.from)) {
        return invalid("the copy cannot lie in the store, nor be the store itself");
    }
    CopyPlace place{.env = env, .to = partial_of(wanted.to), .link = wanted.link};
    std::vector<std::unique_ptr<Lock>> older_locks;
    if (DEDUP_TRY(env.type(wanted.to)) != PathType::absent) {
        const auto id = DEDUP_TRY(store_id_at(env, wanted.to));
        if (!wanted.replace || id != store->context().store_id) {
            return in_the_way(wanted.to, wanted.replace ? "which is no copy of this store"
                                                        : "and nothing is replaced");
        }
        older_locks = DEDUP_TRY(lock_out_writers(env, wanted.to));
        place.older = wanted.to;
    }
    auto lock = DEDUP_TRY(begin_partial(env, place.to, wanted.from));
    BackupReport report;
    const auto make = [&]() -> Result<void> {
        DEDUP_TRY(store->take_up());
        DEDUP_TRY(copy_files(*store, place, report, progress));
        DEDUP_TRY(store->close());
        lock.reset();
        DEDUP_TRY(settle(env, place.to, wanted.change, report));
        DEDUP_TRY(check(env, place.to, wanted.from, progress));
        return put_in_place(env, place.to, wanted.to, place.older.has_value());
    };
    if (auto made = make(); !made) {
        // Or it is another one's; or the parent's, of a child that was forked in `progress`.
        if (made.error().code != Code::busy && made.error().code != Code::closed) {
            std::error_code ignored;
            std::filesystem::remove_all(place.to, ignored);
        }
        return std::unexpected(made.error());
    }
    return report;
}

Result<void> raise_sequences(LogStore& store) {
    LogWriter& writer = store.engine().writer;
    return writer.alone([&](const Turn& turn) -> Result<void> {
        const auto now = static_cast<std::uint64_t>(std::max<std::int64_t>(system_now_ms(), 0));
        const std::uint64_t last = std::max(writer.next_sequence(turn), now * kSequencesPerMs);
        DEDUP_TRY(writer.write_mark(turn, last));
        writer.set_next_sequence(turn, last + 1);
        return {};
    });
}

// The path of a directory that may not be there yet, and its environment.
struct Target {
    Path path;
    std::shared_ptr<Env> env;
};

Result<Target> target_at(const Path& path) {
    Path fixed = DEDUP_TRY(fixed_path(path));
    if (!fixed.has_filename()) {
        fixed = fixed.parent_path();  // a slash at the end
    }
    // Paths outside of the new copy are taken as they are.
    auto env = posix_env_of(partial_of(fixed), OpenOptions().permissions);
    return Target{std::move(fixed), std::move(env)};
}

}  // namespace

Result<BackupReport> backup(Env& env, const Path& store, const Path& target,
                            const BackupOptions& options, const Progress& progress) {
    return make_copy(env, {.from = store, .to = target, .replace = true, .link = options.link},
                     progress);
}

Result<RestoreReport> restore(Env& env, const Path& backup, const Path& target,
                              const RestoreOptions& options, const Progress& progress) {
    RestoreReport report;
    Wanted wanted{.from = backup, .to = target};
    wanted.change = [&](LogStore& store) -> Result<void> {
        if (options.raise) {
            DEDUP_TRY(raise_sequences(store));
        }
        report.next_sequence = DEDUP_TRY(store.stats()).last_sequence + 1;
        return {};
    };
    report.copy = DEDUP_TRY(make_copy(env, wanted, progress));
    return report;
}

Result<BackupReport> backup(const std::filesystem::path& store, const std::filesystem::path& target,
                            const BackupOptions& options, const Progress& progress) {
    const NoCancel no_cancel;
    const Path from = DEDUP_TRY(fixed_path(store));
    const auto to = DEDUP_TRY(target_at(target));
    return backup(*to.env, from, to.path, options, progress);
}

Result<RestoreReport> restore(const std::filesystem::path& backup,
                              const std::filesystem::path& target, const RestoreOptions& options,
                              const Progress& progress) {
    const NoCancel no_cancel;
    const Path from = DEDUP_TRY(fixed_path(backup));
    const auto to = DEDUP_TRY(target_at(target));
    return restore(*to.env, from, to.path, options, progress);
}

}  // namespace dedup
