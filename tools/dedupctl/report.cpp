// dedupctl report: what there is to say about a store after an incident.

#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/scan.hpp"
#include "output_file.hpp"
#include "progress.hpp"
#include "stop_signal.hpp"
#include "sweep_text.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

template <class Before>
void sort_and_cut(std::vector<dedup::Record>& records, const Before& before) {
    std::ranges::sort(records, before);
    if (records.size() > Report::kListed) {
        records.resize(Report::kListed);
    }
}

bool leased_before(const dedup::Record& a, const dedup::Record& b) {
    return a.lease_until_ms < b.lease_until_ms;
}

bool claimed_before(const dedup::Record& a, const dedup::Record& b) {
    return a.timestamp_ms < b.timestamp_ms;
}

bool decided_after(const dedup::Record& a, const dedup::Record& b) {
    return a.timestamp_ms > b.timestamp_ms;
}

bool more_disputed(const dedup::Record& a, const dedup::Record& b) {
    return a.conflict.count > b.conflict.count;
}

// Cuts the list now and then only, for sorting takes longer than adding.
template <class Before>
void keep(std::vector<dedup::Record>& records, const dedup::Record& record, const Before& before) {
    records.push_back(record);
    records.back().receipt.reset();  // which may be large, and is not shown
    if (records.size() > 4 * Report::kListed) {
        sort_and_cut(records, before);
    }
}

// False if it was stopped.
bool gather(dedup::StreamStore& store, const std::string& ns, StopSignal& stop, Report& report) {
    report.stats = take(store.stats());
    report.sweeps = take(store.sweep_history());
    report.moment = {store.now_ms(), store.grace()};
    Progress progress("report", ns.empty() ? report.stats.streams() : 0);
    std::uint64_t done = 0;
    take(for_each_page(store, {.ns = ns}, [&](const dedup::ScanPage& page) {
        for (const dedup::Version& head : page.heads) {
            report.add(head.record);
        }
        done += page.heads.size();
        progress.update(done);
        return !stop.requested();
    }));
    report.finish();
    return !stop.requested();
}

Json records_json(const std::vector<dedup::Record>& records) {
    Json rows = Json::array();
    for (const dedup::Record& record : records) {
        Json row;
        row["namespace"] = record.ns;
        add_bytes(row, "key", record.key);
        add_bytes(row, "owner", record.owner);
        row["claim_sequence"] = record.claim_sequence;
        row["attempt"] = record.attempt;
        row["timestamp_ms"] = record.timestamp_ms;
        row["lease_until_ms"] = time_or_null(record.lease_until_ms);
        row["expires_at_ms"] = time_or_null(record.expires_at_ms);
        row["conflicts"] = record.conflict.count;
        if (record.verdict != dedup::Verdict{}) {
            row["verdict"] = verdict_json(record.verdict);
        }
        rows.push_back(std::move(row));
    }
    return rows;
}

void print_counts(Output& out, const Report& report) {
    Table table({{"NAMESPACE"},
                 {"IN-FLIGHT", true},
                 {"STUCK", true},
                 {"HELD", true},
                 {"COMPLETED", true},
                 {"RELEASED", true},
                 {"EXPIRED", true}});
    const auto add = [&](std::string name, const KeyCounts& counts) {
        table.add({{std::move(name)},
                   {group_digits(counts.in_flight)},
                   {group_digits(counts.stuck), counts.stuck == 0 ? Colour::none : Colour::red},
                   {group_digits(counts.held), counts.held == 0 ? Colour::none : Colour::red},
                   {group_digits(counts.completed)},
                   {group_digits(counts.released)},
                   {group_digits(counts.expired)}});
    };
    for (const auto& [ns, counts] : report.namespaces.rows()) {
        add(ns, counts);
    }
    if (report.namespaces.rows().size() != 1) {
        add("all", report.total());
    }
    table.print(out);
}

void print_claims(Output& out, const Report& report, std::string_view what, std::uint64_t count,
                  const std::vector<dedup::Record>& first, std::string_view where) {
    out.line(fmt::format("\n{}: {}", what, group_digits(count)));
    if (count == 0) {
        return;
    }
    Table table({{"CLAIM", true}, {"LEASE"}, {"ATTEMPT", true}, {"OWNER"}, {"NAMESPACE"}, {"KEY"}});
    const std::size_t shown = std::min<std::size_t>(20, first.size());
    for (std::size_t i = 0; i < shown; ++i) {
        const dedup::Record& record = first[i];
        table.add({{std::to_string(record.claim_sequence)},
                   {format_age(record.lease_until_ms, report.moment.now_ms), Colour::red},
                   {std::to_string(record.attempt)},
                   {record.owner.empty() ? "-" : preview(record.owner, 24)},
                   {record.ns},
                   {escape(record.key)}});
    }
    table.print(out);
    if (count > shown) {
        out.line(fmt::format("and {} more: see `{}`", group_digits(count - shown), where));
    }
}

