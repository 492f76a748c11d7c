// Lines from a file descriptor, in large reads, without a copy a line.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace dedupctl {

// Any byte may be in a line but the one that ends it. A last line without one is a line too.
class LineReader {
  public:
    explicit LineReader(int fd, char end_of_line = '\n') : fd_(fd), end_of_line_(end_of_line) {}

    // Moves up to `lines_max` complete lines, with their ends, from what has been read into
    // `lines`. The views hold until the next call of fill. Gives none if another fill is needed.
    void take_lines(std::size_t lines_max, std::vector<std::string_view>& lines);

    // Reads once; blocks if there is nothing to read. Gives 0 or an errno. Sets ended() at the end.
    [[nodiscard]] int fill();

    // The same, and goes on reading what can be had at once, up to about so many bytes in all.
    [[nodiscard]] int fill_ready(std::size_t bytes_enough);

    [[nodiscard]] bool ended() const { return ended_; }
    [[nodiscard]] std::size_t bytes_buffered() const { return end_ - start_; }
    [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }

  private:
    int fd_;
    char end_of_line_;
    bool ended_ = false;
    std::uint64_t bytes_read_ = 0;
    std::vector<char> buffer_;
    std::size_t start_ = 0;    // of the first line that was not taken
    std::size_t scanned_ = 0;  // no '\n' between start_ and here
    std::size_t end_ = 0;      // of what was read
};

// Whether a read gives something, or the end, within `wait`.
[[nodiscard]] bool readable_within(int fd, std::chrono::milliseconds wait);

// Enough for a full batch of ordinary lines; more would only be copied to and fro.
inline constexpr std::size_t kBufferedBytesEnough = 1024 * 1024;

// A line is held in memory until its end is seen. What never ends is no line of text.
inline constexpr std::size_t kLineBytesMax = 16 * 1024 * 1024;

}  // namespace dedupctl
