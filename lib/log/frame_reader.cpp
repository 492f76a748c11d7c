#include "log/frame_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace dedup {
namespace {

constexpr std::uint64_t kBlockBytes = 256 * 1024;
// What may be read of bodies whose frames turn out to be none: so much, and so much for each byte
// that was searched. No damage has ever come near it; a file that was made up could take hours.
constexpr std::uint64_t kWrongBodyBytes = 128 * 1024 * 1024;
constexpr std::uint64_t kWrongBodyShare = 64;

// Whether the header at `bytes` can be that of a frame at `offset` which ends at or before `end`.
bool may_be_frame(const Segment& segment, const char* bytes, std::uint64_t offset,
                  std::uint64_t end, std::uint64_t flushed_min) {
    FrameHeader header = load_frame_header(bytes);
    return known_frame(header) && header.flushed >= flushed_min && header.flushed <= offset &&
           header.body_bytes <= end - offset - kFrameHeaderBytes &&
           read_frame_header(bytes, segment.salt(), static_cast<std::uint32_t>(offset), header);
}

}  // namespace

FrameReader::FrameReader(const Segment& segment, std::uint64_t start, std::uint64_t end)
    : segment_(segment), offset_(start), end_(end), block_at_(start) {}

// Makes `bytes` bytes from offset_ available in the block; false if the segment ends before.
Result<bool> FrameReader::fill(std::uint64_t bytes) {
    if (offset_ + bytes <= block_at_ + block_bytes_) {
        return true;
    }
    if (offset_ + bytes > end_) {
        return false;
    }
    if (bytes > kBlockBytes) {
        // A wrong length must not cost more memory than the file has bytes.
        const auto file_bytes = segment_.file().size();
        if (!file_bytes) {
            return std::unexpected(file_bytes.error());
        }
        if (offset_ + bytes > *file_bytes) {
            return false;
        }
    }
    const std::uint64_t want = std::min(std::max(bytes, kBlockBytes), end_ - offset_);
    const std::uint64_t kept = block_at_ + block_bytes_ - offset_;
    if (want > block_room_) {
        auto room = std::make_unique_for_overwrite<char[]>(want);
        if (kept != 0) {
            std::memcpy(room.get(), block_.get() + (offset_ - block_at_), kept);
        }
        block_ = std::move(room);
        block_room_ = want;
    } else {
        std::memmove(block_.get(), block_.get() + (offset_ - block_at_), kept);
    }
    const auto got = segment_.file().read(offset_ + kept, {block_.get() + kept, want - kept});
    if (!got) {
        return std::unexpected(got.error());
    }
    block_at_ = offset_;
    block_bytes_ = kept + *got;
    return bytes <= block_bytes_;
}

void FrameReader::skip_to(std::uint64_t offset) {
    offset_ = offset;
    block_at_ = offset;
    block_bytes_ = 0;
}

Result<std::optional<Frame>> FrameReader::next() {
    const auto header_there = fill(kFrameHeaderBytes);
    if (!header_there) {
        return std::unexpected(header_there.error());
    }
    Frame frame;
    frame.offset = static_cast<std::uint32_t>(offset_);
    if (!*header_there || !read_frame_header(block_.get() + (offset_ - block_at_), segment_.salt(),
                                             frame.offset, frame.header)) {
        return std::nullopt;
    }
    const std::uint64_t bytes = kFrameHeaderBytes + frame.header.body_bytes;
    const auto body_there = fill(bytes);
    if (!body_there) {
        return std::unexpected(body_there.error());
    }
    if (!*body_there) {
        return std::nullopt;
    }
    const char* start = block_.get() + (offset_ - block_at_);
    const std::string_view checked(start + kFrameHeaderCheckAt, bytes - kFrameHeaderCheckAt);
    if (frame_checksum(segment_.salt(), frame.offset, checked) != frame.header.checksum) {
        return std::nullopt;
    }
    if (!known_frame(frame.header)) {
        return std::unexpected(Error{
            Code::unsupported_version,
            fmt::format("{} has a frame of version {} and kind {} at offset {}, which this program "
                        "does not know; use a newer one",
                        segment_.path().string(), frame.header.version,
                        static_cast<int>(frame.header.kind), offset_)});
    }
    frame.body = {start + kFrameHeaderBytes, frame.header.body_bytes};
    offset_ += bytes;
    return frame;
}

// Judged by what costs little first, so that bytes which merely look like frames cost no checksum.
Result<std::optional<std::uint64_t>> find_frame_from(const Segment& segment, std::uint64_t start,
                                                     std::uint64_t end, std::uint64_t flushed_min) {
    FrameBuffer buffer;
    std::uint64_t wrong_bytes = 0;
    const auto block = std::make_unique_for_overwrite<char[]>(kBlockBytes);
    for (std::uint64_t at = start; at + kFrameHeaderBytes <= end;) {
        // No frame has its version in a hole.
        const std::uint64_t data = segment.file().skip_hole(at + kFrameVersionAt);
        at = data - kFrameVersionAt;
        if (at + kFrameHeaderBytes > end) {
            break;
        }
        const auto got = segment.file().read(at, {block.get(), std::min(kBlockBytes, end - at)});
        if (!got) {
            return std::unexpected(got.error());
        }
        if (*got < kFrameHeaderBytes) {
            break;
        }
        // The places where a header begins that ends within this block.
        const std::size_t places = *got - kFrameHeaderBytes + 1;
        const std::string_view versions(block.get() + kFrameVersionAt, places);
        constexpr char kVersion = kFrameVersion;
        for (auto found = versions.find(kVersion); found != std::string_view::npos;
             found = versions.find(kVersion, found + 1)) {
            const std::uint64_t candidate = at + found;
            if (!may_be_frame(segment, block.get() + found, candidate, end, flushed_min)) {
                continue;
            }
            const auto frame = segment.find_frame(static_cast<std::uint32_t>(candidate), buffer);
            if (!frame) {
                return std::unexpected(frame.error());
            }
            if (*frame) {
                return candidate;
            }
            wrong_bytes += load_frame_header(block.get() + found).body_bytes;
            if (wrong_bytes > kWrongBodyBytes + kWrongBodyShare * (candidate - start)) {
                return std::unexpected(segment.corruption(
                    candidate, "it was made up: too much of it looks like frames and is none"));
            }
        }
        at += places;
    }
    return std::nullopt;
}

Result<Tail> inspect_tail(const Segment& segment, std::uint64_t offset, std::uint64_t end) {
    const auto proof = find_frame_from(segment, offset, end, offset + 1);
    if (!proof) {
        return std::unexpected(proof.error());
    }
    if (*proof) {
        return std::unexpected(segment.corruption(
            offset,
            fmt::format("the frame at {} proves that these bytes had been flushed", **proof)));
    }
    Tail tail;
    const auto block = std::make_unique_for_overwrite<char[]>(kBlockBytes);
    for (std::uint64_t at = segment.file().skip_hole(offset); at < end;
         at = segment.file().skip_hole(at)) {
        const auto got = segment.file().read(at, {block.get(), std::min(kBlockBytes, end - at)});
        if (!got) {
            return std::unexpected(got.error());
        }
        const std::string_view bytes(block.get(), *got);
        if (const auto last = bytes.find_last_not_of('\0'); last != std::string_view::npos) {
            tail.torn_bytes = at + last + 1 - offset;
        }
        if (bytes.empty()) {
            break;
        }
        at += bytes.size();
    }
    return tail;
}

}  // namespace dedup
