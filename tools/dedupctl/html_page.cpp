#include "html_page.hpp"

#include <algorithm>

#include "common/text.hpp"

namespace dedupctl {
namespace {

constexpr std::string_view kStyle =
    R"css(:root { --back: #fff; --text: #1b1f24; --soft: #59636e; --line: #d5dbe1; --done: #1c6fb8;
        --open: #c77700; --gone: #8a939c; --bad: #c62828; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14181d; --text: #e6eaee; --soft: #9aa5b0; --line: #313941; --done: #5aa9ea;
          --open: #f0a83c; --gone: #75808b; --bad: #ff7b72; --card: #1c2228; } }
@media print { :root { --back: #fff; --text: #000; --soft: #444; --line: #bbb; --done: #1c6fb8;
                       --open: #c77700; --gone: #8a939c; --bad: #c62828; --card: #fff; }
               details > *, details::details-content { content-visibility: visible; }
               section { break-inside: avoid; } }
@page { margin: 12mm; }
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
.scroll { overflow-x: auto; } td { white-space: nowrap; }
td code { display: inline-block; width: max-content; max-width: 34rem; white-space: normal; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
         vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } .n { text-align: right; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.done { fill: var(--done); } .open { fill: var(--open); } .gone { fill: var(--gone); }
.bad { fill: var(--bad); color: var(--bad); } .axis { stroke: var(--line); }
.key .done { background: var(--done); } .key .open { background: var(--open); }
.key .gone { background: var(--gone); } .key .bad { background: var(--bad); }
.line { fill: none; stroke-width: 2; } .line.done { stroke: var(--done); fill: none; }
.line.open { stroke: var(--open); fill: none; stroke-dasharray: 6 3; }
.key span { margin-right: 1rem; white-space: nowrap; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--soft); }
a { color: var(--done); } :focus-visible { outline: 3px solid var(--open); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: .7rem 0; padding: 0; list-style: none; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
form { display: flex; flex-wrap: wrap; gap: .7rem; align-items: end; }
label { display: grid; gap: .2rem; color: var(--soft); }
input, button { font: inherit; color: var(--text); background: var(--card); max-width: 100%;
                border: 1px solid var(--soft); border-radius: .3rem; padding: .3rem .6rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 0 1.5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .2rem; }
@media print { body { max-width: none; padding: 0; font-size: 12px; } h2, summary { break-after: avoid; }
               .scroll { overflow: visible; } td, th { white-space: normal; padding: .2rem .4rem; }
               td { overflow-wrap: anywhere; }
               td code { width: auto; max-width: none; font-size: 11px; } tr { break-inside: avoid; } }
)css";

void add_legend(Page& page, const std::vector<Part>& parts) {
    page.add("<p class=\"key\">");
    for (const Part& part : parts) {
        page.add("<span><i class=\"{}\"></i>{}</span>", part.style, part.name);
    }
    page.add("</p>\n");
}

}  // namespace

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

std::string_view page_style() {
    return kStyle;
}

Page::Page(std::string_view title, std::string_view head) {
    add("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n{}"
        "</head>\n<body>\n",
        title, head);
}

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

void add_lines(Page& page, std::string_view title, std::string_view unit, double minutes,
               const std::vector<double>& from, const std::vector<Line>& lines) {
    constexpr double kWidth = 480;
    constexpr double kHeight = 150;
    constexpr double kTop = 18;  // the numbers' end stands above it
    constexpr double kFloor = kHeight - 22;
    double most = 0;
    for (const Line& line : lines) {
        for (const double value : line.values) {
            most = std::max(most, value);
        }
    }
    std::vector<Part> legend;
    std::string now;
    for (const Line& line : lines) {
        legend.push_back({line.name, line.style});
        now +=
            fmt::format("; {} now {:.3g}", line.name, line.values.empty() ? 0 : line.values.back());
    }
    page.add("<h3>{}</h3>\n", title);
    add_legend(page, legend);
    page.add("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}: at most {:.3g} {}{}\">\n",
             kWidth, kHeight, title, most, unit, now);
    page.add(
        "<line class=\"axis\" x1=\"0\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\"/>"
        "<text x=\"0\" y=\"11\">{2:.3g} {3}</text><text x=\"0\" y=\"{4}\">{5:.0f} min ago</text>"
        "<text x=\"{1}\" y=\"{4}\" text-anchor=\"end\">now</text>\n",
        kFloor, kWidth, most, unit, kHeight - 6, minutes);
    const double scale = most > 0 ? (kFloor - kTop) / most : 0;
    for (const Line& line : lines) {
        page.add("<polyline class=\"line {}\" points=\"", line.style);
        for (std::size_t i = 0; i < line.values.size(); ++i) {
            page.add("{:.1f},{:.1f} ", kWidth * from[i], kFloor - scale * line.values[i]);
        }
        page.add("\"/>\n");
    }
    page.add("</svg>\n");
}

}  // namespace dedupctl
