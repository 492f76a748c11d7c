// dedupctl sweep: removes what has expired, gives back its space, and says exactly what went.
//
// The store is open only while a sweep runs: between those of --every, others may write.

#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <stop_token>

#include "clock_text.hpp"
#include "commands.hpp"
#include "progress.hpp"
#include "stop_signal.hpp"
#include "sweep_text.hpp"

namespace dedupctl {
namespace {

struct SweepArguments {
    bool dry_run = false;
    bool compact = false;
    bool trust_clock = false;
    bool history = false;
    std::string max_time;
    std::string every;
};

// Null if a signal came while another process held the store.
std::unique_ptr<dedup::StreamStore> open_writer(const Context& context, StopSignal& stop) {
    auto store = context.try_open_writer(context.lock_timeout, [&] { return !stop.requested(); });
    if (!store && store.error().code == dedup::Code::busy && stop.requested()) {
        return nullptr;
    }
    return take(std::move(store));
}

dedup::SweepReport sweep(dedup::StreamStore& store, dedup::SweepOptions options, StopSignal& stop) {
    Progress progress("sweep", 0);
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
        static_cast<void>(stop.requested());
        progress.set_total(total);
        progress.update(done);
    };
    options.stop = stop.token();
    return take(store.sweep(options));
}

// Nothing if a signal came before there was anything to report.
std::optional<dedup::SweepReport> open_and_sweep(const dedup::SweepOptions& options,
                                                 const Context& context, StopSignal& stop) {
    const auto store = options.dry_run ? context.open_reader() : open_writer(context, stop);
    if (!store) {
        return std::nullopt;
    }
    const dedup::SweepReport report = sweep(*store, options, stop);
    take(store->close());
    if (report.withheld) {  // on standard error, where cron looks for what to mail
        note(fmt::format("nothing that has expired {} removed: {}; {}",
                         report.dry_run ? "would be" : "was", withheld_text(*report.withheld),
                         withheld_hint(*report.withheld)));
    }
    return report;
}

int run_once(const dedup::SweepOptions& options, Context& context) {
    StopSignal stop;
    if (const auto report = open_and_sweep(options, context, stop)) {
        if (context.json) {
            context.out.json(sweep_json(*report));
        } else {
            print_sweep(context.out, *report, dedup::system_now_ms());
        }
    }
    return stop.requested() ? kExitSignalBase + *stop.signal() : kExitOk;
}

void print_row(Context& context, const dedup::SweepReport& report, bool with_titles) {
    if (context.json) {
        context.out.json(sweep_json(report));
        return;
    }
    Table table = sweep_table();
    add_sweep_row(table, report);
    table.print(context.out, with_titles);
}

// What prevents the first sweep ends the command, as it is likely to be a mistake of the caller's;
// what prevents a later one may have passed by the next.
int run_every(milliseconds pause, const dedup::SweepOptions& options, Context& context) {
    StopSignal stop;
    bool first = true;
    do {
        std::optional<dedup::SweepReport> report;
        try {
            report = open_and_sweep(options, context, stop);
        } catch (const Failure& failure) {
            if (first) {
                throw;
            }
            dedupctl::report(failure, context);
        }
        if (report) {
            print_row(context, *report, first && ::isatty(STDOUT_FILENO) == 1);
            context.out.flush();
        }
        first = false;
    } while (!stop.requested_within(pause));
    return kExitOk;
}

int run_history(Context& context) {
    const auto store = context.open_reader();
    bool with_titles = ::isatty(STDOUT_FILENO) == 1;
    for (const dedup::SweepReport& report : take(store->sweep_history())) {
        print_row(context, report, with_titles);
        with_titles = false;
    }
    return kExitOk;
}

int run_sweep(const SweepArguments& options, Context& context) {
    context.check_globals();
    dedup::SweepOptions sweep_options;
    sweep_options.dry_run = options.dry_run;
    sweep_options.compact = options.compact;
    sweep_options.trust_clock = options.trust_clock;
    if (!options.max_time.empty()) {
        sweep_options.time_max = parse_duration(options.max_time, "--max-time");
    }
    if (options.history) {
        return run_history(context);
    }
    if (options.every.empty()) {
        return run_once(sweep_options, context);
    }
    return run_every(parse_duration(options.every, "--every"), sweep_options, context);
}

}  // namespace

Command sweep_command(Context& context) {
    const auto options = std::make_shared<SweepArguments>();
    return {.name = "sweep",
            .help = "Remove what has expired, of all namespaces, and give back its space",
            .options = {{.name = "--dry-run",
                         .to = &options->dry_run,
                         .help = "Say what would go, and change nothing"},
                        {.name = "--compact",
                         .to = &options->compact,
                         .help = "Leave no garbage in the log, which may write all of it anew; "
                                 "without it up to a sixth stays"},
                        {.name = "--trust-clock",
                         .to = &options->trust_clock,
                         .help = "The time is right: sweep although the clock jumped forward by "
                                 "more than a day, or the store rested for so long"},
                        {.name = "--max-time",
                         .to = &options->max_time,
                         .help = "Stop after this long; the next sweep goes on",
                         .type = "D",
                         .filled = true},
                        {.name = "--every",
                         .to = &options->every,
                         .help = "Sweep again and again, this long apart, until SIGINT or SIGTERM",
                         .type = "D",
                         .filled = true,
                         .excludes = {"--dry-run"}},
                        {.name = "--history",
                         .to = &options->history,
                         .help = "List past sweeps, the newest first",
                         .excludes = {"--dry-run", "--compact", "--trust-clock", "--max-time",
                                      "--every"}}},
            .run = [options, &context] { return run_sweep(*options, context); }};
}

}  // namespace dedupctl
