#include "report_sections.hpp"

#include <fmt/format.h>

#include "common/text.hpp"
#include "common/time_text.hpp"

namespace dedupctl {
namespace {

std::vector<Part> parts_of(const KeyCounts& counts) {
    const std::uint64_t waiting = counts.stuck + counts.held;
    return {{"completed", "done", counts.completed},
            {"in-flight", "open", counts.in_flight - waiting},
            {"stuck or held", "bad", waiting},
            {"released or expired", "gone", counts.released + counts.expired}};
}

void add_claims(Page& page, const Report& report, const KeyCell& key_cell, std::string_view title,
                std::string_view meaning, std::uint64_t count,
                const std::vector<dedup::Record>& first) {
    page.begin(title);
    if (count == 0) {
        page.add("<p>None.</p>\n");
        return page.end();
    }
    page.add("<p>{}</p>\n", meaning);
    page.begin_table({"Lease ran out", "Claimed", "#Attempt", "Owner", "Namespace", "Key"});
    for (const dedup::Record& record : first) {
        page.row({format_time_and_age(record.lease_until_ms, report.moment.now_ms),
                  format_time(record.timestamp_ms), std::to_string(record.attempt),
                  html(record.owner.empty() ? "-" : preview(record.owner, 40)), html(record.ns),
                  key_cell(record)});
    }
    page.end_table();
    if (count > first.size()) {
        page.add("<p>And {} more.</p>\n", group_digits(count - first.size()));
    }
    page.end();
}

}  // namespace

void add_cards(Page& page, const std::vector<Card>& cards) {
    page.add("<ul class=\"cards\">\n");
    for (const Card& card : cards) {
        page.add("<li><b{}>{}</b>{}</li>\n", card.bad ? " class=\"bad\"" : "", card.text,
                 card.what);
    }
    page.add("</ul>\n");
}

void add_troubles(Page& page, const dedup::StoreStats& stats) {
    const auto warn = [&](std::string_view what, const std::string& text) {
        if (!text.empty()) {
            page.add("<p class=\"bad\">{}: {}</p>\n", what, html(escape(text)));
        }
    };
    warn("The store takes no more writes", stats.write_error);
    warn("The last sweep failed", stats.sweep_error);
    warn("Background work failed", stats.background_error);
    warn("Some of the log cannot be read", stats.damage);
}

void add_keys(Page& page, const Report& report) {
    page.begin("Keys by how long they have been in their state");
    std::vector<Bar> bars;
    for (std::size_t i = 0; i < Report::kAges.size(); ++i) {
        const bool last = i + 1 == Report::kAges.size();
        bars.push_back({(last ? "" : "under ") + std::string(Report::kAges.at(i).less_than),
                        parts_of(report.ages.at(i))});
    }
    add_rows_of_bars(page, "Keys by how long they have been in their state", bars);
    page.end();

    page.begin("Keys by namespace");
    page.begin_table(
        {"Namespace", "#In-flight", "#Past lease", "#Held", "#Completed", "#Released", "#Expired"});
    for (const auto& [ns, counts] : report.namespaces.rows()) {
        page.row({html(ns), group_digits(counts.in_flight), group_digits(counts.stuck),
                  group_digits(counts.held), group_digits(counts.completed),
                  group_digits(counts.released), group_digits(counts.expired)});
    }
    page.end_table();
    page.end();
}

void add_waiting(Page& page, const Report& report, const KeyCell& key_cell) {
    add_claims(page, report, key_cell, "Claims that wait for a decision",
               "Nobody works on these, and nobody will until somebody says whether the work was "
               "done: <code>dedupctl resolve</code>.",
               report.held, report.held_first);
    add_claims(page, report, key_cell, "Claims whose lease has run out unanswered",
               "Whoever claimed these crashed or is slow; whether the work was done, only its "
               "target knows. The next claim of such a key takes it over.",
               report.stuck, report.stuck_first);
}

void add_sweeps(Page& page, const std::vector<dedup::SweepReport>& sweeps) {
    page.begin("Sweeps, the newest first");
    if (sweeps.empty()) {
        page.add("<p>None that removed or gave back anything.</p>\n");
        return page.end();
    }
    page.begin_table(
        {"Time", "#Removed", "#Unanswered", "#Evicted", "#Retained", "#Reclaimed", "#Took"});
    for (const dedup::SweepReport& sweep : sweeps) {
        page.row(
            {format_time(sweep.now_ms), group_digits(sweep.removed.total()),
             group_digits(sweep.removed.in_flight), group_digits(sweep.evicted),
             group_digits(sweep.retained.total()), human_bytes(sweep.bytes_reclaimed()),
             format_duration(milliseconds{static_cast<std::int64_t>(sweep.duration_us / 1000)})});
    }
    page.end_table();
    page.end();
}

}  // namespace dedupctl
