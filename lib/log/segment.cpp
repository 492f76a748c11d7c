#include "log/segment.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace dedup {
namespace {

constexpr std::size_t kIdDigits = 16;
// Most frames are smaller, so that one read fetches header and body together.
constexpr std::size_t kFirstReadBytes = 256;
static_assert(kFirstReadBytes <= FrameBuffer::kInlineBytes);

std::uint64_t header_checksum(std::string_view header) {
    return XXH3_64bits(header.data(), kSegmentChecksumAt);
}

Result<SegmentHeader> decode_segment_header(const Path& path, std::string_view bytes) {
    const auto damaged = [&](std::string_view what) {
        return std::unexpected(Error{
            Code::corruption, fmt::format("{} is damaged at offset 0: {}", path.string(), what)});
    };
    if (bytes.size() < kSegmentHeaderBytes || !bytes.starts_with(kSegmentMagic)) {
        return damaged("it does not begin with a segment header");
    }
    // Newer versions, too, have a checksum of these bytes here: a version that is wrong under a
    // wrong checksum is damage.
    if (load<std::uint64_t>(bytes.data() + kSegmentChecksumAt) != header_checksum(bytes)) {
        return damaged("the checksum of the segment header is wrong");
    }
    const auto version = load<std::uint32_t>(bytes.data() + kSegmentVersionAt);
    if (version > kSegmentVersion) {
        return std::unexpected(
            Error{Code::unsupported_version,
                  fmt::format("{} has format version {}, and this program knows versions up to {}; "
                              "use a newer one",
                              path.string(), version, kSegmentVersion)});
    }
    if (version == 0) {
        return damaged("there is no format version 0");
    }
    SegmentHeader header;
    header.version = version;
    std::memcpy(header.store_id.data(), bytes.data() + kSegmentStoreIdAt, header.store_id.size());
    header.id = load<std::uint64_t>(bytes.data() + kSegmentIdAt);
    header.previous_id = load<std::uint64_t>(bytes.data() + kSegmentPreviousIdAt);
    header.previous_bytes = load<std::uint64_t>(bytes.data() + kSegmentPreviousBytesAt);
    header.next_sequence = load<std::uint64_t>(bytes.data() + kSegmentNextSequenceAt);
    header.time_high_ms = load<std::int64_t>(bytes.data() + kSegmentTimeHighAt);
    return header;
}

}  // namespace

std::string segment_file_name(std::uint64_t id, std::string_view suffix) {
    return fmt::format("{:016}{}", id, suffix);
}

std::optional<std::uint64_t> segment_id(std::string_view file_name, std::string_view suffix) {
    if (file_name.size() != kIdDigits + suffix.size() || !file_name.ends_with(suffix)) {
        return std::nullopt;
    }
    std::uint64_t id = 0;
    const auto [end, error] = std::from_chars(file_name.data(), file_name.data() + kIdDigits, id);
    if (error != std::errc() || end != file_name.data() + kIdDigits || id == 0) {
        return std::nullopt;
    }
    return id;
}

FrameSalt segment_salt(const SegmentHeader& header) {
    return {XXH3_64bits_withSeed(header.store_id.data(), header.store_id.size(), header.id),
            header.version > 1};
}

std::string encode_segment_header(const SegmentHeader& header) {
    std::string bytes(kSegmentHeaderBytes, '\0');
    char* to = bytes.data();
    std::memcpy(to + kSegmentMagicAt, kSegmentMagic.data(), kSegmentMagic.size());
    store(to + kSegmentVersionAt, header.version);
    store(to + kSegmentHeaderBytesAt, static_cast<std::uint32_t>(kSegmentHeaderBytes));
    store(to + kSegmentStoreIdAt, header.store_id);
    store(to + kSegmentIdAt, header.id);
    store(to + kSegmentPreviousIdAt, header.previous_id);
    store(to + kSegmentPreviousBytesAt, header.previous_bytes);
    store(to + kSegmentNextSequenceAt, header.next_sequence);
    store(to + kSegmentTimeHighAt, header.time_high_ms);
    store(to + kSegmentChecksumAt, header_checksum(bytes));
    return bytes;
}

char* FrameBuffer::grow(std::size_t bytes) {
    if (bytes <= kInlineBytes) {
        return inline_.data();
    }
    large_ = std::make_unique_for_overwrite<char[]>(bytes);
    std::memcpy(large_.get(), inline_.data(), kInlineBytes);
    return large_.get();
}

Segment::Segment(std::shared_ptr<File> file, Path path, const SegmentHeader& header)
    : file_(std::move(file)),
      path_(std::move(path)),
      header_(header),
      salt_(segment_salt(header)) {}

