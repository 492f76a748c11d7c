// Segments: the files of the log. A header, then frames; only ever appended to.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "env/env.hpp"
#include "env/prefetch.hpp"
#include "log/frame.hpp"

namespace dedup {

using StoreId = std::array<char, 16>;

inline constexpr std::string_view kSegmentMagic = "DEDUPLOG";
// The newest. In version 1, which is still read and written on in, frames have no header check.
inline constexpr std::uint32_t kSegmentVersion = 2;

inline constexpr std::size_t kSegmentMagicAt = 0;           // 8 bytes
inline constexpr std::size_t kSegmentVersionAt = 8;         // u32
inline constexpr std::size_t kSegmentHeaderBytesAt = 12;    // u32
inline constexpr std::size_t kSegmentStoreIdAt = 16;        // 16 bytes
inline constexpr std::size_t kSegmentIdAt = 32;             // u64
inline constexpr std::size_t kSegmentPreviousIdAt = 40;     // u64; 0: this is the first
inline constexpr std::size_t kSegmentPreviousBytesAt = 48;  // u64
inline constexpr std::size_t kSegmentNextSequenceAt = 56;   // u64
inline constexpr std::size_t kSegmentTimeHighAt = 64;       // i64
inline constexpr std::size_t kSegmentChecksumAt = 72;       // u64, of all before it
inline constexpr std::size_t kSegmentHeaderBytes = 80;

inline constexpr std::uint64_t kSegmentBytesMin = 64 * 1024;
inline constexpr std::uint64_t kSegmentBytesMax = 1024 * 1024 * 1024;
// A frame may begin just below the limit, and every offset must fit 32 bits.
inline constexpr std::uint64_t kSegmentFileBytesMax =
    kSegmentBytesMax + kFrameHeaderBytes + kFrameBodyBytesMax;
static_assert(kSegmentFileBytesMax < UINT32_MAX);

struct SegmentHeader {
    std::uint32_t version = kSegmentVersion;
    StoreId store_id{};
    std::uint64_t id = 0;
    std::uint64_t previous_id = 0;
    std::uint64_t previous_bytes = 0;  // the exact length of the segment before
    std::uint64_t next_sequence = 1;   // every sequence assigned before is lower
    std::int64_t time_high_ms = 0;     // the highest time that the store had seen
};

// "0000000000000001.log", or another of a segment's files.
[[nodiscard]] std::string segment_file_name(std::uint64_t id, std::string_view suffix = ".log");
// The id in such a name; nullopt for any other name.
[[nodiscard]] std::optional<std::uint64_t> segment_id(std::string_view file_name,
                                                      std::string_view suffix = ".log");

[[nodiscard]] std::string encode_segment_header(const SegmentHeader& header);
// Binds the frames of a segment to it, and says which header checks they carry.
[[nodiscard]] FrameSalt segment_salt(const SegmentHeader& header);

// Bytes of one frame, on the stack while they are few.
class FrameBuffer {
  public:
    static constexpr std::size_t kInlineBytes = 1024;

    // Room for `bytes`; what was there is kept if it was at most kInlineBytes.
    [[nodiscard]] char* grow(std::size_t bytes);
    [[nodiscard]] char* inline_bytes() { return inline_.data(); }

  private:
    std::array<char, kInlineBytes> inline_;
    std::unique_ptr<char[]> large_;
};

// A segment open for reading. Any number of threads may read at once.
class Segment {
  public:
    Segment(std::shared_ptr<File> file, Path path, const SegmentHeader& header);

    // Opens the file and checks its header against its name. `sealed_bytes`: the exact length of a
    // segment that will not change any more, whose frames are then read in place if that can be.
    // Errors: corruption, unsupported_version, io.
    [[nodiscard]] static Result<std::shared_ptr<const Segment>> open(
        Env& env, const Path& log, std::uint64_t id, std::uint64_t sealed_bytes = 0);

    // The same for a file of any name, whose segment is the one that its header says.
    [[nodiscard]] static Result<std::shared_ptr<const Segment>> open_file(Env& env,
                                                                          const Path& path);

    [[nodiscard]] std::uint64_t id() const { return header_.id; }
    [[nodiscard]] const SegmentHeader& header() const { return header_; }
    [[nodiscard]] const Path& path() const { return path_; }
    [[nodiscard]] File& file() const { return *file_; }
    [[nodiscard]] const FrameSalt& salt() const { return salt_; }
    // The size of the file, or the most that a segment can have, if that is less.
    [[nodiscard]] Result<std::uint64_t> bytes_there() const;

    // Maps the file up to `bytes`, if that can be. Once, and before other threads read.
    void map(std::uint64_t bytes) const { map_ = file_->map(bytes); }
    // The file has whole frames up to `bytes`: from now on they are read in place, unless they
    // reach past the map.
    void has_frames_to(std::uint64_t bytes) const {
        if (bytes <= map_.size()) {
            readable_.store(bytes, std::memory_order_release);
        }
    }

    // Reads the frame at `offset` and checks it; nullopt if there is no valid frame there.
    // The frame's views live as long as the segment, and as `buffer` is left alone.
    [[nodiscard]] Result<std::optional<Frame>> find_frame(std::uint32_t offset,
                                                          FrameBuffer& buffer) const;

    // Fetches the beginning of the frame at `offset`, mostly all of it, if it will be read in
    // place.
    void prefetch(std::uint32_t offset) const {
        if (offset < readable_.load(std::memory_order_relaxed)) {
            prefetch_lines(map_.data() + offset, kPrefetchLines);
        }
    }

    // As find_frame, for a place where a frame must be. Errors: corruption, io.
    [[nodiscard]] Result<Frame> read_frame(std::uint32_t offset, FrameBuffer& buffer) const;

    // "<path> is damaged at offset <n>: <what>".
    [[nodiscard]] Error corruption(std::uint64_t offset, std::string_view what) const;

  private:
    static constexpr std::size_t kPrefetchLines = 4;

    [[nodiscard]] std::optional<Frame> checked_frame(std::uint32_t offset, const char* start,
                                                     const FrameHeader& header) const;

    std::shared_ptr<File> file_;
    Path path_;
    SegmentHeader header_;
    FrameSalt salt_;
    mutable std::string_view map_;
    mutable std::atomic<std::uint64_t> readable_{0};  // of map_; beyond, the file may end
};

}  // namespace dedup
