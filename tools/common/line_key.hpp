// Which part of a line `filter` goes by.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace dedupctl {

class LineKey {
  public:
    LineKey() = default;
    LineKey(const LineKey&) = delete;
    LineKey& operator=(const LineKey&) = delete;
    virtual ~LineKey() = default;

    // The key of `line`, which is without its '\n': a view of the line itself or of `storage`,
    // which is overwritten. nullopt if the line has none.
    [[nodiscard]] virtual std::optional<std::string_view> find(std::string_view line,
                                                               std::string& storage) = 0;
};

// The line itself.
[[nodiscard]] std::unique_ptr<LineKey> whole_line_key();

// Field `number`, counted from 1. An empty delimiter stands for runs of blanks as in awk; else
// exactly the delimiter ends a field.
[[nodiscard]] std::unique_ptr<LineKey> field_key(std::size_t number, std::string delimiter);

// The value that the RFC 6901 pointer names in a line that is a JSON text: a string as it is, a
// number or boolean as it is written, an object or array without white space. A null is no key,
// since two lines without a value are not the same line. Throws a usage Failure.
[[nodiscard]] std::unique_ptr<LineKey> json_key(const std::string& pointer);

// The first group of the match, or all of it if there is no group. Throws a usage Failure.
// Lines that are not UTF-8, and all lines if the pattern is not, are matched byte by byte.
[[nodiscard]] std::unique_ptr<LineKey> regex_key(const std::string& pattern);

// What `key` gives, without blanks around it (if `trim`), and with ASCII letters made small (if
// `ignore_case`).
[[nodiscard]] std::unique_ptr<LineKey> folded_key(std::unique_ptr<LineKey> key, bool trim,
                                                  bool ignore_case);

}  // namespace dedupctl
