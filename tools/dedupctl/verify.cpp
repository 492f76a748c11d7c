// dedupctl verify: reads all of a store and checks the log and the catalog against each other.

#include <fmt/format.h>

#include "clock_text.hpp"
#include "commands.hpp"
#include "progress.hpp"
#include "table.hpp"
#include "text.hpp"

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
    context.out.json(object);
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
    }
}

int run_verify(Context& context) {
    context.check_globals();
    Progress progress("verify", 0);
    const dedup::VerifyReport report =
        take(dedup::verify(context.store_path, [&](std::uint64_t done, std::uint64_t total) {
            progress.set_total(total);
            progress.update(done);
        }));
    progress.clear();
    warn_if_ahead(report.time_high_ms, dedup::system_now_ms());
    if (context.json) {
        print_json(context, report);
    } else {
        print_text(context, report);
    }
    return report.problems.empty() ? kExitOk : kExitError;
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
    CLI::App* command =
        app.add_subcommand("verify", "Read everything and check it; exit 1 if anything is wrong");
    command->callback([&context] { context.exit_code = run_verify(context); });
}

}  // namespace dedupctl