Result<std::shared_ptr<const Segment>> Segment::open_file(Env& env, const Path& path) {
    auto file = env.open(path, OpenMode::read);
    if (!file) {
        return std::unexpected(file.error());
    }
    std::array<char, kSegmentHeaderBytes> bytes;
    const auto got = (*file)->read(0, bytes);
    if (!got) {
        return std::unexpected(got.error());
    }
    const auto header = decode_segment_header(path, {bytes.data(), *got});
    if (!header) {
        return std::unexpected(header.error());
    }
    return std::make_shared<const Segment>(std::move(*file), path, *header);
}

Result<std::shared_ptr<const Segment>> Segment::open(Env& env, const Path& log, std::uint64_t id,
                                                     std::uint64_t sealed_bytes) {
    const Path path = log / segment_file_name(id);
    auto segment = open_file(env, path);
    if (!segment) {
        return segment;
    }
    if ((*segment)->id() != id) {
        return std::unexpected(
            Error{Code::corruption, fmt::format("{} is damaged at offset {}: it holds segment {}",
                                                path.string(), kSegmentIdAt, (*segment)->id())});
    }
    if (sealed_bytes != 0) {
        // A file that is too short is read with system calls, which say so.
        const auto file_bytes = (*segment)->file().size();
        if (file_bytes && *file_bytes >= sealed_bytes) {
            (*segment)->map(sealed_bytes);
            (*segment)->has_frames_to(sealed_bytes);
            (*segment)->file().keep_map_only();
        }
    }
    return segment;
}

Result<std::uint64_t> Segment::bytes_there() const {
    const auto bytes = file_->size();
    return bytes ? std::min(*bytes, kSegmentFileBytesMax) : bytes;
}

Result<std::optional<Frame>> Segment::find_frame(std::uint32_t offset, FrameBuffer& buffer) const {
    if (const auto readable = readable_.load(std::memory_order_acquire); offset < readable) {
        const std::string_view rest = map_.substr(offset, readable - offset);
        FrameHeader header;
        if (rest.size() >= kFrameHeaderBytes &&
            read_frame_header(rest.data(), salt_, offset, header) &&
            header.body_bytes <= rest.size() - kFrameHeaderBytes) {
            if (const auto frame = checked_frame(offset, rest.data(), header)) {
                return frame;
            }
        }
        // What a system call gives is final: not every file system keeps maps and writes in step.
    }
    const auto got = file_->read(offset, {buffer.inline_bytes(), kFirstReadBytes});
    if (!got) {
        return std::unexpected(got.error());
    }
    FrameHeader header;
    if (*got < kFrameHeaderBytes ||
        !read_frame_header(buffer.inline_bytes(), salt_, offset, header)) {
        return std::nullopt;
    }
    const std::size_t bytes = kFrameHeaderBytes + header.body_bytes;
    const char* start = buffer.inline_bytes();
    if (bytes > *got) {
        if (*got < kFirstReadBytes) {
            return std::nullopt;  // the file ends within the frame
        }
        // A damaged length must not cost more memory than the file has bytes.
        const auto file_bytes = file_->size();
        if (!file_bytes) {
            return std::unexpected(file_bytes.error());
        }
        if (offset + bytes > *file_bytes) {
            return std::nullopt;
        }
        char* room = buffer.grow(bytes);
        const auto rest = file_->read(offset + *got, {room + *got, bytes - *got});
        if (!rest) {
            return std::unexpected(rest.error());
        }
        if (*rest < bytes - *got) {
            return std::nullopt;
        }
        start = room;
    }
    return checked_frame(offset, start, header);
}

// The frame whose bytes, all of them, begin at `start`; nullopt if its checksum is wrong.
std::optional<Frame> Segment::checked_frame(std::uint32_t offset, const char* start,
                                            const FrameHeader& header) const {
    const std::string_view checked(start + kFrameHeaderCheckAt,
                                   kFrameHeaderBytes - kFrameHeaderCheckAt + header.body_bytes);
    if (frame_checksum(salt_, offset, checked) != header.checksum) {
        return std::nullopt;
    }
    return Frame{header, offset, {start + kFrameHeaderBytes, header.body_bytes}};
}

Result<Frame> Segment::read_frame(std::uint32_t offset, FrameBuffer& buffer) const {
    auto frame = find_frame(offset, buffer);
    if (!frame) {
        frame = find_frame(offset, buffer);  // sweeps take what stays unreadable for damage
    }
    if (!frame) {
        return std::unexpected(frame.error());
    }
    if (!*frame) {
        return std::unexpected(corruption(offset, "there is no valid frame"));
    }
    return **frame;
}

Error Segment::corruption(std::uint64_t offset, std::string_view what) const {
    return {Code::corruption,
            fmt::format("{} is damaged at offset {}: {}", path_.string(), offset, what)};
}

}  // namespace dedup
