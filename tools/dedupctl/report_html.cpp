// The report as one page: no script, no other file, light or dark as the reader likes, and fit for
// paper. Each plot has its numbers in a table beside it.

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "common/text.hpp"
#include "common/time_text.hpp"
#include "report.hpp"

namespace dedupctl {
namespace {

constexpr std::string_view kHead = R"html(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>dedup store: report</title>
<style>
:root { --back: #fff; --text: #1b1f24; --soft: #59636e; --line: #d5dbe1; --done: #1c6fb8;
        --open: #c77700; --gone: #8a939c; --bad: #c62828; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14181d; --text: #e6eaee; --soft: #9aa5b0; --line: #313941; --done: #5aa9ea;
          --open: #f0a83c; --gone: #75808b; --bad: #ff7b72; --card: #1c2228; } }
@media print { :root { --back: #fff; --text: #000; --soft: #444; --line: #bbb; --done: #1c6fb8;
                       --open: #c77700; --gone: #8a939c; --bad: #c62828; --card: #fff; }
               details > *, details::details-content { content-visibility: visible; }
               section { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 64rem; background: var(--back);
       color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .7rem;
         margin: 1rem 0; padding: 0; list-style: none; }
.cards li { background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
            padding: .6rem .8rem; }
.cards b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
         vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } .n { text-align: right; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.done { fill: var(--done); } .open { fill: var(--open); } .gone { fill: var(--gone); }
.bad { fill: var(--bad); color: var(--bad); } .axis { stroke: var(--line); }
.key span { margin-right: 1rem; white-space: nowrap; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--soft); }
</style>
</head>
<body>
)html";

// Of visible text, such as escape() gives.
std::string html(std::string_view text) {
    std::string safe;
    for (const char c : text) {
        switch (c) {
            case '&':
                safe += "&amp;";
                break;
            case '<':
                safe += "&lt;";
                break;
            case '>':
                safe += "&gt;";
                break;
            case '"':
                safe += "&quot;";
                break;
            default:
                safe += c;
        }
    }
    return safe;
}

class Page {
  public:
    Page() { text_ = kHead; }

    template <class... Args>
    void add(fmt::format_string<Args...> format, Args&&... args) {
        fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    }
    void begin(std::string_view title) { add("<section>\n<h2>{}</h2>\n", title); }
    void end() { text_ += "</section>\n"; }

    // Titles that begin with '#' are those of numbers.
    void begin_table(std::initializer_list<std::string_view> titles) {
        text_ += "<div class=\"scroll\"><table>\n<thead><tr>";
        numbers_.clear();
        for (const std::string_view title : titles) {
            numbers_.push_back(title.starts_with('#'));
            add("<th scope=\"col\"{}>{}</th>", numbers_.back() ? " class=\"n\"" : "",
                title.substr(numbers_.back() ? 1 : 0));
        }
        text_ += "</tr></thead>\n<tbody>\n";
    }
    // Of cells that are HTML already.
    void row(std::initializer_list<std::string> cells) {
        text_ += "<tr>";
        std::size_t i = 0;
        for (const std::string& cell : cells) {
            add("<td{}>{}</td>", numbers_[i++] ? " class=\"n\"" : "", cell);
        }
        text_ += "</tr>\n";
    }
    void end_table() { text_ += "</tbody></table></div>\n"; }

    [[nodiscard]] std::string take() { return std::move(text_) + "</body>\n</html>\n"; }

  private:
    std::string text_;
    std::vector<bool> numbers_;
};

struct Part {
    std::string_view name;
    std::string_view style;  // a class of the page's
    std::uint64_t value = 0;
};

struct Bar {
    std::string label;
    std::vector<Part> parts;

    [[nodiscard]] std::uint64_t total() const {
        std::uint64_t sum = 0;
        for (const Part& part : parts) {
            sum += part.value;
        }
        return sum;
    }
};

void add_legend(Page& page, const std::vector<Part>& parts) {
    page.add("<p class=\"key\">");
    for (const Part& part : parts) {
        page.add("<span><i style=\"background:var(--{})\"></i>{}</span>", part.style, part.name);
    }
    page.add("</p>\n");
}

// Upright bars with their parts on top of each other; a label below each sixth.
void add_bars(Page& page, std::string_view title, const std::vector<Bar>& bars) {
    constexpr double kWidth = 960;
    constexpr double kHeight = 180;
    constexpr double kLeft = 56;
    constexpr double kBottom = 22;
    constexpr std::size_t kLabelEach = 6;
    std::uint64_t most = 1;
    for (const Bar& bar : bars) {
        most = std::max(most, bar.total());
    }
    const double step = (kWidth - kLeft) / static_cast<double>(bars.size());
    const double scale = (kHeight - kBottom - 12) / static_cast<double>(most);
    const double floor = kHeight - kBottom;
    add_legend(page, bars.front().parts);
    page.add("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}, at most {} an hour\">\n",
             kWidth, kHeight, title, group_digits(most));
    page.add(
        "<line class=\"axis\" x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\"/>"
        "<text x=\"{3}\" y=\"18\" text-anchor=\"end\">{4}</text>"
        "<text x=\"{3}\" y=\"{1}\" text-anchor=\"end\">0</text>\n",
        kLeft, floor, kWidth, kLeft - 6, group_digits(most));
    for (std::size_t i = 0; i < bars.size(); ++i) {
        const double x = kLeft + step * static_cast<double>(i);
        double y = floor;
        for (const Part& part : bars[i].parts) {
            const double height = scale * static_cast<double>(part.value);
            y -= height;
            if (part.value != 0) {
                page.add(
                    "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" "
                    "height=\"{:.1f}\"><title>{}: {} {}</title></rect>\n",
                    part.style, x + 1, y, step - 2, std::max(1.0, height), bars[i].label,
                    group_digits(part.value), part.name);
            }
        }
        if (i % kLabelEach == 0) {
            page.add("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", x, kHeight - 6, bars[i].label);
        }
    }
    page.add("</svg>\n");
}

// Lying bars, one below the other, each with its number.
void add_rows_of_bars(Page& page, std::string_view title, const std::vector<Bar>& bars) {
    constexpr double kWidth = 960;
    constexpr double kRow = 24;
    constexpr double kLeft = 120;
    constexpr double kRight = 90;
    std::uint64_t most = 1;
    for (const Bar& bar : bars) {
        most = std::max(most, bar.total());
    }
    const double scale = (kWidth - kLeft - kRight) / static_cast<double>(most);
    add_legend(page, bars.front().parts);
    page.add("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth,
             kRow * static_cast<double>(bars.size()), title);
    double y = 0;
    for (const Bar& bar : bars) {
        double x = kLeft;
        page.add("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLeft - 8, y + 16,
                 bar.label);
        for (const Part& part : bar.parts) {
            if (part.value != 0) {
                const double width = std::max(1.5, scale * static_cast<double>(part.value));
                page.add(
                    "<rect class=\"{}\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"16\">"
                    "<title>{}: {} {}</title></rect>\n",
                    part.style, x, y + 4, width, bar.label, group_digits(part.value), part.name);
                x += width;
            }
        }
        page.add("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", x + 6, y + 16,
                 group_digits(bar.total()));
        y += kRow;
    }
    page.add("</svg>\n");
}

std::vector<Part> parts_of(const KeyCounts& counts) {
    const std::uint64_t waiting = counts.stuck + counts.held;
    return {{"completed", "done", counts.completed},
            {"in-flight", "open", counts.in_flight - waiting},
            {"stuck or held", "bad", waiting},
            {"released or expired", "gone", counts.released + counts.expired}};
}

void add_summary(Page& page, const Report& report) {
    const KeyCounts all = report.total();
    page.add(
        "<h1>Report on a dedup store</h1>\n<p><code>{}</code></p>\n"
        "<p class=\"soft\">As of {}; store id {}.</p>\n<ul class=\"cards\">\n",
        html(escape(report.store)), format_time(report.moment.now_ms), html(report.stats.store_id));
    const auto card = [&](std::string_view what, const std::string& value, bool bad = false) {
        page.add("<li><b{}>{}</b>{}</li>\n", bad ? " class=\"bad\"" : "", value, what);
    };
    card("keys completed", group_digits(all.completed));
    card("in flight", group_digits(all.in_flight));
    card("of these past their lease", group_digits(all.stuck), all.stuck != 0);
    card("held for a decision", group_digits(all.held), all.held != 0);
    card("released", group_digits(all.released));
    card("expired, to be swept", group_digits(all.expired));
    card("requests in conflict", group_digits(report.conflicts), report.conflicts != 0);
    card("of log", human_bytes(report.stats.log_bytes));
    page.add("</ul>\n");
    const auto warn = [&](std::string_view what, const std::string& text) {
        if (!text.empty()) {
            page.add("<p class=\"bad\">{}: {}</p>\n", what, html(escape(text)));
        }
    };
    warn("The last sweep failed", report.stats.sweep_error);
    warn("Background work failed", report.stats.background_error);
    warn("Some of the log cannot be read", report.stats.damage);
}

void add_claims(Page& page, const Report& report, const KeyCommand& command, std::string_view title,
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
                  fmt::format("<code>{}</code><br><code class=\"soft\">{}</code>",
                              html(preview(record.key, 80)), html(command(record)))});
    }
    page.end_table();
    if (count > first.size()) {
        page.add("<p>And {} more.</p>\n", group_digits(count - first.size()));
    }
    page.end();
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
        {"Namespace", "#In flight", "#Past lease", "#Held", "#Completed", "#Released", "#Expired"});
    for (const auto& [ns, counts] : report.namespaces) {
        page.row({html(ns), group_digits(counts.in_flight), group_digits(counts.stuck),
                  group_digits(counts.held), group_digits(counts.completed),
                  group_digits(counts.released), group_digits(counts.expired)});
    }
    page.end_table();
    page.end();
}

