// dedupctl backup and restore: copies of a store.

#include "dedup/backup.hpp"

#include <fmt/format.h>

#include "commands.hpp"
#include "common/text.hpp"
#include "progress.hpp"
#include "record_json.hpp"

namespace dedupctl {
namespace {

constexpr const char* kOfDatabase = "copy the database with its own tools";

Json json_of(const dedup::BackupReport& report) {
    Json object;
    object["store_id"] = report.store_id;
    object["keys"] = report.keys;
    object["last_sequence"] = report.last_sequence;
    object["segments"] = report.segments;
    object["bytes_copied"] = report.bytes_copied;
    object["bytes_linked"] = report.bytes_linked;
    return object;
}

// Calls copy(progress), and gives what it gives.
template <class Copy>
auto with_progress(const char* name, Copy copy) {
    Progress progress(name, 0);
    auto report = copy([&](std::uint64_t done, std::uint64_t total) {
        progress.set_total(total);
        progress.update(done);
    });
    progress.clear();
    if (!report) {
        throw last_failure(report.error());
    }
    return *std::move(report);
}

int run_backup(Context& context, const std::string& target, bool link) {
    context.check_globals();
    context.need_directory("backup", kOfDatabase);
    const auto report = with_progress("backup", [&](const dedup::Progress& progress) {
        return dedup::backup(context.store_path, target, {.link = link}, progress);
    });
    if (context.json) {
        Json object = json_of(report);
        object["store"] = context.store_path;
        object["target"] = target;
        context.out.json(object);
        return kExitOk;
    }
    context.out.line(fmt::format(
        "{} in {}, up to sequence {}; {} copied, {} shared; checked", count_of(report.keys, "key"),
        escape(target), group_digits(report.last_sequence), human_bytes(report.bytes_copied),
        human_bytes(report.bytes_linked)));
    return kExitOk;
}

int run_restore(Context& context, const std::string& copy, bool raise) {
    context.check_globals();
    context.need_directory("restore", kOfDatabase);
    const auto report = with_progress("restore", [&](const dedup::Progress& progress) {
        return dedup::restore(copy, context.store_path, {.raise = raise}, progress);
    });
    if (context.json) {
        Json object = json_of(report.copy);
        object["store"] = context.store_path;
        object["copy"] = copy;
        object["next_sequence"] = report.next_sequence;
        object["raised"] = raise;
        context.out.json(object);
        return kExitOk;
    }
    context.out.line(fmt::format("{} in {}; sequences go on at {}",
                                 count_of(report.copy.keys, "key"), escape(context.store_path),
                                 group_digits(report.next_sequence)));
    if (raise && !context.quiet) {
        note(
            "what was claimed or completed after the copy was taken is not known here: if it "
            "comes again it runs again");
    }
    return kExitOk;
}

}  // namespace

Command backup_command(Context& context) {
    struct Options {
        std::string target;
        bool link = false;
    };
    const auto options = std::make_shared<Options>();
    return {
        .name = "backup",
        .help = "Copy the store while it is in use; an older copy at TARGET is replaced",
        .options = {{.name = "TARGET",
                     .to = &options->target,
                     .help = "The copy's directory: nothing, or an older copy of this store",
                     .required = true},
                    {.name = "--link",
                     .to = &options->link,
                     .help = "Share sealed segments with the store, by hard links: takes next "
                             "to no room, and is no help against a failing disk"}},
        .run = [options, &context] { return run_backup(context, options->target, options->link); },
        .examples = "  dedupctl -s /var/lib/orders backup /backups/orders   # every hour\n"};
}

Command restore_command(Context& context) {
    struct Options {
        std::string copy;
        bool raise = false;
        bool as_it_was = false;
    };
    const auto options = std::make_shared<Options>();
    return {.name = "restore",
            .help = "Make the store, where nothing is, of a copy of it",
            .options = {{.name = "COPY",
                         .to = &options->copy,
                         .help = "A directory that `dedupctl backup` has made",
                         .required = true},
                        {.name = "--raise",
                         .to = &options->raise,
                         .help = "Let sequences go on far above the copy's; this is the default"},
                        {.name = "--as-it-was",
                         .to = &options->as_it_was,
                         .help = "Let sequences go on behind the copy's last one: only if the "
                                 "store has assigned none since"}},
            .run =
                [options, &context] {
                    if (options->raise && options->as_it_was) {
                        throw usage_failure("--raise and --as-it-was exclude each other");
                    }
                    return run_restore(context, options->copy, !options->as_it_was);
                },
            .examples = "  dedupctl -s /var/lib/orders restore /backups/orders\n"};
}

}  // namespace dedupctl
