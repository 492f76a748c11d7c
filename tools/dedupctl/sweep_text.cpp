#include "sweep_text.hpp"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "claim_notes.hpp"
#include "clock_text.hpp"
#include "common/text.hpp"
#include "common/time_text.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kOwnerColumns = 24;
constexpr std::size_t kNoteColumns = 40;

Json counts_json(const dedup::StateCounts& counts) {
    Json object;
    object["in_flight"] = counts.in_flight;
    object["completed"] = counts.completed;
    object["released"] = counts.released;
    return object;
}

Json namespaces_json(const dedup::SweepReport& report) {
    Json rows = Json::array();
    for (const dedup::SweptNamespace& row : report.namespaces) {
        rows.push_back({{"namespace", row.ns},
                        {"removed", counts_json(row.removed)},
                        {"retained", counts_json(row.retained)}});
    }
    return rows;
}

Json unanswered_json(const dedup::SweepReport& report) {
    Json claims = Json::array();
    for (const dedup::UnansweredClaim& claim : report.unanswered) {
        Json object;
        object["namespace"] = claim.ns;
        add_bytes(object, "key", claim.key);
        add_bytes(object, "owner", claim.owner);
        object["claim_sequence"] = claim.claim_sequence;
        object["claimed_at_ms"] = claim.claimed_at_ms;
        object["expired_at_ms"] = claim.expired_at_ms;
        object["attempt"] = claim.attempt;
        add_bytes(object, "event_id", claim.event_id);
        add_bytes(object, "note", note_of(claim.key, claim.note));
        claims.push_back(std::move(object));
    }
    return claims;
}

