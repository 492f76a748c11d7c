// The report as one page. Each plot has its numbers in a table beside it.

#include <fmt/format.h>

#include "common/text.hpp"
#include "common/time_text.hpp"
#include "report_sections.hpp"

namespace dedupctl {
namespace {

void add_summary(Page& page, const Report& report) {
    const KeyCounts all = report.total();
    page.add(
        "<h1>Report on a dedup store</h1>\n<p><code>{}</code></p>\n"
        "<p class=\"soft\">As of {}; store id {}.</p>\n",
        html(escape(report.store)), format_time(report.moment.now_ms), html(report.stats.store_id));
    add_cards(page,
              {{"keys completed", group_digits(all.completed)},
               {"in-flight", group_digits(all.in_flight)},
               {"of these past their lease", group_digits(all.stuck), all.stuck != 0},
               {"held for a decision", group_digits(all.held), all.held != 0},
               {"released", group_digits(all.released)},
               {"expired, to be swept", group_digits(all.expired)},
               {"requests in conflict", group_digits(report.conflicts), report.conflicts != 0},
               {"of log", human_bytes(report.stats.log_bytes)}});
    add_troubles(page, report.stats);
}

void add_hours(Page& page, const Report& report) {
    std::vector<Bar> bars;
    std::vector<Bar> disputes;
    for (std::size_t i = 0; i < report.hours.size(); ++i) {
        const HourCounts& hour = report.hours.at(i);
        const std::string label = format_time(report.hour_ms(i)).substr(5, 11);
        bars.push_back({label,
                        {{"completed", "done", hour.completed},
                         {"claimed, in-flight since", "open", hour.claimed},
                         {"released", "gone", hour.released}}});
        disputes.push_back({label,
                            {{"repeated attempts", "open", hour.repeated},
                             {"requests in conflict", "bad", hour.conflicts}}});
    }
    page.begin("The last 48 hours");
    page.add(
        "<p class=\"soft\">As far as the keys tell that are kept: of each its newest state. "
        "Duplicates that found a receipt leave no trace in the store; the process that "
        "answered them counts them.</p>\n");
    add_bars(page, "Keys by the hour in which they reached their state", bars);
    page.add("<h2>Repeated attempts and conflicts</h2>\n");
    add_bars(page, "Repeated attempts and requests in conflict", disputes);
    page.add("<details><summary>The numbers</summary>\n");
    page.begin_table({"Hour", "#Completed", "#In-flight", "#Released", "#Repeated", "#Conflicts"});
    for (std::size_t i = 0; i < report.hours.size(); ++i) {
        const HourCounts& hour = report.hours.at(i);
        page.row({format_time(report.hour_ms(i)), group_digits(hour.completed),
                  group_digits(hour.claimed), group_digits(hour.released),
                  group_digits(hour.repeated), group_digits(hour.conflicts)});
    }
    page.end_table();
    page.add("</details>\n");
    page.end();
}

void add_disputed(Page& page, const Report& report, const KeyCell& key_cell) {
    if (report.disputed.empty()) {
        return;
    }
    page.begin("Keys that were used for different requests");
    page.begin_table({"#Conflicts", "Claimed or completed", "Owner", "Namespace", "Key"});
    for (const dedup::Record& record : report.disputed) {
        page.row({group_digits(record.conflict.count), format_time(record.timestamp_ms),
                  html(record.owner.empty() ? "-" : preview(record.owner, 40)), html(record.ns),
                  key_cell(record)});
    }
    page.end_table();
    page.end();
}

void add_forgotten(Page& page, const Report& report, const KeyCell& key_cell) {
    if (report.forgotten == 0) {
        return;
    }
    page.begin("Completions taken back, and not claimed since");
    page.begin_table({"Taken back", "By", "Reason", "Namespace", "Key"});
    for (const dedup::Record& record : report.forgotten_last) {
        const auto& [kind, by, reason] = record.verdict;
        page.row({format_time(record.timestamp_ms), html(by.empty() ? "-" : preview(by, 40)),
                  html(preview(reason, 200)), html(record.ns), key_cell(record)});
    }
    page.end_table();
    if (report.forgotten > report.forgotten_last.size()) {
        page.add("<p>And {} more.</p>\n",
                 group_digits(report.forgotten - report.forgotten_last.size()));
    }
    page.end();
}

}  // namespace

std::string report_html(const Report& report, const KeyCommand& command) {
    Page page("dedup store: report", fmt::format("<style>\n{}</style>\n", page_style()));
    const KeyCell key_cell = [&command](const dedup::Record& record) {
        return fmt::format("<code>{}</code><br><code class=\"soft\">{}</code>",
                           html(preview(record.key, 80)), html(command(record)));
    };
    add_summary(page, report);
    add_keys(page, report);
    add_hours(page, report);
    add_disputed(page, report, key_cell);
    add_waiting(page, report, key_cell);
    add_forgotten(page, report, key_cell);
    add_sweeps(page, report.sweeps);
    return page.take();
}

}  // namespace dedupctl
