#include "table.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "common/text.hpp"

namespace dedupctl {
namespace {

constexpr std::string_view kGap = "  ";

bool colours_wanted() {
    static const bool wanted = [] {
        const char* no_color = std::getenv("NO_COLOR");
        const char* terminal = std::getenv("TERM");
        return ::isatty(STDOUT_FILENO) == 1 && (no_color == nullptr || *no_color == '\0') &&
               terminal != nullptr && std::string_view(terminal) != "dumb";
    }();
    return wanted;
}

std::string_view escape_sequence(Colour colour) {
    switch (colour) {
        case Colour::bold:
            return "\033[1m";
        case Colour::green:
            return "\033[32m";
        case Colour::yellow:
            return "\033[33m";
        case Colour::red:
            return "\033[31m";
        case Colour::grey:
            return "\033[90m";
        case Colour::none:
            break;
    }
    return "";
}

}  // namespace

std::string paint(std::string_view text, Colour colour) {
    if (colour == Colour::none || !colours_wanted()) {
        return std::string(text);
    }
    return std::string(escape_sequence(colour)).append(text).append("\033[0m");
}

Colour state_colour(std::string_view state) {
    if (state == "completed") {
        return Colour::green;
    }
    if (state == "held") {
        return Colour::red;
    }
    return state == "in-flight" ? Colour::yellow : Colour::grey;
}

void Table::print(Output& out, bool with_titles) const {
    std::vector<std::size_t> widths;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        std::size_t width =
            std::max(columns_[i].width, with_titles ? columns(columns_[i].title) : 0);
        for (const std::vector<Cell>& row : rows_) {
            width = std::max(width, columns(row[i].text));
        }
        widths.push_back(width);
    }
    const auto print_row = [&](const auto& cell_of) {
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            const Cell cell = cell_of(i);
            const std::string padding(widths[i] - columns(cell.text), ' ');
            const bool last = i + 1 == columns_.size();
            out.write(columns_[i].right ? padding : "");
            out.write(paint(cell.text, cell.colour));
            out.write(columns_[i].right || last ? "" : padding);
            out.write(last ? "\n" : kGap);
        }
    };
    if (with_titles) {
        print_row([&](std::size_t i) { return Cell{columns_[i].title, Colour::bold}; });
    }
    for (const std::vector<Cell>& row : rows_) {
        print_row([&](std::size_t i) { return row[i]; });
    }
}

}  // namespace dedupctl
