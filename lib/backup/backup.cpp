#include "backup/backup.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <system_error>

#include "backup/copy_files.hpp"
#include "backup/copy_mark.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"
#include "repair/verify.hpp"
#include "store/raise.hpp"
#include "store/read_log.hpp"

namespace dedup {
namespace {

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

// Makes the directory in which the copy comes to be, or empties what one that was cut short has
// left. As long as the lock is held nobody else does.
Result<std::unique_ptr<Lock>> begin_partial(Env& env, const Path& partial, const Path& like) {
    if (DEDUP_TRY(env.type(partial)) == PathType::absent) {
        DEDUP_TRY(env.make_directory_like(partial, like));
    } else if (!DEDUP_TRY(is_rest(env, partial))) {
        return in_the_way(partial, "which is not the rest of a copy that was cut short");
    }
    auto lock = DEDUP_TRY(env.lock(partial / kLockName, {}));
    DEDUP_TRY(mark_as_partial(env, partial));
    DEDUP_TRY(remove_directory(partial / kReserveName));
    for (const char* name : {"log", "catalog"}) {
        // Not the directories: the environment may have them open.
        DEDUP_TRY(env.make_directory(partial / name));
        for (const std::string& file : DEDUP_TRY(env.list(partial / name))) {
            DEDUP_TRY(env.remove(partial / name / file));
        }
    }
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
    internals.partial = true;
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
    LogStoreInternals internals;
    internals.partial = true;
    OpenOptions reading;
    reading.read_only = true;
    const auto store = DEDUP_TRY(LogStore::open(env, copy, reading, internals));
    const VerifyReport report = DEDUP_TRY(verify(*store, progress));
    if (report.problems.empty()) {
        return {};
    }
    return std::unexpected(
        Error{Code::corruption,
              fmt::format("the copy of {} is damaged, and so is the store, or the disk with the "
                          "copy: {}; look with `dedupctl verify`",
                          from.string(), report.problems.front())});
}

Path older_of(const Path& target) {
    return target.string() + ".older";
}

// Gives the copy its name. What was there gets the partial one's, or where two names cannot be
// exchanged in one step another one, and is removed. `placed` becomes true with the name.
Result<void> put_in_place(Env& env, const Path& partial, const Path& target, bool replace,
                          bool& placed) {
    Path replaced = partial;
    if (!replace) {
        DEDUP_TRY(env.rename(partial, target));
    } else if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) !=
               0) {
        if (errno != EINVAL && errno != ENOSYS) {
            return std::unexpected(os_failure("replace", target, errno));
        }
        replaced = older_of(target);
        DEDUP_TRY(env.rename(target, replaced));
        if (auto renamed = env.rename(partial, target); !renamed) {
            (void)env.rename(replaced, target);
            return renamed;
        }
    }
    placed = true;
    DEDUP_TRY(env.sync_directory(target / ".."));
    if (replace) {
        (void)remove_copy(replaced);  // or the next copy does
    }
    return {};
}

// What a replacement that was cut short between two names has left.
Result<void> tidy_older(Env& env, const Path& target) {
    const Path older = older_of(target);
    if (DEDUP_TRY(env.type(target)) == PathType::absent) {
        return DEDUP_TRY(is_copy(env, older)) ? env.rename(older, target) : Result<void>();
    }
    return DEDUP_TRY(is_rest(env, older)) ? remove_copy(older) : Result<void>();
}

struct Wanted {
    Path from;
    Path to;
    bool replace = false;  // an older copy
    bool link = false;
    Change change = {};
};

class Copying {
  public:
    Copying(Env& env, const Wanted& wanted, const Progress& progress)
        : env_(env), wanted_(wanted), progress_(progress), partial_(partial_of(wanted.to)) {}