void add_hours(Page& page, const Report& report) {
    std::vector<Bar> bars;
    std::vector<Bar> disputes;
    for (std::size_t i = 0; i < report.hours.size(); ++i) {
        const HourCounts& hour = report.hours.at(i);
        const std::string label = format_time(report.hour_ms(i)).substr(5, 11);
        bars.push_back({label,
                        {{"completed", "done", hour.completed},
                         {"claimed, in flight since", "open", hour.claimed},
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
    page.begin_table({"Hour", "#Completed", "#In flight", "#Released", "#Repeated", "#Conflicts"});
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

void add_disputed(Page& page, const Report& report, const KeyCommand& command) {
    if (report.disputed.empty()) {
        return;
    }
    page.begin("Keys that were used for different requests");
    page.begin_table({"#Conflicts", "Claimed or completed", "Owner", "Namespace", "Key"});
    for (const dedup::Record& record : report.disputed) {
        page.row({group_digits(record.conflict.count), format_time(record.timestamp_ms),
                  html(record.owner.empty() ? "-" : preview(record.owner, 40)), html(record.ns),
                  fmt::format("<code>{}</code><br><code class=\"soft\">{}</code>",
                              html(preview(record.key, 80)), html(command(record)))});
    }
    page.end_table();
    page.end();
}

void add_sweeps(Page& page, const Report& report) {
    page.begin("Sweeps, the newest first");
    if (report.sweeps.empty()) {
        page.add("<p>None that removed or gave back anything.</p>\n");
        return page.end();
    }
    page.begin_table(
        {"Time", "#Removed", "#Unanswered", "#Evicted", "#Retained", "#Reclaimed", "#Took"});
    for (const dedup::SweepReport& sweep : report.sweeps) {
        page.row(
            {format_time(sweep.now_ms), group_digits(sweep.removed.total()),
             group_digits(sweep.removed.in_flight), group_digits(sweep.evicted),
             group_digits(sweep.retained.total()), human_bytes(sweep.bytes_reclaimed()),
             format_duration(milliseconds{static_cast<std::int64_t>(sweep.duration_us / 1000)})});
    }
    page.end_table();
    page.end();
}

}  // namespace

std::string report_html(const Report& report, const KeyCommand& command) {
    Page page;
    add_summary(page, report);
    add_keys(page, report);
    add_hours(page, report);
    add_disputed(page, report, command);
    add_claims(page, report, command, "Claims that wait for a decision",
               "Nobody works on these, and nobody will until somebody says whether the work was "
               "done: <code>dedupctl resolve</code>.",
               report.held, report.held_first);
    add_claims(page, report, command, "Claims whose lease has run out unanswered",
               "Whoever claimed these crashed or is slow; whether the work was done, only its "
               "target knows. The next claim of such a key takes it over.",
               report.stuck, report.stuck_first);
    add_sweeps(page, report);
    return page.take();
}

}  // namespace dedupctl
