// Standard output and standard error, with every write checked.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dedupctl {

using Json = nlohmann::ordered_json;

// Writes all of `bytes` to `fd`, however often that takes; gives 0 or an errno.
[[nodiscard]] int write_all(int fd, std::string_view bytes);

// Collects output and writes it in large pieces. A full disk or a closed pipe is a Failure, not a
// silent loss; a closed pipe is one without a message, so that `dedupctl ... | head` is usable.
class Output {
  public:
    explicit Output(int fd) : fd_(fd) {}
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

    void write(std::string_view bytes);
    void line(std::string_view text);
    void json(const Json& value);  // one line; text that is not UTF-8 has its bad bytes replaced

    // Throws a Failure. What could not be written is dropped, so that a later flush does not try
    // again.
    void flush();

    // All that it was given, and how much of that got through: they differ after a Failure.
    [[nodiscard]] std::uint64_t bytes_given() const { return bytes_given_; }
    [[nodiscard]] std::uint64_t bytes_written() const { return bytes_written_; }

  private:
    int fd_;
    std::string buffer_;
    std::uint64_t bytes_given_ = 0;
    std::uint64_t bytes_written_ = 0;
};

// One line of JSON, as Output::json writes it.
[[nodiscard]] std::string json_line(const Json& value);

// Adds `name` if `bytes` are UTF-8, and `name`_base64 always.
void add_bytes(Json& object, const std::string& name, std::string_view bytes);

// A time, or null where 0 stands for "never" or "none".
[[nodiscard]] Json time_or_null(std::int64_t time_ms);

}  // namespace dedupctl
