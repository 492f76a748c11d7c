#include "log/frame.hpp"

#include <fmt/format.h>
// Compiled in: what is hashed here is mostly so short that the call would count.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "record/codec.hpp"

namespace dedup {
namespace {

constexpr std::uint64_t kOffsetSpread = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio, odd
// So that a frame's checksum and its header check have different seeds: the fraction of sqrt(2).
constexpr std::uint64_t kHeaderCheckSeed = 0x6a09e667f3bcc908;
constexpr std::size_t kCheckedHeaderBytes = kFrameHeaderBytes - kFrameBodyBytesAt;

// Binds a hash to the frame's place.
std::uint64_t place_seed(const FrameSalt& salt, std::uint32_t offset) {
    return salt.value ^ (offset * kOffsetSpread);
}

void put_varint(std::string& out, std::uint64_t value) {
    while (value >= 0x80) {
        out.push_back(static_cast<char>(value | 0x80));
        value >>= 7;
    }
    out.push_back(static_cast<char>(value));
}

bool take_varint(std::string_view& in, std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64 && !in.empty(); shift += 7) {
        const auto byte = static_cast<unsigned char>(in.front());
        in.remove_prefix(1);
        if (shift == 63 && byte > 1) {
            return false;
        }
        value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return byte != 0 || shift == 0;
        }
    }
    return false;
}

std::unexpected<Error> malformed(std::string_view what) {
    return std::unexpected(Error{Code::corruption, fmt::format("malformed frame: {}", what)});
}

// 0: no predecessor; else 1 + 8 * (segments back) + 4 if it was swept + state, then the offset.
void put_link(std::string& out, std::uint64_t segment, const Link& link) {
    if (link.segment == 0) {
        put_varint(out, 0);
        return;
    }
    put_varint(out, 1 + (segment - link.segment) * 8 + (link.swept ? 4U : 0U) +
                        static_cast<std::uint64_t>(link.state));
    put_varint(out, link.offset);
}

bool take_link(std::string_view& in, std::uint64_t segment, Link& link) {
    std::uint64_t head = 0;
    if (!take_varint(in, head)) {
        return false;
    }
    link = {};
    if (head == 0) {
        return true;
    }
    const std::uint64_t back = (head - 1) / 8;
    const std::uint64_t state = (head - 1) % 4;
    const bool swept = (head - 1) % 8 >= 4;
    std::uint64_t offset = 0;
    if (!take_varint(in, offset) || back >= segment || state > 2 || offset > UINT32_MAX) {
        return false;
    }
    link = {segment - back, static_cast<std::uint32_t>(offset), static_cast<State>(state), swept};
    return true;
}

}  // namespace

std::uint64_t frame_checksum(const FrameSalt& salt, std::uint32_t offset,
                             std::string_view checked) {
    return XXH3_64bits_withSeed(checked.data(), checked.size(), place_seed(salt, offset));
}

std::uint32_t frame_header_check(const FrameSalt& salt, std::uint32_t offset, const char* bytes) {
    if (!salt.checks_headers) {
        return kFrameMagic;
    }
    return static_cast<std::uint32_t>(
        XXH3_64bits_withSeed(bytes + kFrameBodyBytesAt, kCheckedHeaderBytes,
                             place_seed(salt, offset) ^ kHeaderCheckSeed));
}

FrameHeader load_frame_header(const char* bytes) {
    FrameHeader header;
    header.checksum = load<std::uint64_t>(bytes + kFrameChecksumAt);
    header.body_bytes = load<std::uint32_t>(bytes + kFrameBodyBytesAt);
    header.kind = static_cast<FrameKind>(bytes[kFrameKindAt]);
    header.version = static_cast<std::uint8_t>(bytes[kFrameVersionAt]);
    header.records = load<std::uint16_t>(bytes + kFrameRecordsAt);
    header.flushed = load<std::uint32_t>(bytes + kFrameFlushedAt);
    header.sequence = load<std::uint64_t>(bytes + kFrameSequenceAt);
    return header;
}

