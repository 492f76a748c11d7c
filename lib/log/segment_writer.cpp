#include "log/segment_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace dedup {
namespace {

// Room is reserved in growing steps: small stores stay small, and the groups that write zeros do
// not take much longer than others.
constexpr std::uint64_t kReserveBytesMin = 64 * 1024;
constexpr std::uint64_t kReserveBytesMax = 1024 * 1024;
constexpr std::uint64_t kReserveShare = 16;  // of the segment so far
// And no step is longer than what has been written since the file was opened: who comes for one
// append reserves nothing, and has nothing to cut off, which takes longer than the flush.
// Groups of more bytes than this flush too rarely for zeros to be worth writing.
constexpr std::uint64_t kZeroedGroupBytesMax = 128 * 1024;
constexpr std::uint64_t kRewriteBlockBytes = 1024 * 1024;

Result<void> rewrite(File& file, std::uint64_t from, std::uint64_t end) {
    std::vector<char> block(std::min(kRewriteBlockBytes, end - from));
    while (from < end) {
        const auto got =
            file.read(from, {block.data(), std::min<std::uint64_t>(block.size(), end - from)});
        if (!got) {
            return std::unexpected(got.error());
        }
        if (*got == 0) {
            return std::unexpected(Error{Code::io, "the log became shorter while it was opened"});
        }
        if (auto written = file.write(from, {block.data(), *got}); !written) {
            return written;
        }
        from += *got;
    }
    return {};
}

}  // namespace

std::string segment_start(const SegmentHeader& header, const Manifest& manifest) {
    std::string start = encode_segment_header(header);
    begin_frame(start);
    start += encode_manifest(manifest);
    FrameHeader frame;
    frame.kind = manifest_kind(manifest);
    frame.flushed = kSegmentHeaderBytes;
    frame.sequence = header.next_sequence - 1;
    finish_frame(start, kSegmentHeaderBytes, frame, segment_salt(header), kSegmentHeaderBytes);
    return start;
}

SegmentWriter::SegmentWriter(std::shared_ptr<File> file, Path path, const SegmentHeader& header,
                             std::uint64_t end)
    : file_(file),
      segment_(std::make_shared<const Segment>(std::move(file), std::move(path), header)),
      opened_at_(end),
      written_(end),
      flushed_(end),
      reserved_(end) {}

Result<std::unique_ptr<SegmentWriter>> SegmentWriter::create(Env& env, const Path& log,
                                                             const SegmentHeader& header,
                                                             const Manifest& manifest) {
    // A file gets its name only once this much is durable, so that a segment with a bad header or
    // without a manifest can only be a damaged one.
    const std::string start = segment_start(header, manifest);
    const Path path = log / segment_file_name(header.id);
    const Path unnamed = path.string() + ".tmp";
    auto file = env.open(unnamed, OpenMode::create);
    if (!file) {
        return std::unexpected(file.error());
    }
    auto done = (*file)->write(0, start);
    if (done) {
        done = (*file)->sync();
    }
    if (done) {
        done = env.rename(unnamed, path);
    }
    if (done) {
        done = env.sync_directory(log);
    }
    if (!done) {
        return std::unexpected(done.error());
    }
    return std::unique_ptr<SegmentWriter>(
        new SegmentWriter(std::move(*file), path, header, start.size()));
}

Result<std::unique_ptr<SegmentWriter>> SegmentWriter::resume(Env& env, const Path& log,
                                                             const SegmentHeader& header,
                                                             std::uint64_t flushed,
                                                             std::uint64_t end, bool flush) {
    const Path path = log / segment_file_name(header.id);
    auto file = env.open(path, OpenMode::write);
    if (!file) {
        return std::unexpected(file.error());
    }
    flushed = std::min(flushed, end);
    auto done = (*file)->truncate(end);
    if (done) {
        done = rewrite(**file, flushed, end);
    }
    if (done && flush) {
        done = (*file)->sync();
    }
    if (!done) {
        return std::unexpected(done.error());
    }
    std::unique_ptr<SegmentWriter> writer(new SegmentWriter(std::move(*file), path, header, end));
    writer->flushed_ = flush ? end : flushed;
    return writer;
}

