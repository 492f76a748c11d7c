// dedupctl ls: the heads of a namespace, one a line.

#include <unistd.h>

#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "record_text.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

struct LsArguments {
    std::string state;
    std::string older_than;
    std::string prefix;
    std::string limit;
};

struct Filter {
    std::string state;  // empty: any
    milliseconds older_than{0};

    [[nodiscard]] bool wants(const dedup::Record& record, const Moment& moment) const {
        return (state.empty() || state_word(record, moment) == state) &&
               moment.now_ms - record.timestamp_ms >= older_than.count();
    }
};

void print_json(Context& context, const dedup::Version& head, const Moment& moment) {
    Json object;
    object["namespace"] = head.record.ns;
    add_bytes(object, "key", head.record.key);
    object.update(version_json(head));
    object["state"] = json_state(state_word(head.record, moment));  // as it is now: "expired" too
    context.out.json(object);
}

// Widths are fixed, so that the columns of one page stand under those of the last.
Table make_table() {
    return Table({{"STATE", false, 9},
                  {"AGE", true, 7},
                  {"EXPIRES", false, 13},
                  {"ATTEMPT", true, 7},
                  {"OWNER", false, 16},
                  {"KEY"}});
}

void add_row(Table& table, const dedup::Record& record, const Moment& moment) {
    const std::string word = state_word(record, moment);
    table.add(
        {{word, state_colour(word)},
         {format_duration(milliseconds{moment.now_ms - record.timestamp_ms})},
         {record.expires_at_ms == 0 ? "never" : format_age(record.expires_at_ms, moment.now_ms)},
         {std::to_string(record.attempt)},
         {record.owner.empty() ? "-" : preview(record.owner, 24)},
         {escape(record.key)}});
}

int run_ls(const LsArguments& options, Context& context) {
    context.check_globals();
    Filter filter{.state = options.state};
    if (!options.older_than.empty()) {
        filter.older_than = parse_duration(options.older_than, "--older-than");
    }
    std::uint64_t left =
        options.limit.empty() ? UINT64_MAX : parse_number(options.limit, "--limit", 1, UINT64_MAX);

    const auto store = context.open_reader();
    // Titles would be one more line for `wc -l` and the like to stumble over.
    bool with_titles = ::isatty(STDOUT_FILENO) == 1;
    dedup::ScanOptions scan;
    scan.ns = context.ns;
    scan.key_prefix = options.prefix;
    do {
        const dedup::ScanPage page = take(store->scan(scan));
        const Moment moment{store->now_ms(), store->grace()};
        Table table = make_table();
        for (const dedup::Version& head : page.heads) {
            if (left == 0 || !filter.wants(head.record, moment)) {
                continue;
            }
            --left;
            if (context.json) {
                print_json(context, head, moment);
            } else {
                add_row(table, head.record, moment);
            }
        }
        table.print(context.out, with_titles && !context.json);
        with_titles = false;
        context.out.flush();
        scan.cursor = page.cursor;
    } while (!scan.cursor.empty() && left != 0);
    return kExitOk;
}

}  // namespace

Command ls_command(Context& context) {
    const auto options = std::make_shared<LsArguments>();
    return {.name = "ls",
            .help = "List keys, one a line",
            .options = {{.name = "--state",
                         .to = &options->state,
                         .help = "Only those in this state now",
                         .type = "STATE",
                         .choices = {"in-flight", "completed", "released", "expired"}},
                        {.name = "--older-than",
                         .to = &options->older_than,
                         .help = "Only those in it for this long",
                         .type = "D",
                         .filled = true},
                        {.name = "--prefix",
                         .to = &options->prefix,
                         .help = "Only keys that start with P",
                         .type = "P"},
                        {.name = "--limit",
                         .to = &options->limit,
                         .help = "At most this many",
                         .type = "N",
                         .filled = true}},
            .run = [options, &context] { return run_ls(*options, context); }};
}

}  // namespace dedupctl