    Result<BackupReport> run() {
        OpenOptions reading;
        reading.read_only = true;
        const auto store = DEDUP_TRY(LogStore::open(env_, wanted_.from, reading));
        if (lies_in(wanted_.to, wanted_.from) || lies_in(wanted_.from, wanted_.to) ||
            lies_in(wanted_.from, partial_) || lies_in(wanted_.from, older_of(wanted_.to))) {
            return invalid(
                "a copy and what it is made of cannot lie in each other, nor be the same");
        }
        DEDUP_TRY(look_at_target(*store));
        bool placed = false;
        auto made = make(*store, replace_, placed);
        if (!made && replace_ && made.error().code == Code::corruption) {
            // It may be the older copy that is damaged, whose files were shared.
            made = make(*store, false, placed);
        }
        if (!made && begun_ && !placed && made.error().code != Code::busy &&
            made.error().code != Code::closed) {
            // Or it is another one's; or the parent's, of a child that was forked in `progress`.
            (void)remove_copy(partial_);
        }
        return made;
    }

  private:
    Result<void> look_at_target(LogStore& store) {
        if (!wanted_.replace) {
            DEDUP_TRY(remove_partial(env_, wanted_.to));
            return DEDUP_TRY(env_.type(wanted_.to)) == PathType::absent
                       ? Result<void>()
                       : in_the_way(wanted_.to, "and nothing is replaced");
        }
        DEDUP_TRY(tidy_older(env_, wanted_.to));
        if (DEDUP_TRY(env_.type(wanted_.to)) == PathType::absent) {
            return {};
        }
        if (!DEDUP_TRY(is_copy(env_, wanted_.to)) ||
            DEDUP_TRY(store_id_at(env_, wanted_.to)) != store.context().store_id) {
            return in_the_way(wanted_.to, "which is no copy of this store");
        }
        older_locks_ = DEDUP_TRY(lock_out_writers(env_, wanted_.to));
        replace_ = true;
        return {};
    }

    Result<BackupReport> make(LogStore& store, bool share, bool& placed) {
        auto lock = DEDUP_TRY(begin_partial(env_, partial_, wanted_.from));
        begun_ = true;
        BackupReport report;
        const CopyPlace place{env_, partial_, share ? std::optional(wanted_.to) : std::nullopt,
                              wanted_.link};
        DEDUP_TRY(store.take_up());
        DEDUP_TRY(copy_files(store, place, report, progress_));
        lock.reset();  // which opening it needs
        DEDUP_TRY(settle(env_, partial_, wanted_.change, report));
        lock = DEDUP_TRY(env_.lock(partial_ / kLockName, {}));
        DEDUP_TRY(check(env_, partial_, wanted_.from, progress_));
        if (wanted_.replace) {
            DEDUP_TRY(mark_as_copy(env_, partial_));
        }
        DEDUP_TRY(put_in_place(env_, partial_, wanted_.to, replace_, placed));
        if (!wanted_.replace) {  // it was known by its mark until it had its name
            DEDUP_TRY(remove_mark(env_, wanted_.to));
        }
        return report;
    }

    Env& env_;
    const Wanted& wanted_;
    const Progress& progress_;
    const Path partial_;
    bool replace_ = false;  // there is an older copy
    bool begun_ = false;    // the partial one is this one's
    std::vector<std::unique_ptr<Lock>> older_locks_;
};

Result<void> raise_sequences(LogStore& store) {
    LogWriter& writer = store.engine().writer;
    return writer.alone(
        [&](const Turn& turn) { return pass_lost_sequences(writer, turn, store.context().env); });
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
    const Wanted wanted{.from = store, .to = target, .replace = true, .link = options.link};
    return Copying(env, wanted, progress).run();
}

Result<RestoreReport> restore(Env& env, const Path& backup, const Path& target,
                              const RestoreOptions& options, const Progress& progress) {
    if (DEDUP_TRY(env.type(backup)) == PathType::absent &&
        DEDUP_TRY(is_copy(env, older_of(backup)))) {
        return invalid(
            fmt::format("there is no copy at {}, but one at {}: a backup was cut short "
                        "as it replaced that one; restore it from there",
                        backup.string(), older_of(backup).string()));
    }
    RestoreReport report;
    Wanted wanted{.from = backup, .to = target};
    wanted.change = [&](LogStore& store) -> Result<void> {
        if (options.raise) {
            DEDUP_TRY(raise_sequences(store));
        }
        report.next_sequence = DEDUP_TRY(store.stats()).last_sequence + 1;
        return {};
    };
    report.copy = DEDUP_TRY(Copying(env, wanted, progress).run());
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