std::uint32_t SegmentWriter::begin() {
    begun_at_ = buffer_.size();
    begin_frame(buffer_);
    return static_cast<std::uint32_t>(written_ + begun_at_);
}

void SegmentWriter::finish(FrameKind kind, std::uint16_t records, std::uint64_t sequence) {
    FrameHeader header;
    header.kind = kind;
    header.records = records;
    header.flushed = static_cast<std::uint32_t>(flushed_.load());
    header.sequence = sequence;
    finish_frame(buffer_, begun_at_, header, segment_->salt(),
                 static_cast<std::uint32_t>(written_ + begun_at_));
}

Result<Frame> SegmentWriter::read_frame(std::uint32_t offset, FrameBuffer& bytes) const {
    if (offset < written_) {
        return segment_->read_frame(offset, bytes);
    }
    Frame frame;
    const char* start = buffer_.data() + (offset - written_);
    if (!read_frame_header(start, segment_->salt(), offset, frame.header)) {
        return std::unexpected(segment_->corruption(offset, "the frame in memory is damaged"));
    }
    frame.offset = offset;
    frame.body = {start + kFrameHeaderBytes, frame.header.body_bytes};
    return frame;
}

Result<void> SegmentWriter::reserve(bool more_follows) {
    if (!can_reserve_ || end() <= reserved_) {
        return {};
    }
    const std::uint64_t step =
        std::clamp(end() / kReserveShare, kReserveBytesMin, kReserveBytesMax);
    const std::uint64_t ahead = more_follows ? std::min(step, written_ - opened_at_) : 0;
    // Where there is no room for a whole step, there may still be room for this write.
    for (const std::uint64_t bytes : {end() + ahead, end()}) {
        const auto done = file_->reserve(bytes);
        if (done) {
            can_reserve_ = *done;
            reserved_ = bytes;
            if (can_reserve_ && buffered() <= kZeroedGroupBytesMax) {
                write_zeros();
            }
            return {};
        }
        if (done.error().code != Code::out_of_space || bytes == end()) {
            return std::unexpected(done.error());
        }
    }
    return {};
}

// Behind what is buffered, up to the end of the reserved room. File systems keep what has only been
// reserved apart from what has been written, and each flush that follows a write there has to note
// the difference.
void SegmentWriter::write_zeros() {
    static constexpr std::array<char, 64 * 1024> kZeros{};
    for (std::uint64_t at = end(); at < reserved_ && !write_error_; at += kZeros.size()) {
        const std::uint64_t bytes = std::min<std::uint64_t>(kZeros.size(), reserved_ - at);
        auto done = file_->write(at, {kZeros.data(), bytes});
        if (!done && done.error().code == Code::out_of_space) {
            return;  // what is buffered has its room
        }
        if (!done) {
            write_error_ = done.error();  // which write() is about to say
        }
    }
}

Result<void> SegmentWriter::write() {
    if (buffer_.empty()) {
        return {};
    }
    if (!write_error_) {
        if (auto done = file_->write(written_, buffer_); !done) {
            write_error_ = done.error();
        }
    }
    if (write_error_) {
        return std::unexpected(*write_error_);
    }
    written_ += buffer_.size();
    buffer_.clear();
    return {};
}

Result<void> SegmentWriter::sync_written() {
    const std::uint64_t written = written_;
    if (flushed_ == written) {
        return {};
    }
    if (!sync_error_) {
        if (auto done = file_->sync(); !done) {
            sync_error_ = done.error();
        } else if (auto there = check_place(); !there) {
            sync_error_ = there.error();
        }
    }
    if (sync_error_) {
        return std::unexpected(*sync_error_);
    }
    flushed_ = written;
    return {};
}

// What is appended to a file that has lost its name, or to one beside the store that is now at its
// path, is found by nobody who opens the store.
Result<void> SegmentWriter::check_place() const {
    return file_->is_at(segment_->path())
               ? Result<void>()
               : std::unexpected(
                     Error{Code::failed,
                           fmt::format("{} was removed, moved or replaced while the store was "
                                       "open, or a directory that it is in",
                                       segment_->path().string())});
}

Result<void> SegmentWriter::trim() {
    if (reserved_ <= written_) {
        return {};
    }
    reserved_ = written_;
    return file_->truncate(written_);
}

}  // namespace dedup
