// dedupctl stats: how much a store holds, and in what state it is.

#include <fmt/format.h>

#include "clock_text.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "progress.hpp"
#include "stats_json.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

NextSweep next_sweep(dedup::StreamStore& store) {
    Progress progress("stats", 0);
    dedup::SweepOptions options;
    options.dry_run = true;
    options.unanswered_max = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
        progress.set_total(total);
        progress.update(done);
    };
    return store.sweep(options);
}

std::string human_and_exact(std::uint64_t bytes) {
    return bytes < 1024 ? human_bytes(bytes)
                        : fmt::format("{} ({} bytes)", human_bytes(bytes), group_digits(bytes));
}

void add_sweep_rows(Table& table, const dedup::StoreStats& stats, const NextSweep& next,
                    std::int64_t now_ms) {
    table.add(
        {{"last sweep"},
         {stats.last_sweep_ms == 0 ? "none" : format_time_and_age(stats.last_sweep_ms, now_ms)}});
    if (next) {
        table.add({{"next sweep"},
                   {fmt::format("{}, {}", count_of(next->removed.total(), "stream"),
                                human_and_exact(next->bytes_reclaimed()))}});
    } else {
        table.add({{"next sweep"}, {"unknown: " + escape(next.error().message), Colour::red}});
    }
    if (stats.withheld) {
        table.add({{"sweeps withheld"}, {withheld_text(*stats.withheld), Colour::yellow}});
        table.add({{""}, {withheld_hint(*stats.withheld)}});
    }
    table.add({{"evicted"}, {group_digits(stats.evicted)}});
    if (const auto [damaged, damage] = known_damage(stats, &next); damaged != 0) {
        table.add(
            {{"damaged"},
             {fmt::format("{}: {}", count_of(damaged, "place"), escape(damage)), Colour::red}});
    }
    if (!stats.sweep_error.empty()) {
        table.add({{"sweep error"}, {escape(stats.sweep_error), Colour::red}});
    }
}

void print_table(Context& context, const dedup::StoreStats& stats, const NextSweep& next,
                 std::int64_t now_ms) {
    Table table({{"", false, 16}, {""}});
    const auto row = [&](const char* name, std::string value, Colour colour = Colour::none) {
        table.add({{name}, {std::move(value), colour}});
    };
    row("store", escape(context.shown_store()));
    row("store id", stats.store_id);
    row("keys", group_digits(stats.streams()));
    row("  in-flight", group_digits(stats.in_flight));
    row("  completed", group_digits(stats.completed));
    row("  released", group_digits(stats.released));
    row("records", group_digits(stats.records));
    row("last sequence", group_digits(stats.last_sequence));
    row("last activity",
        stats.time_high_ms == 0 ? "none" : format_time_and_age(stats.time_high_ms, now_ms));
    add_clock_rows(table, stats.clock);
    row("segments",
        fmt::format("{} sealed, {} unsealed", stats.segments_sealed, stats.segments_unsealed));
    row("log", human_and_exact(stats.log_bytes));
    row("catalog", human_and_exact(stats.catalog_bytes));
    row("bytes a key", fmt::format("{:.1f}", bytes_per_key(stats)));
    row("tail to replay", human_and_exact(stats.tail_bytes));
    row("memory", human_and_exact(stats.memory_bytes));
    add_sweep_rows(table, stats, next, now_ms);
    if (stats.torn_bytes_dropped != 0) {
        row("torn tail", human_and_exact(stats.torn_bytes_dropped) + " of an unfinished write",
            Colour::yellow);
    }
    if (stats.catalog_rebuilt) {
        row("catalog rebuilt", "yes, from the log", Colour::yellow);
    }
    if (!stats.background_error.empty()) {
        row("background error", escape(stats.background_error), Colour::red);
    }
    if (!stats.write_error.empty()) {
        row("takes no writes", escape(stats.write_error), Colour::red);
    }
    table.print(context.out, false);
}

// What a process that writes to the store has counted is not seen from outside; it serves that
// itself, with dedup::prometheus_text.
void print_prometheus(Context& context, dedup::StreamStore& store, const dedup::StoreStats& stats,
                      const NextSweep& next) {
    context.out.write(dedup::prometheus_text(stats));
    // Without a claim in flight, expired or not, there is no need to read all keys.
    context.out.write(dedup::prometheus_text(
        stats.in_flight == 0 ? std::vector<dedup::OpenClaims>() : take(dedup::open_claims(store))));
    if (next) {
        context.out.write(fmt::format(
            "# HELP dedup_store_next_sweep_streams Streams that a sweep would remove now.\n"
            "# TYPE dedup_store_next_sweep_streams gauge\n"
            "dedup_store_next_sweep_streams {}\n"
            "# HELP dedup_store_next_sweep_bytes Bytes that a sweep would give back now.\n"
            "# TYPE dedup_store_next_sweep_bytes gauge\n"
            "dedup_store_next_sweep_bytes {}\n",
            next->removed.total(), next->bytes_reclaimed()));
    }
}

int run_stats(const std::string& format, Context& context) {
    context.check_globals();
    if (context.json && format != "text") {
        throw usage_failure("--format: 'prometheus' and --json exclude each other");
    }
    const auto store = context.open_reader();
    const dedup::StoreStats stats = take(store->stats());
    const NextSweep next = next_sweep(*store);
    warn_if_ahead(stats.time_high_ms, stats.clock_ms);
    if (format == "prometheus") {
        print_prometheus(context, *store, stats, next);
    } else if (context.json) {
        context.out.json(stats_json(context.shown_store(), stats, &next));
    } else {
        print_table(context, stats, next, dedup::system_now_ms());
    }
    return kExitOk;
}

}  // namespace

Command stats_command(Context& context) {
    const auto format = std::make_shared<std::string>("text");
    return {.name = "stats",
            .help = "Show how much the store holds, of all namespaces",
            .options = {{.name = "--format",
                         .to = format.get(),
                         .help = "How: 'text', or 'prometheus' for its text format",
                         .type = "FORMAT",
                         .shows_default = true,
                         .choices = {"text", "prometheus"}}},
            .run = [format, &context] { return run_stats(*format, context); }};
}

}  // namespace dedupctl