void print_forgotten(Output& out, const Report& report) {
    if (report.forgotten == 0) {
        return;
    }
    out.line(fmt::format("\nCompletions taken back, and not claimed since: {}",
                         group_digits(report.forgotten)));
    Table table({{"TAKEN BACK"}, {"BY"}, {"REASON"}, {"NAMESPACE"}, {"KEY"}});
    const std::size_t shown = std::min<std::size_t>(20, report.forgotten_last.size());
    for (std::size_t i = 0; i < shown; ++i) {
        const dedup::Record& record = report.forgotten_last[i];
        table.add({{format_age(record.timestamp_ms, report.moment.now_ms)},
                   {record.verdict.by.empty() ? "-" : preview(record.verdict.by, 24)},
                   {preview(record.verdict.reason, 40)},
                   {record.ns},
                   {escape(record.key)}});
    }
    table.print(out);
    if (report.forgotten > shown) {
        out.line(fmt::format("and {} more", group_digits(report.forgotten - shown)));
    }
}

void print_hours(Output& out, const Report& report) {
    out.line("\nBy the hour, as far as the keys that are kept tell:");
    Table table({{"HOUR"},
                 {"COMPLETED", true},
                 {"IN-FLIGHT", true},
                 {"RELEASED", true},
                 {"REPEATED", true},
                 {"CONFLICTS", true}});
    for (std::size_t i = 0; i < report.hours.size(); ++i) {
        const HourCounts& hour = report.hours[i];
        if (hour.completed + hour.claimed + hour.released + hour.conflicts != 0) {
            table.add({{format_time(report.hour_ms(i))},
                       {group_digits(hour.completed)},
                       {group_digits(hour.claimed)},
                       {group_digits(hour.released)},
                       {group_digits(hour.repeated)},
                       {group_digits(hour.conflicts)}});
        }
    }
    table.print(out);
}

void print_text(Output& out, const Report& report) {
    out.line(fmt::format("store {} as of {}: {} of log", escape(report.store),
                         format_time(report.moment.now_ms), human_bytes(report.stats.log_bytes)));
    out.line("");
    print_counts(out, report);
    print_claims(out, report, "Claims that wait for a decision", report.held, report.held_first,
                 "dedupctl held -A");
    print_claims(out, report, "Claims whose lease has run out unanswered", report.stuck,
                 report.stuck_first, "dedupctl ls --stuck -A");
    print_forgotten(out, report);
    print_hours(out, report);
    if (!report.sweeps.empty()) {
        out.line("\nSweeps, the newest first:");
        Table table = sweep_table();
        for (std::size_t i = 0; i < std::min<std::size_t>(10, report.sweeps.size()); ++i) {
            add_sweep_row(table, report.sweeps[i]);
        }
        table.print(out);
    }
}

void write_page(const std::string& path, const Report& report, Context& context) {
    const KeyCommand command = [&](const dedup::Record& record) {
        return context.command_line_in(record.ns, "inspect", record.key, {});
    };
    OutputFile file(path);
    Output out(file.fd());
    out.write(report_html(report, command));
    out.flush();
    file.finish();
}

int run_report(const std::string& path, Context& context) {
    context.check_globals();
    StopSignal stop;
    Report report;
    report.store = context.absolute_store();
    if (!gather(*context.open_reader(), context.ns_given ? context.ns : "", stop, report)) {
        return kExitSignalBase + *stop.signal();
    }
    if (!path.empty()) {
        write_page(path, report, context);
        if (!context.quiet && path != "-") {
            note("the page is in " + escape(path));
        }
    }
    if (context.json && path != "-") {
        context.out.json(report_json(report));
    } else if (path.empty()) {
        print_text(context.out, report);
    }
    return kExitOk;
}

}  // namespace

KeyCounts Report::total() const {
    KeyCounts all;
    for (const auto& [ns, counts] : namespaces.rows()) {
        all += counts;
    }
    return all;
}