bool read_frame_header(const char* bytes, const FrameSalt& salt, std::uint32_t offset,
                       FrameHeader& header) {
    header = load_frame_header(bytes);
    return header.body_bytes <= kFrameBodyBytesMax &&
           load<std::uint32_t>(bytes + kFrameHeaderCheckAt) ==
               frame_header_check(salt, offset, bytes);
}

void begin_frame(std::string& out) {
    out.append(kFrameHeaderBytes, '\0');
}

void add_record(std::string& out, std::uint64_t segment, const Record& record,
                std::uint64_t sequence, const Link& link, bool alone) {
    put_link(out, segment, link);
    const std::size_t length_at = out.size();
    if (!alone) {
        out.append(sizeof(std::uint32_t), '\0');
    }
    const std::size_t start = out.size();
    encode_as(record, sequence, out);
    if (!alone) {
        store(out.data() + length_at, static_cast<std::uint32_t>(out.size() - start));
    }
}

void add_moved(std::string& out, std::uint64_t segment, std::string_view encoded,
               const Link& link) {
    put_link(out, segment, link);
    out += encoded;
}

void finish_frame(std::string& out, std::size_t start, FrameHeader header, const FrameSalt& salt,
                  std::uint32_t offset) {
    char* frame = out.data() + start;
    const std::size_t body_bytes = out.size() - start - kFrameHeaderBytes;
    store(frame + kFrameBodyBytesAt, static_cast<std::uint32_t>(body_bytes));
    store(frame + kFrameKindAt, header.kind);
    store(frame + kFrameVersionAt, kFrameVersion);
    store(frame + kFrameRecordsAt, header.records);
    store(frame + kFrameFlushedAt, header.flushed);
    store(frame + kFrameSequenceAt, header.sequence);
    store(frame + kFrameHeaderCheckAt, frame_header_check(salt, offset, frame));
    const std::string_view checked(frame + kFrameHeaderCheckAt,
                                   out.size() - start - kFrameHeaderCheckAt);
    store(frame + kFrameChecksumAt, frame_checksum(salt, offset, checked));
}

const FrameRecord* FrameRecords::malformed(const char* what) {
    wrong_ = what;
    return nullptr;
}

Result<void> FrameRecords::outcome() const {
    return wrong_ == nullptr ? Result<void>()
                             : dedup::malformed(fmt::format(fmt::runtime(wrong_), given_));
}

const FrameRecord* FrameRecords::next() {
    if (given_ == header_.records) {
        return rest_.empty() ? nullptr : malformed("bytes after its last record");
    }
    // A link leads back, never forth, so that following links comes to an end.
    if (!take_link(rest_, segment_, record_.link) ||
        (record_.link.segment == segment_ && record_.link.offset >= offset_)) {
        return malformed("bad link before record {}");
    }
    std::size_t bytes = rest_.size();
    if (header_.records > 1) {
        if (rest_.size() < sizeof(std::uint32_t)) {
            return malformed("no length before record {}");
        }
        bytes = load<std::uint32_t>(rest_.data());
        rest_.remove_prefix(sizeof(std::uint32_t));
        if (bytes > rest_.size()) {
            return malformed("record {} reaches past its end");
        }
    }
    record_.sequence = header_.sequence + given_;
    record_.encoded = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    ++given_;
    return &record_;
}

std::string mark_body(std::int64_t time_ms) {
    std::string body(sizeof time_ms, '\0');
    store(body.data(), time_ms);
    return body;
}

Result<std::int64_t> mark_time(const Frame& frame) {
    if (frame.body.size() != sizeof(std::int64_t) || frame.header.records != 0) {
        return malformed("a mark has 8 bytes and no record");
    }
    return load<std::int64_t>(frame.body.data());
}

}  // namespace dedup
