// Aligned text for people: tables, and colour where a terminal wants it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "output.hpp"

namespace dedupctl {

enum class Colour { none, bold, green, yellow, red, grey };

// `text` in `colour` if standard output is a terminal and NO_COLOR is not set; else as it is.
[[nodiscard]] std::string paint(std::string_view text, Colour colour);

// The colour of a state's name as the tool prints it.
[[nodiscard]] Colour state_colour(std::string_view state);

struct Cell {
    std::string text;  // of printable characters only
    Colour colour = Colour::none;
};

struct Column {
    std::string title;
    bool right = false;     // aligned to the right, as numbers are
    std::size_t width = 0;  // at least this wide
};

// Rows of cells in columns as wide as their widest cell. The last column is not padded.
class Table {
  public:
    explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

    void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
    void print(Output& out, bool with_titles = true) const;

  private:
    std::vector<Column> columns_;
    std::vector<std::vector<Cell>> rows_;
};

}  // namespace dedupctl
