// What the pages for people share: one style, tables, and plots that are inline SVG. No script, no
// other file, light or dark as the reader likes, and fit for paper.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dedupctl {

// As text between tags, or within quotes. Of visible text, such as escape() gives.
[[nodiscard]] std::string html(std::string_view text);

// The style sheet of all pages.
[[nodiscard]] std::string_view page_style();

class Page {
  public:
    // `head`: what stands in the head for the style.
    Page(std::string_view title, std::string_view head);

    template <class... Args>
    void add(fmt::format_string<Args...> format, Args&&... args) {
        fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    }
    void begin(std::string_view title) {
        title_ = title;
        add("<section>\n<h2>{}</h2>\n", title);
    }
    void end() { text_ += "</section>\n"; }

    // Titles that begin with '#' are those of numbers.
    void begin_table(std::initializer_list<std::string_view> titles) {
        // With a name and a place among the tab stops, as it may have to be scrolled.
        add("<div class=\"scroll\" role=\"group\" aria-label=\"{}\" tabindex=\"0\">"
            "<table>\n<thead><tr>",
            title_);
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
    std::string title_;  // of the section
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

// Upright bars with their parts on top of each other; a label below each sixth.
void add_bars(Page& page, std::string_view title, const std::vector<Bar>& bars);

// Lying bars, one below the other, each with its number.
void add_rows_of_bars(Page& page, std::string_view title, const std::vector<Bar>& bars);

// One line of a plot over time: a value for each moment.
struct Line {
    std::string_view name;
    std::string_view style;  // a class of the page's
    std::vector<double> values;
};

// Lines over the last `minutes`, the newest value at the right; `from` is the first one's moment as
// a share of that time. `unit` stands behind numbers.
void add_lines(Page& page, std::string_view title, std::string_view unit, double minutes,
               const std::vector<double>& from, const std::vector<Line>& lines);

}  // namespace dedupctl
