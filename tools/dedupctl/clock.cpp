// dedupctl clock: the store's time beside the system's, and setting it back.

#include <fmt/format.h>

#include "clock_text.hpp"
#include "commands.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

void show(Context& context, const dedup::StoreStats& stats) {
    const std::int64_t ahead_ms = stats.time_high_ms - stats.clock_ms;
    if (context.json) {
        Json object;
        object["store"] = context.shown_store();
        object["store_ms"] = stats.time_high_ms;
        object["system_ms"] = stats.clock_ms;
        object["ahead_ms"] = ahead_ms > 0 ? ahead_ms : 0;
        object.update(clock_json(stats.clock));
        object["withheld"] = withheld_json(stats.withheld);
        context.out.json(object);
        return;
    }
    Table table({{"", false, 16}, {""}});
    table.add({{"store's time"},
               {stats.time_high_ms == 0 ? "none yet" : format_time(stats.time_high_ms)}});
    table.add({{"system's time"}, {format_time(stats.clock_ms)}});
    const bool ahead = ahead_ms > kAheadWorthSaying.count();
    table.add({{"ahead"},
               {ahead_ms > 0 ? format_duration(milliseconds{ahead_ms}) : "no",
                ahead ? Colour::yellow : Colour::none}});
    add_clock_rows(table, stats.clock);
    if (stats.withheld) {
        table.add({{"sweeps"}, {withheld_text(*stats.withheld), Colour::yellow}});
        table.add({{""}, {withheld_hint(*stats.withheld)}});
    }
    table.print(context.out, false);
    if (ahead) {
        context.out.line("If the system's clock is right: dedupctl clock --reset");
    }
}

int run_clock(bool reset, Context& context) {
    context.check_globals();
    if (!reset) {
        show(context, take(context.open_reader()->stats()));
        return kExitOk;
    }
    context.need_directory("clock --reset",
                           "the time is the server's; set its clock right, and "
                           "sweep with --trust-clock when it is");
    dedup::OpenOptions options;
    options.lock_timeout = context.lock_timeout;
    const auto done = take(dedup::reset_clock(context.store_path, options));
    if (context.json) {
        Json object;
        object["store"] = context.store_path;
        object["reset"] = done.has_value();
        object["from_ms"] = done ? Json(done->from_ms) : Json(nullptr);
        object["to_ms"] = done ? Json(done->to_ms) : Json(nullptr);
        context.out.json(object);
    } else if (done) {
        context.out.line(fmt::format("the store's time was set back by {}, from {} to {}",
                                     format_duration(milliseconds{done->from_ms - done->to_ms}),
                                     format_time(done->from_ms), format_time(done->to_ms)));
    } else {
        context.out.line("the store's time is not ahead of the system's; nothing was done");
    }
    return kExitOk;
}

}  // namespace

Command clock_command(Context& context) {
    const auto reset = std::make_shared<bool>(false);
    return {.name = "clock",
            .help = "Show the store's time beside the system's, and jumps of the clock",
            .options = {{.name = "--reset",
                         .to = reset.get(),
                         .help = "Set the store's time back to the system's, which is right; while "
                                 "nobody writes. What it had made expire, and no sweep removed, is "
                                 "valid again"}},
            .run = [reset, &context] { return run_clock(*reset, context); }};
}

}  // namespace dedupctl
