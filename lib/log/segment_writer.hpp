// Writing the newest segment of the log.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "log/manifest.hpp"
#include "log/segment.hpp"

namespace dedup {

// What every segment begins with.
[[nodiscard]] std::string segment_start(const SegmentHeader& header, const Manifest& manifest);

// Collects frames in memory, writes them in one piece and flushes. One caller at a time, except
// for sync_written().
class SegmentWriter {
  public:
    // Creates the segment's file durably: header, first manifest and directory entry are on the
    // disk when this returns. Errors: out_of_space and others, with nothing left under the
    // segment's name.
    [[nodiscard]] static Result<std::unique_ptr<SegmentWriter>> create(Env& env, const Path& log,
                                                                       const SegmentHeader& header,
                                                                       const Manifest& manifest);

    // Goes on in an existing segment whose valid frames end at `end`: cuts off what lies beyond,
    // writes the bytes from `flushed` on again, and flushes. Writing them again is needed because
    // a flush that failed earlier may have left them in the page cache only, marked as clean.
    // `flush`: false if nothing that is shown or acted on lies in these bytes; then they may as
    // well be lost as long as nothing follows them, and what does follow is flushed with them.
    [[nodiscard]] static Result<std::unique_ptr<SegmentWriter>> resume(Env& env, const Path& log,
                                                                       const SegmentHeader& header,
                                                                       std::uint64_t flushed,
                                                                       std::uint64_t end,
                                                                       bool flush = true);

    [[nodiscard]] const std::shared_ptr<const Segment>& segment() const { return segment_; }

    // Where the next frame will begin.
    [[nodiscard]] std::uint64_t end() const { return written_ + buffer_.size(); }
    [[nodiscard]] std::uint64_t buffered() const { return buffer_.size(); }

    // Begins a frame in the buffer, one at a time; gives where it will lie. What is appended to the
    // buffer from then on is its body, until finish(), or drop(), which forgets it.
    std::uint32_t begin();
    [[nodiscard]] std::string& buffer() { return buffer_; }
    [[nodiscard]] std::size_t body_bytes() const {
        return buffer_.size() - begun_at_ - kFrameHeaderBytes;
    }
    void finish(FrameKind kind, std::uint16_t records, std::uint64_t sequence);
    void drop() { buffer_.resize(begun_at_); }

    // Reads a frame wherever it is, in the buffer or in the file.
    [[nodiscard]] Result<Frame> read_frame(std::uint32_t offset, FrameBuffer& bytes) const;

    // Makes sure that the disk has room for what is buffered, and for more if it `more_follows`.
    // Errors: out_of_space; then nothing of it has been written, and discard() forgets the frames.
    [[nodiscard]] Result<void> reserve(bool more_follows = true);
    void discard() { buffer_.clear(); }

    // After an error of one of these, what was buffered may or may not be on the disk. Every later
    // call gives the same error: a flush that failed once may seem to succeed when it is repeated,
    // although the kernel has dropped the bytes.
    [[nodiscard]] Result<void> write();
    // Flushes what has been written, and looks whether the file is still where the log has it. May
    // run beside write(), but not beside itself.
    [[nodiscard]] Result<void> sync_written();

    // Cuts off the room that was reserved beyond the last frame.
    [[nodiscard]] Result<void> trim();

    // Nothing before end() is without its flush.
    [[nodiscard]] bool synced() const { return flushed_ == written_; }
    // Nothing has been written since create() or resume(). What resume() was to leave unflushed is
    // worth no flush then, as nothing follows it.
    [[nodiscard]] bool untouched() const { return written_ == opened_at_; }

  private:
    SegmentWriter(std::shared_ptr<File> file, Path path, const SegmentHeader& header,
                  std::uint64_t end);

    void write_zeros();
    [[nodiscard]] Result<void> check_place() const;

    std::shared_ptr<File> file_;
    std::shared_ptr<const Segment> segment_;
    std::string buffer_;
    std::size_t begun_at_ = 0;  // in the buffer: the newest frame
    const std::uint64_t opened_at_;
    std::atomic<std::uint64_t> written_;
    std::atomic<std::uint64_t> flushed_;
    std::uint64_t reserved_;
    bool can_reserve_ = true;
    std::optional<Error> write_error_;
    std::optional<Error> sync_error_;
};

}  // namespace dedup
