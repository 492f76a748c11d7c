// Lines from a file descriptor, in large reads, without a copy a line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace dedupctl {

// Any byte may be in a line but '\n', which ends it. A last line without one is a line too.
class LineReader {
  public:
    explicit LineReader(int fd) : fd_(fd) {}

    // Moves up to `lines_max` complete lines, with their '\n', from what has been read into
    // `lines`. The views hold until the next call of fill. Gives none if another fill is needed.
    void take_lines(std::size_t lines_max, std::vector<std::string_view>& lines);

    // Reads once; blocks if there is nothing to read. Gives 0 or an errno. Sets ended() at the end.
    [[nodiscard]] int fill();

    [[nodiscard]] bool ended() const { return ended_; }
    [[nodiscard]] std::size_t bytes_buffered() const { return end_ - start_; }
    [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }

  private:
    int fd_;
    bool ended_ = false;
    std::uint64_t bytes_read_ = 0;
    std::vector<char> buffer_;
    std::size_t start_ = 0;    // of the first line that was not taken
    std::size_t scanned_ = 0;  // no '\n' between start_ and here
    std::size_t end_ = 0;      // of what was read
};

}  // namespace dedupctl
