// dedupctl migrate: takes all records of one store into another, beside whoever uses either.
//
// What the new store has already stays, as the newer of the two. So it may run while a service
// writes to the new store, and again after it was cut short.

#include <fmt/format.h>

#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/scan.hpp"
#include "importer.hpp"
#include "progress.hpp"
#include "stop_signal.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kPageHeads = 1'024;

struct MigrateArguments {
    std::string from;
    std::string to;
};

// False if a signal has ended it.
bool take_all(dedup::StreamStore& from, Importer& importer, StopSignal& stop, Progress& progress) {
    const dedup::ScanOptions options{.heads_max = kPageHeads};
    take(for_each_page(from, options, [&](dedup::ScanPage& page) {
        for (dedup::Version& version : page.heads) {
            if (stop.requested()) {
                return false;
            }
            std::string place = dedup::stream_name(version.record.ns, version.record.key);
            if (const std::string why =
                    importer.add({.place = place, .record = std::move(version.record)});
                !why.empty()) {
                throw Failure{.code = "invalid_argument",
                              .message = fmt::format("stream {}: {}", place, why)};
            }
        }
        progress.update_count(importer.counts().read());
        return true;
    }));
    return !stop.requested();
}

void print_migrated(Context& context, const ImportCounts& counts) {
    if (context.json) {
        context.out.json({{"read", counts.read()},
                          {"migrated", counts.imported},
                          {"equal", counts.equal},
                          {"newer", counts.differ},
                          {"expired", counts.expired}});
        return;
    }
    std::string text = fmt::format("{} migrated", count_of(counts.imported, "record"));
    const auto add = [&](std::uint64_t number, std::string_view what) {
        text += number == 0 ? "" : fmt::format(", {} {}", group_digits(number), what);
    };
    add(counts.equal, "there already");
    add(counts.differ, "there with a record of the new store's own, which stays");
    add(counts.expired, "expired");
    context.out.line(text);
}

int run_migrate(const MigrateArguments& options, Context& context) {
    context.check_globals();
    if (options.from == options.to) {
        throw usage_failure("both stores are the same one");
    }
    context.store_path = options.from;
    const auto from = context.open_reader();
    context.store_path = options.to;
    const auto to = context.open_writer();
    StopSignal stop;
    Importer importer(*to, Importer::Differences::counted);
    Progress progress("migrate", take(from->stats()).streams());
    bool whole = false;
    try {
        whole = take_all(*from, importer, stop, progress);
        importer.finish();
    } catch (Failure& failure) {
        progress.clear();
        failure.message += "; running it again goes on with the rest";
        throw;
    }
    progress.clear();
    take(to->close());
    print_migrated(context, importer.counts());
    if (!whole) {
        note("ended by a signal; running it again goes on with the rest");
        return kExitSignalBase + *stop.signal();
    }
    return kExitOk;
}

}  // namespace

Command migrate_command(Context& context) {
    const auto options = std::make_shared<MigrateArguments>();
    return {.name = "migrate",
            .help = "Take all records of one store into another, whatever their engines",
            .options = {{.name = "FROM",
                         .to = &options->from,
                         .help = "The old store: a directory or a URL. Nothing in it is changed",
                         .required = true},
                        {.name = "TO",
                         .to = &options->to,
                         .help = "The new store, which may be in use; what it has already stays",
                         .required = true}},
            .run = [options, &context] { return run_migrate(*options, context); }};
}

}  // namespace dedupctl
