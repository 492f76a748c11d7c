// Reading a segment from one end to the other: for recovery, scans and verification.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "log/segment.hpp"

namespace dedup {

// Gives the frames of a segment one after the other, reading ahead in large blocks.
class FrameReader {
  public:
    // Reads frames that begin at or after `start` and end at or before `end`.
    FrameReader(const Segment& segment, std::uint64_t start, std::uint64_t end);

    // The next frame, or nullopt if there is no valid one at offset(). The frame's views live
    // until the next call.
    // Errors: io, unsupported_version (a valid frame of a newer version).
    [[nodiscard]] Result<std::optional<Frame>> next();

    // Where the next frame has to begin.
    [[nodiscard]] std::uint64_t offset() const { return offset_; }

    // Goes on at `offset`, which lies further on.
    void skip_to(std::uint64_t offset);

  private:
    [[nodiscard]] Result<bool> fill(std::uint64_t bytes);

    const Segment& segment_;
    std::uint64_t offset_;
    std::uint64_t end_;
    std::unique_ptr<char[]> block_;
    std::uint64_t block_room_ = 0;
    std::uint64_t block_at_ = 0;  // the offset of the block's first byte
    std::uint64_t block_bytes_ = 0;
};

// The first valid frame that begins in [start, end), whatever lies around it, and that says that
// at least `flushed_min` bytes of the segment had been flushed; its offset. Errors: io; corruption
// of a file that was made to take long.
[[nodiscard]] Result<std::optional<std::uint64_t>> find_frame_from(const Segment& segment,
                                                                   std::uint64_t start,
                                                                   std::uint64_t end,
                                                                   std::uint64_t flushed_min = 0);

// What follows the last valid frame of a segment.
struct Tail {
    std::uint64_t torn_bytes = 0;  // up to the last byte that is not zero
};

// Decides what the bytes from `offset` to `end` are, where no valid frame begins at `offset`:
// nothing, the torn tail of a crash, or damage. It is damage if a valid frame further on proves
// that `offset` had been flushed before that frame was written.
// Errors: corruption, io.
[[nodiscard]] Result<Tail> inspect_tail(const Segment& segment, std::uint64_t offset,
                                        std::uint64_t end);

}  // namespace dedup
