// Rows of CSV as RFC 4180 has it: fields between commas, in quotes if they have commas, quotes
// (doubled) or line ends in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace dedupctl {

class CsvReader {
  public:
    // `read` replaces the text by the next piece of the file; false at the end.
    using Read = std::function<bool(std::string& piece)>;

    // A row with more bytes than `row_bytes_max` is an error.
    CsvReader(Read read, std::size_t row_bytes_max)
        : read_(std::move(read)), row_bytes_max_(row_bytes_max) {}

    // The next row that is not an empty line; false at the end. error() says what is wrong with
    // the row, if anything is; the row behind it begins at the next line end.
    [[nodiscard]] bool next(std::vector<std::string>& fields);

    [[nodiscard]] const std::string& error() const { return error_; }
    [[nodiscard]] std::uint64_t line() const { return row_line_; }  // on which the row began

  private:
    static constexpr int kEnd = -1;

    int peek();
    int take();
    bool read_field(std::string& field);
    void read_quoted(std::string& field);
    void fail(const char* why);
    void append(std::string& field, int c);

    Read read_;
    std::size_t row_bytes_max_;
    std::string piece_;
    std::size_t at_ = 0;
    bool ended_ = false;
    std::uint64_t line_ = 1;
    std::uint64_t row_line_ = 1;
    std::size_t row_bytes_ = 0;
    std::string error_;
};

}  // namespace dedupctl
