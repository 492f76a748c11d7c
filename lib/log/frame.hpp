// Frames: what a segment consists of after its header. docs/format.md is the normative page; the
// offsets and sizes stand here and nowhere else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/error.hpp"
#include "dedup/record.hpp"
#include "env/bytes.hpp"

namespace dedup {

inline constexpr std::uint8_t kFrameVersion = 1;

inline constexpr std::size_t kFrameChecksumAt = 0;     // u64, of all that follows
inline constexpr std::size_t kFrameHeaderCheckAt = 8;  // u32, of the header from the next field on
inline constexpr std::size_t kFrameBodyBytesAt = 12;   // u32
inline constexpr std::size_t kFrameKindAt = 16;        // u8
inline constexpr std::size_t kFrameVersionAt = 17;     // u8
inline constexpr std::size_t kFrameRecordsAt = 18;     // u16
inline constexpr std::size_t kFrameFlushedAt = 20;     // u32
inline constexpr std::size_t kFrameSequenceAt = 24;    // u64
inline constexpr std::size_t kFrameHeaderBytes = 32;

// What the frames of segments of version 1 have in place of a check: "DFRM".
inline constexpr std::uint32_t kFrameMagic = 0x4d524644;

// One record with the largest of every field, or an atomic batch, whichever is more.
inline constexpr std::size_t kFrameBodyBytesMax = 96 * 1024 * 1024;
static_assert(kReceiptBytesMax + kMetadataBytesMax + 64 * kLabelBytesMax < kFrameBodyBytesMax);

// One below the highest number, so that "the next sequence" always exists.
inline constexpr std::uint64_t kSequenceMax = UINT64_MAX - 1;

enum class FrameKind : std::uint8_t {
    records = 1,   // one record, or the records of an atomic batch
    mark = 2,      // no record: the highest sequence that may have been assigned, and the time seen
    moved = 3,     // one record that a sweep moved here, with the sequence that it always had
    manifest = 4,  // no record: what has been swept, and which segments there are; see manifest.hpp
    clock_manifest = 5,  // a manifest that knows jumps or resets of the clock
};

struct FrameHeader {
    std::uint64_t checksum = 0;
    std::uint32_t body_bytes = 0;
    FrameKind kind = FrameKind::records;
    std::uint8_t version = kFrameVersion;
    std::uint16_t records = 0;
    // How much of the segment had been flushed when this frame was written. A valid frame thus
    // proves that damage below this mark is not the torn tail of a crash.
    std::uint32_t flushed = 0;
    std::uint64_t sequence = 0;  // of the first record; the others follow one by one
};

// Where a record's predecessor in its stream lies, as stored before each record in a frame. For a
// moved record that is the place from which it was moved.
struct Link {
    std::uint64_t segment = 0;  // 0: the record has no predecessor
    std::uint32_t offset = 0;
    State state = State::in_flight;
    bool swept = false;  // the predecessor had been swept away: the stream begins anew

    bool operator==(const Link&) const = default;
};

// A frame whose checksum is right. The views live as long as the bytes that it was read from.
struct Frame {
    FrameHeader header;
    std::uint32_t offset = 0;
    std::string_view body;

    [[nodiscard]] std::uint64_t bytes() const { return kFrameHeaderBytes + body.size(); }
};

struct FrameRecord {
    Link link;
    std::uint64_t sequence = 0;
    std::string_view encoded;
};

// What binds frames to their store and segment, so that a stale or misplaced one never passes.
struct FrameSalt {
    std::uint64_t value = 0;
    bool checks_headers = true;  // false in segments of version 1
};

// Of `checked`, a frame from its header check on.
[[nodiscard]] std::uint64_t frame_checksum(const FrameSalt& salt, std::uint32_t offset,
                                           std::string_view checked);

// What the frame whose header is at `bytes` must have as its header check. It is the cheap half of
// looking for frames among any bytes: whoever chooses a payload does not know the salt, so what
// looks like a header there passes once in 2^32, and only what passes is worth a checksum over the
// body that it claims.
[[nodiscard]] std::uint32_t frame_header_check(const FrameSalt& salt, std::uint32_t offset,
                                               const char* bytes);

// The fields of a header, whatever they are; `bytes` has kFrameHeaderBytes bytes.
[[nodiscard]] FrameHeader load_frame_header(const char* bytes);

// The same for a frame that lies at `offset`. False if these bytes cannot begin one: their header
// check is wrong, or the body too large.
[[nodiscard]] bool read_frame_header(const char* bytes, const FrameSalt& salt, std::uint32_t offset,
                                     FrameHeader& header);

// Whether a frame of this kind has records.
[[nodiscard]] inline bool has_records(FrameKind kind) {
    return kind == FrameKind::records || kind == FrameKind::moved;
}

[[nodiscard]] inline bool is_manifest(FrameKind kind) {
    return kind == FrameKind::manifest || kind == FrameKind::clock_manifest;
}

// Whether this program knows frames of this version and kind.
[[nodiscard]] inline bool known_frame(const FrameHeader& header) {
    return header.version == kFrameVersion && header.kind >= FrameKind::records &&
           header.kind <= FrameKind::clock_manifest;
}

// Building a frame at the end of a buffer: begin, then add each record, then finish.
void begin_frame(std::string& out);

// `segment` is the id of the segment that the frame will lie in. `alone`: the frame has no other
// record, so this one needs no length.
void add_record(std::string& out, std::uint64_t segment, const Record& record,
                std::uint64_t sequence, const Link& link, bool alone);

// The same for the only record of a moved frame, which is encoded already.
void add_moved(std::string& out, std::uint64_t segment, std::string_view encoded, const Link& link);

// `start` is where in `out` the frame begins, `offset` where it will lie in the segment.
void finish_frame(std::string& out, std::size_t start, FrameHeader header, const FrameSalt& salt,
                  std::uint32_t offset);

// Gives the records of a frame one after the other.
class FrameRecords {
  public:
    FrameRecords(const Frame& frame, std::uint64_t segment)
        : rest_(frame.body), header_(frame.header), offset_(frame.offset), segment_(segment) {}

    // The next record, until the next call; null behind the last one, and where the body is
    // malformed.
    [[nodiscard]] const FrameRecord* next();

    // Behind next() == null. Errors: corruption, which says what is wrong with the body.
    [[nodiscard]] Result<void> outcome() const;

  private:
    const FrameRecord* malformed(const char* what);

    std::string_view rest_;
    FrameHeader header_;
    std::uint32_t offset_;
    std::uint64_t segment_;
    std::uint16_t given_ = 0;
    const char* wrong_ = nullptr;  // with the record that was to come, if that is "{}"
    FrameRecord record_;
};

// A whole mark frame's body.
[[nodiscard]] std::string mark_body(std::int64_t time_ms);
[[nodiscard]] Result<std::int64_t> mark_time(const Frame& frame);

}  // namespace dedup