void Report::add(const dedup::Record& record) {
    namespaces.of(record.ns).add(record, moment);
    const std::int64_t age = moment.now_ms - record.timestamp_ms;
    const auto group = std::ranges::find_if(kAges, [&](const Age& a) { return age < a.ms; });
    ages.at(static_cast<std::size_t>(group - kAges.begin())).add(record, moment);
    const std::int64_t hour = (record.timestamp_ms - hour_ms(0)) / kHourMs;
    if (record.timestamp_ms >= hour_ms(0) && hour < kHours) {
        HourCounts& in = hours.at(static_cast<std::size_t>(hour));
        in.claimed += record.state() == dedup::State::in_flight ? 1U : 0U;
        in.completed += record.state() == dedup::State::completed ? 1U : 0U;
        in.released += record.state() == dedup::State::released ? 1U : 0U;
        in.repeated += record.attempt > 1 ? 1U : 0U;
        in.conflicts += record.conflict.count;
    }
    if (record.state() == dedup::State::in_flight && !moment.expired(record)) {
        const bool listed = owners.size() < kOwners || owners.contains(record.owner);
        OwnerCounts& owner = listed ? owners[record.owner] : other_owners;
        ++owner.in_flight;
        owner.stuck += moment.past_lease(record) ? 1U : 0U;
        owner.held += moment.held(record) ? 1U : 0U;
        if (owner.oldest_ms == 0 || record.timestamp_ms < owner.oldest_ms) {
            owner.oldest_ms = record.timestamp_ms;
        }
    }
    if (record.state() == dedup::State::in_flight && !moment.expired(record) &&
        !moment.past_lease(record) && !moment.held(record)) {
        keep(working_first, record, claimed_before);
    }
    if (moment.past_lease(record)) {
        ++stuck;
        keep(stuck_first, record, leased_before);
    }
    if (moment.held(record)) {
        ++held;
        keep(held_first, record, leased_before);
    }
    if (record.verdict.kind == dedup::Verdict::Kind::forgotten) {
        ++forgotten;
        keep(forgotten_last, record, decided_after);
    }
    if (record.conflict.count != 0) {
        conflicts += record.conflict.count;
        keep(disputed, record, more_disputed);
    }
}

void Report::finish() {
    sort_and_cut(stuck_first, leased_before);
    sort_and_cut(held_first, leased_before);
    sort_and_cut(working_first, claimed_before);
    sort_and_cut(disputed, more_disputed);
    sort_and_cut(forgotten_last, decided_after);
}

Json report_json(const Report& report) {
    Json object;
    object["store"] = report.store;
    object["store_id"] = report.stats.store_id;
    object["now_ms"] = report.moment.now_ms;
    object["log_bytes"] = report.stats.log_bytes;
    object["catalog_bytes"] = report.stats.catalog_bytes;
    object["keys"] = counts_json(report.total());
    object["namespaces"] = Json::array();
    for (const auto& [ns, counts] : report.namespaces.rows()) {
        Json row{{"namespace", ns}};
        row.update(counts_json(counts));
        object["namespaces"].push_back(std::move(row));
    }
    object["ages"] = Json::array();
    for (std::size_t i = 0; i < Report::kAges.size(); ++i) {
        Json row{{"less_than_ms",
                  i + 1 < Report::kAges.size() ? Json(Report::kAges.at(i).ms) : Json(nullptr)}};
        row.update(counts_json(report.ages.at(i)));
        object["ages"].push_back(std::move(row));
    }
    object["hours"] = Json::array();
    for (std::size_t i = 0; i < report.hours.size(); ++i) {
        const HourCounts& hour = report.hours.at(i);
        object["hours"].push_back({{"from_ms", report.hour_ms(i)},
                                   {"completed", hour.completed},
                                   {"in_flight", hour.claimed},
                                   {"released", hour.released},
                                   {"repeated", hour.repeated},
                                   {"conflicts", hour.conflicts}});
    }
    object["stuck"] = records_json(report.stuck_first);
    object["held"] = records_json(report.held_first);
    object["conflicts"] = report.conflicts;
    object["disputed"] = records_json(report.disputed);
    object["forgotten"] = report.forgotten;
    object["taken_back"] = records_json(report.forgotten_last);
    object["sweeps"] = Json::array();
    for (const dedup::SweepReport& sweep : report.sweeps) {
        object["sweeps"].push_back(sweep_json(sweep));
    }
    return object;
}

Command report_command(Context& context) {
    const auto path = std::make_shared<std::string>();
    return {.name = "report",
            .help = "Say what there is to say after an incident: keys, stuck claims, hours, sweeps",
            .options = {{.name = "--html",
                         .to = path.get(),
                         .help = "Write it as one page with plots to FILE; '-' is standard output",
                         .type = "FILE",
                         .filled = true}},
            .run = [path, &context] { return run_report(*path, context); },
            .examples =
                "  dedupctl report\n"
                "  dedupctl report --html incident.html\n"};
}

}  // namespace dedupctl
