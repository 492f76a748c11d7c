// dedupctl ls and namespaces: the heads of a namespace, one a line, or counted.

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/scan.hpp"
#include "key_counts.hpp"
#include "record_text.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

struct LsArguments {
    std::string state;
    std::string older_than;
    std::string prefix;
    std::string limit;
    std::string sort = "log";
    bool stuck = false;
    bool all_namespaces = false;
};

struct Wanted {
    std::string state;  // empty: any
    milliseconds older_than{0};
    bool stuck = false;

    [[nodiscard]] bool wants(const dedup::Record& record, const Moment& moment) const {
        return (!stuck || moment.past_lease(record)) &&
               (state.empty() || state_word(record, moment) == state) &&
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
Table make_table(bool with_namespace) {
    std::vector<Column> columns{{"STATE", false, 9}, {"AGE", true, 7},      {"CLAIM", true, 8},
                                {"LEASE", false, 9}, {"EXPIRES", false, 9}, {"ATTEMPT", true, 7},
                                {"OWNER", false, 16}};
    if (with_namespace) {
        columns.push_back({"NAMESPACE", false, 16});
    }
    columns.push_back({"KEY"});
    return Table(std::move(columns));
}

std::string lease_text(const dedup::Record& record, const Moment& moment) {
    return record.state() != dedup::State::in_flight || record.lease_until_ms == 0
               ? "-"
               : format_age(record.lease_until_ms, moment.now_ms);
}

void add_row(Table& table, const dedup::Record& record, const Moment& moment, bool with_namespace) {
    const std::string word = state_word(record, moment);
    std::vector<Cell> row{
        {word, state_colour(word)},
        {format_duration(milliseconds{moment.now_ms - record.timestamp_ms})},
        {std::to_string(record.claim_sequence)},
        {lease_text(record, moment), moment.past_lease(record) ? Colour::red : Colour::none},
        {record.expires_at_ms == 0 ? "never" : format_age(record.expires_at_ms, moment.now_ms)},
        {std::to_string(record.attempt)},
        {record.owner.empty() ? "-" : preview(record.owner, 24)}};
    if (with_namespace) {
        row.push_back({record.ns});
    }
    row.push_back({escape(record.key)});
    table.add(std::move(row));
}

// Prints heads, as they come or sorted at the end.
class Listing {
  public:
    Listing(Context& context, const LsArguments& options)
        : context_(context),
          options_(options),
          // Titles would be one more line for `wc -l` and the like to stumble over.
          with_titles_(::isatty(STDOUT_FILENO) == 1),
          left_(options.limit.empty() ? UINT64_MAX
                                      : parse_number(options.limit, "--limit", 1, UINT64_MAX)) {}

    // False once there is no more to print.
    bool add(std::vector<dedup::Version> heads, const Moment& moment) {
        if (options_.sort != "log") {
            std::ranges::move(heads, std::back_inserter(kept_));
            moment_ = moment;
            return true;
        }
        print(heads, moment);
        return left_ != 0;
    }

    void finish() {
        const auto number = [this](const dedup::Version& version) {
            const dedup::Record& record = version.record;
            constexpr std::int64_t kNever = INT64_MAX;
            if (options_.sort == "expires") {
                return record.expires_at_ms == 0 ? kNever : record.expires_at_ms;
            }
            return options_.sort == "age" ? record.timestamp_ms : 0;
        };
        std::ranges::sort(kept_, [&](const dedup::Version& a, const dedup::Version& b) {
            return number(a) != number(b)       ? number(a) < number(b)
                   : a.record.ns != b.record.ns ? a.record.ns < b.record.ns
                                                : a.record.key < b.record.key;
        });
        print(kept_, moment_);
    }

  private:
    void print(const std::vector<dedup::Version>& heads, const Moment& moment) {
        Table table = make_table(options_.all_namespaces);
        for (const dedup::Version& head : heads) {
            if (left_ == 0) {
                break;
            }
            --left_;
            if (context_.json) {
                print_json(context_, head, moment);
            } else {
                add_row(table, head.record, moment, options_.all_namespaces);
            }
        }
        table.print(context_.out, with_titles_ && !context_.json);
        with_titles_ = false;
        context_.out.flush();
    }

    Context& context_;
    const LsArguments& options_;
    bool with_titles_;
    std::uint64_t left_;
    std::vector<dedup::Version> kept_;
    Moment moment_;
};

int run_ls(const LsArguments& options, Context& context) {
    context.check_globals();
    Wanted wanted{.state = options.state};
    if (!options.older_than.empty()) {
        wanted.older_than = parse_duration(options.older_than, "--older-than");
    }
    wanted.stuck = options.stuck;
    Listing listing(context, options);
    const auto store = context.open_reader();
    dedup::ScanOptions scan;
    scan.ns = options.all_namespaces ? "" : context.ns;
    scan.key_prefix = options.prefix;
    take(for_each_page(*store, scan, [&](dedup::ScanPage& page) {
        const Moment moment{store->now_ms(), store->grace()};
        std::erase_if(page.heads, [&](const dedup::Version& head) {
            return !wanted.wants(head.record, moment);
        });
        return listing.add(std::move(page.heads), moment);
    }));
    listing.finish();
    return kExitOk;
}

int run_namespaces(Context& context) {
    context.check_globals();
    const auto store = context.open_reader();
    std::map<std::string, KeyCounts> counts;
    take(for_each_page(*store, {}, [&](const dedup::ScanPage& page) {
        const Moment moment{store->now_ms(), store->grace()};
        for (const dedup::Version& head : page.heads) {
            counts[head.record.ns].add(head.record, moment);
        }
    }));

    Table table({{"IN-FLIGHT", true},
                 {"STUCK", true},
                 {"HELD", true},
                 {"COMPLETED", true},
                 {"RELEASED", true},
                 {"EXPIRED", true},
                 {"NAMESPACE"}});
    for (const auto& [ns, of] : counts) {
        if (context.json) {
            Json object{{"namespace", ns}};
            object.update(counts_json(of));
            context.out.json(object);
        }
        table.add({{group_digits(of.in_flight)},
                   {group_digits(of.stuck), of.stuck == 0 ? Colour::none : Colour::red},
                   {group_digits(of.held), of.held == 0 ? Colour::none : Colour::red},
                   {group_digits(of.completed)},
                   {group_digits(of.released)},
                   {group_digits(of.expired)},
                   {ns}});
    }
    if (!context.json) {
        table.print(context.out, ::isatty(STDOUT_FILENO) == 1);
    }
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
                         .choices = {"in-flight", "held", "completed", "released", "expired"}},
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
                         .filled = true},
                        {.name = "--stuck",
                         .to = &options->stuck,
                         .help = "Only those whose lease has run out unanswered"},
                        {.name = "-A,--all-namespaces",
                         .to = &options->all_namespaces,
                         .help = "Of all namespaces, with a column for it"},
                        {.name = "--sort",
                         .to = &options->sort,
                         .help = "By place in the log, age (the oldest first), expiry or key",
                         .type = "BY",
                         .shows_default = true,
                         .choices = {"log", "age", "expires", "key"}}},
            .run = [options, &context] { return run_ls(*options, context); },
            .examples =
                "  dedupctl ls --stuck -A --sort age\n"
                "  dedupctl ls --state in-flight --older-than 1h\n"};
}

Command namespaces_command(Context& context) {
    return {.name = "namespaces",
            .help = "Count the keys of each namespace by state",
            .run = [&context] { return run_namespaces(context); }};
}

}  // namespace dedupctl
