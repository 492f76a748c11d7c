// dedupctl verify: reads all of a store and checks the log and the catalog against each other.

#include <fmt/format.h>

#include "clock_text.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "progress.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

void print_json(Context& context, const dedup::VerifyReport& report) {
    Json object;
    object["store"] = context.store_path;
    object["ok"] = report.problems.empty();
    object["segments"] = report.segments;
    object["frames"] = report.frames;
    object["records"] = report.records;
    object["bytes"] = report.bytes;
    object["index_entries"] = report.index_entries;
    object["time_high_ms"] = report.time_high_ms;
    object["problems"] = report.problems;
    object["log_damaged"] = report.log_damaged;
    context.out.json(object);
}

// A path for a new store: a slash at the end would put it inside.
std::string beside(std::string path) {
    while (path.size() > 1 && path.ends_with('/')) {
        path.pop_back();
    }
    return path + "-repaired";
}

void print_text(Context& context, const dedup::VerifyReport& report) {
    context.out.line(
        fmt::format("read {}, {}, {} in {}; {} index {}", count_of(report.segments, "segment"),
                    count_of(report.frames, "frame"), count_of(report.records, "record"),
                    human_bytes(report.bytes), group_digits(report.index_entries),
                    report.index_entries == 1 ? "entry" : "entries"));
    for (const std::string& problem : report.problems) {
        context.out.line(paint(escape(problem), Colour::red));
    }
    if (report.problems.empty()) {
        context.out.line(paint("no problem found", Colour::green));
    } else {
        context.out.line(count_of(report.problems.size(), "problem") + " found");
        context.out.line(
            report.log_damaged
                ? fmt::format("restore the store from a copy, or save what is intact in a new one: "
                              "`dedupctl -s {} repair {}`",
                              shell_word(context.store_path),
                              shell_word(beside(context.store_path)))
                : "the log is intact; the catalog and its index files (log/*.idx) are made anew "
                  "from "
                  "it when the store is opened for writing: remove files that are named above "
                  "first");
    }
}

int run_verify(Context& context) {
    context.check_globals();
    context.need_directory("verify", "use the server's own checks, such as pg_amcheck");
    Progress progress("verify", 0);
    const auto verified =
        dedup::verify(context.store_path, [&](std::uint64_t done, std::uint64_t total) {
            progress.set_total(total);
            progress.update(done);
        });
    progress.clear();
    if (!verified) {
        throw last_failure(verified.error());
    }
    const dedup::VerifyReport& report = *verified;
    warn_if_ahead(report.time_high_ms, dedup::system_now_ms());
    if (context.json) {
        print_json(context, report);
    } else {
        print_text(context, report);
    }
    return report.problems.empty() ? kExitOk : kExitError;
}

}  // namespace

Command verify_command(Context& context) {
    return {.name = "verify",
            .help = "Read everything and check it; exit 1 if anything is wrong",
            .run = [&context] { return run_verify(context); }};
}

}  // namespace dedupctl