std::string format_us(std::uint64_t duration_us) {
    return duration_us < 1'000
               ? fmt::format("{} us", duration_us)
               : format_duration(milliseconds{static_cast<std::int64_t>(duration_us / 1'000)});
}

std::string in_states(const dedup::StateCounts& counts) {
    return fmt::format("{}: {} in-flight, {} completed, {} released",
                       count_of(counts.total(), "stream"), group_digits(counts.in_flight),
                       group_digits(counts.completed), group_digits(counts.released));
}

// Why this is not the whole story; empty if it is.
std::string remark(const dedup::SweepReport& report) {
    if (report.interrupted) {
        return "cut short by a crash; counted when the store was opened";
    }
    if (report.withheld) {
        return "withheld: see `dedupctl clock`";
    }
    return report.finished ? "" : "stopped early; the next sweep goes on";
}

void print_summary(Output& out, const dedup::SweepReport& report, std::int64_t now_ms) {
    Table table({{"", false, 16}, {""}});
    const auto row = [&](const char* name, std::string value, Colour colour = Colour::none) {
        table.add({{name}, {std::move(value), colour}});
    };
    row(report.dry_run ? "would sweep as of" : "swept as of",
        format_time_and_age(report.now_ms, now_ms));
    row(report.dry_run ? "would remove" : "removed", in_states(report.removed));
    if (report.evicted != 0) {
        row("  evicted", group_digits(report.evicted) + " of the completed", Colour::yellow);
    }
    row("retained", in_states(report.retained));
    row("next expiry",
        report.next_expiry_ms ? format_time_and_age(*report.next_expiry_ms, now_ms) : "never");
    row("segments",
        fmt::format("{} scanned, {} dropped, {} compacted", group_digits(report.segments_scanned),
                    group_digits(report.segments_dropped),
                    group_digits(report.segments_compacted)));
    row("records",
        fmt::format("{} scanned, {} dropped, {} moved", group_digits(report.records_scanned),
                    group_digits(report.records_dropped), group_digits(report.records_moved)));
    row("log", fmt::format("{} before, {} after: {} reclaimed", human_bytes(report.bytes_before),
                           human_bytes(report.bytes_after), human_bytes(report.bytes_reclaimed())));
    row("longest pause", format_us(report.longest_pause_us));
    row("took", format_us(report.duration_us));
    if (report.damaged != 0) {
        row("damaged",
            fmt::format("{}: {}", count_of(report.damaged, "place"), escape(report.damage)),
            Colour::red);
    }
    if (report.withheld) {
        row("withheld", withheld_text(*report.withheld), Colour::yellow);
        row("", withheld_hint(*report.withheld));
    } else if (const std::string why = remark(report); !why.empty()) {
        row("not finished", why, Colour::yellow);
    }
    table.print(out, false);
}

void print_namespaces(Output& out, const dedup::SweepReport& report) {
    Table table({{"NAMESPACE"},
                 {"IN-FLIGHT", true},
                 {"COMPLETED", true},
                 {"RELEASED", true},
                 {"RETAINED", true}});
    for (const dedup::SweptNamespace& row : report.namespaces) {
        table.add({{row.ns},
                   {group_digits(row.removed.in_flight)},
                   {group_digits(row.removed.completed)},
                   {group_digits(row.removed.released)},
                   {group_digits(row.retained.total())}});
    }
    table.print(out);
}

void print_unanswered(Output& out, const dedup::SweepReport& report, std::int64_t now_ms) {
    out.line("Claims that expired without an answer:");
    Table table(
        {{"CLAIM", true}, {"CLAIMED"}, {"EXPIRED"}, {"OWNER"}, {"NAMESPACE"}, {"NOTE"}, {"KEY"}});
    for (const dedup::UnansweredClaim& claim : report.unanswered) {
        const std::string note = note_of(claim.key, claim.note);
        table.add({{std::to_string(claim.claim_sequence)},
                   {format_time_and_age(claim.claimed_at_ms, now_ms)},
                   {format_age(claim.expired_at_ms, now_ms)},
                   {claim.owner.empty() ? "-" : preview(claim.owner, kOwnerColumns)},
                   {claim.ns},
                   {note.empty() ? "-" : preview(note, kNoteColumns)},
                   {escape(claim.key)}});
    }
    table.print(out);
    if (const std::uint64_t listed = report.unanswered.size(); report.removed.in_flight > listed) {
        out.line(fmt::format("and {} more", group_digits(report.removed.in_flight - listed)));
    }
}

}  // namespace

Json sweep_json(const dedup::SweepReport& report) {
    Json object;
    object["now_ms"] = report.now_ms;
    object["dry_run"] = report.dry_run;
    object["finished"] = report.finished;
    object["interrupted"] = report.interrupted;
    object["withheld"] = withheld_json(report.withheld);
    object["removed"] = counts_json(report.removed);
    object["retained"] = counts_json(report.retained);
    object["evicted"] = report.evicted;
    object["next_expiry_ms"] = report.next_expiry_ms ? Json(*report.next_expiry_ms) : Json(nullptr);
    object["segments_scanned"] = report.segments_scanned;
    object["segments_dropped"] = report.segments_dropped;
    object["segments_compacted"] = report.segments_compacted;
    object["records_scanned"] = report.records_scanned;
    object["records_dropped"] = report.records_dropped;
    object["records_moved"] = report.records_moved;
    object["bytes_before"] = report.bytes_before;
    object["bytes_after"] = report.bytes_after;
    object["bytes_reclaimed"] = report.bytes_reclaimed();
    object["longest_pause_us"] = report.longest_pause_us;
    object["duration_us"] = report.duration_us;
    object["damaged"] = report.damaged;
    if (report.damaged != 0) {
        object["damage"] = report.damage;
    }
    object["namespaces"] = namespaces_json(report);
    object["unanswered"] = unanswered_json(report);
    return object;
}

void print_sweep(Output& out, const dedup::SweepReport& report, std::int64_t now_ms) {
    print_summary(out, report, now_ms);
    if (!report.namespaces.empty()) {
        out.line("");
        print_namespaces(out, report);
    }
    if (!report.unanswered.empty()) {
        out.line("");
        print_unanswered(out, report, now_ms);
    }
}

Table sweep_table() {
    return Table({{"TIME", false, 19},
                  {"REMOVED", true, 11},
                  {"UNANSWERED", true, 10},
                  {"EVICTED", true, 9},
                  {"RETAINED", true, 13},
                  {"RECLAIMED", true, 10},
                  {"TOOK", true, 7},
                  {"REMARK"}});
}

void add_sweep_row(Table& table, const dedup::SweepReport& report) {
    const std::string why = remark(report);
    table.add({{format_time(report.now_ms)},
               {group_digits(report.removed.total())},
               {group_digits(report.removed.in_flight)},
               {group_digits(report.evicted)},
               {group_digits(report.retained.total())},
               {human_bytes(report.bytes_reclaimed())},
               {format_us(report.duration_us)},
               {why.empty() ? "-" : why, why.empty() ? Colour::none : Colour::yellow}});
}

}  // namespace dedupctl
