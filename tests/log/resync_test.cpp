// Finding the next frame behind damage, among payloads that a stranger chose: what it costs, and
// that it is found. And in a file of which all was made up.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "log/frame_reader.hpp"
#include "log/segment.hpp"

namespace dedup::test {
namespace {

// A file in memory that counts what is read of it.
class CountingFile final : public File {
  public:
    explicit CountingFile(std::string bytes) : bytes_(std::move(bytes)) {}

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        asked_max = std::max<std::uint64_t>(asked_max, into.size());
        const std::uint64_t there = offset < bytes_.size() ? bytes_.size() - offset : 0;
        const auto got = static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), there));
        std::memcpy(into.data(), bytes_.data() + std::min<std::uint64_t>(offset, bytes_.size()),
                    got);
        bytes_read += got;
        return got;
    }
    Result<void> write(std::uint64_t, std::string_view) override { return {}; }
    Result<void> sync() override { return {}; }
    Result<void> truncate(std::uint64_t) override { return {}; }
    Result<bool> reserve(std::uint64_t) override { return false; }
    Result<std::uint64_t> size() override { return bytes_.size(); }

    std::uint64_t bytes_read = 0;
    std::uint64_t asked_max = 0;  // the largest room that was made for one read

  private:
    std::string bytes_;
};

SegmentHeader segment_header(std::uint64_t id = 1) {
    SegmentHeader header;
    header.store_id.fill('s');
    header.id = id;
    return header;
}

// A segment in memory, to which frames are added.
struct Built {
    explicit Built(const SegmentHeader& its_header = segment_header())
        : header(its_header), bytes(encode_segment_header(its_header)) {}

    // Gives where the frame begins.
    std::uint32_t add(const std::string& receipt) {
        const std::size_t start = bytes.size();
        Record record;
        record.ns = "test";
        record.key = std::to_string(start);
        record.receipt = receipt;
        begin_frame(bytes);
        add_record(bytes, header.id, record, sequence, {}, true);
        FrameHeader frame;
        frame.records = 1;
        frame.sequence = sequence++;
        frame.flushed = static_cast<std::uint32_t>(start);
        finish_frame(bytes, start, frame, segment_salt(header), static_cast<std::uint32_t>(start));
        return static_cast<std::uint32_t>(start);
    }

    [[nodiscard]] Segment segment(const std::shared_ptr<CountingFile>& file) const {
        return {file, "segment", header};
    }

    SegmentHeader header;
    std::string bytes;
    std::uint64_t sequence = 1;
};

// A payload's place in a segment, and a header's in the payload.
struct Spot {
    std::size_t payload_bytes = 0;
    std::size_t at = 0;
    std::uint32_t offset = 0;  // of the header in the segment
};

// A header as any payload may have it, with a body up to the payload's end.
std::string lookalike(const Spot& spot, std::uint32_t check) {
    std::string header(kFrameHeaderBytes, '\0');
    store(header.data() + 8, check);
    store(header.data() + kFrameBodyBytesAt,
          static_cast<std::uint32_t>(spot.payload_bytes - spot.at - kFrameHeaderBytes));
    header[kFrameKindAt] = 1;
    header[kFrameVersionAt] = 1;
    header[kFrameRecordsAt] = 1;
    return header;
}

// With the check that it had to have in the segment with `other`.
std::string valid_elsewhere(const Spot& spot, const SegmentHeader& other, std::uint32_t offset) {
    const std::string header = lookalike(spot, 0);
    return lookalike(spot, frame_header_check(segment_salt(other), offset, header.data()));
}

using Lookalike = std::string (*)(const Spot& spot);

// What a stranger might try, one kind of header after the other.
const std::vector<std::pair<std::string, Lookalike>>& hostile_headers() {
    static const std::vector<std::pair<std::string, Lookalike>> headers = {
        {"the check of version 1", [](const Spot& spot) { return lookalike(spot, 0x4d524644); }},
        {"no check", [](const Spot& spot) { return lookalike(spot, 0); }},
        {"at every byte", [](const Spot&) { return std::string(kFrameHeaderBytes, 1); }},
        {"right in the same segment of another store",
         [](const Spot& spot) {
             SegmentHeader other = segment_header();
             other.store_id.fill('o');
             return valid_elsewhere(spot, other, spot.offset);
         }},
        {"right in another segment",
         [](const Spot& spot) { return valid_elsewhere(spot, segment_header(2), spot.offset); }},
        // Whoever has seen one frame of this very segment has seen no check for another place.
        {"right at another place of the segment", [](const Spot& spot) {
             return valid_elsewhere(spot, segment_header(), spot.offset + 1);
         }}};
    return headers;
}

// A payload for the next frame of `built`.
std::string payload_for(Built built, std::size_t bytes, Lookalike make) {
    const std::string placeholder(bytes, '\xee');
    built.add(placeholder);
    const std::size_t begin = built.bytes.find(placeholder);
    REQUIRE(begin != std::string::npos);
    std::string payload;
    while (payload.size() + kFrameHeaderBytes <= bytes) {
        payload +=
            make({bytes, payload.size(), static_cast<std::uint32_t>(begin + payload.size())});
    }
    payload.resize(bytes, '\0');
    return payload;
}

// What finding the frame behind a damaged one with such a payload reads.
std::uint64_t bytes_read_behind(std::size_t bytes, Lookalike make) {
    Built built;
    const auto hostile = built.add(payload_for(built, bytes, make));
    const auto after = built.add("after");
    built.bytes[hostile + kFrameHeaderBytes + 4] ^= 1;
    const auto file = std::make_shared<CountingFile>(built.bytes);
    const Segment segment = built.segment(file);
    const auto found = find_frame_from(segment, hostile + 1, built.bytes.size());
    REQUIRE(found);
    CHECK(*found == after);
    return file->bytes_read;
}

TEST_CASE("what a payload looks like does not make finding the next frame slow") {
    // Guards against a checksum over all that a crafted header claims, for each of thousands: a
    // receipt of 16 MiB kept an opening busy for ten minutes.
    constexpr std::size_t kBytes = 256 * 1024;
    for (const auto& [what, make] : hostile_headers()) {
        INFO(what);
        for (const std::size_t bytes : {kBytes, 2 * kBytes}) {
            CHECK(bytes_read_behind(bytes, make) < bytes + bytes / 4);
        }
    }
}

TEST_CASE("a header that claims a large body makes no room for more than the file has") {
    // Guards memory: a segment is given a length by others, which may be wrong as well.
    constexpr std::uint64_t kClaimedEnd = 1 << 30;
    Built built;
    const auto first = built.add("first");
    const auto large = static_cast<std::uint32_t>(built.bytes.size());
    std::string header = lookalike({kFrameBodyBytesMax + kFrameHeaderBytes}, 0);
    const std::uint32_t check =
        frame_header_check(segment_salt(built.header), large, header.data());
    store(header.data() + kFrameHeaderCheckAt, check);
    built.bytes += header + std::string(300'000, 'x');
    const auto file = std::make_shared<CountingFile>(built.bytes);
    const Segment segment = built.segment(file);

    FrameReader reader(segment, first, kClaimedEnd);
    REQUIRE(reader.next()->has_value());
    const auto next = reader.next();
    REQUIRE(next);
    CHECK_FALSE(*next);
    FrameBuffer buffer;
    const auto there = segment.find_frame(large, buffer);
    REQUIRE(there);
    CHECK_FALSE(*there);
    CHECK_FALSE(*find_frame_from(segment, first + 1, kClaimedEnd));
    CHECK(file->asked_max <= built.bytes.size());
}

TEST_CASE("a file that is made up of nothing but right headers is refused before it costs hours") {
    constexpr std::size_t kHeaders = 32 * 1024;
    Built built;
    const auto begin = built.bytes.size();
    for (std::size_t i = 0; i < kHeaders; ++i) {
        const auto offset = static_cast<std::uint32_t>(built.bytes.size());
        const std::size_t left = (kHeaders - i) * kFrameHeaderBytes;
        const std::string header = valid_elsewhere({left, 0, offset}, built.header, offset);
        built.bytes += header;
    }
    const auto file = std::make_shared<CountingFile>(built.bytes);
    const Segment segment = built.segment(file);
    const auto found = find_frame_from(segment, begin, built.bytes.size());
    REQUIRE_FALSE(found);
    CHECK(found.error().code == Code::corruption);
    CHECK(found.error().message.find("made up") != std::string::npos);
    CHECK(file->bytes_read < std::uint64_t{250} * 1024 * 1024);
}

// The next frame must be found whichever byte of the hostile one is damaged, in `header`'s version.
void damage_each_byte(const SegmentHeader& header) {
    for (const auto& [what, make] : hostile_headers()) {
        INFO(what);
        Built built(header);
        built.add("before");
        const auto hostile = built.add(payload_for(built, 700, make));
        const auto after = built.add(payload_for(built, 100, make));
        built.add("last");
        for (std::size_t at = hostile; at < after; ++at) {
            std::string bytes = built.bytes;
            bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
            const auto file = std::make_shared<CountingFile>(bytes);
            const Segment segment = built.segment(file);
            FrameReader reader(segment, kSegmentHeaderBytes, bytes.size());
            REQUIRE(reader.next()->has_value());
            REQUIRE(reader.offset() == hostile);
            const auto damaged = reader.next();
            REQUIRE(damaged);
            REQUIRE_FALSE(*damaged);
            const auto found = find_frame_from(segment, hostile + 1, bytes.size());
            REQUIRE(found);
            REQUIRE(*found == after);
            const auto tail = inspect_tail(segment, hostile, bytes.size());
            REQUIRE_FALSE(tail);
            REQUIRE(tail.error().code == Code::corruption);
            reader.skip_to(**found);
            REQUIRE(reader.next()->has_value());
            REQUIRE(reader.next()->has_value());
            REQUIRE(reader.offset() == bytes.size());
        }
    }
}

TEST_CASE("whichever byte of a frame is damaged, the next one is found") {
    damage_each_byte(segment_header());
    SegmentHeader old = segment_header();
    old.version = 1;
    damage_each_byte(old);
}

TEST_CASE("the next frame is found across the blocks in which a segment is read") {
    constexpr std::size_t kBlock = 256 * 1024;
    for (const std::size_t bytes : {kBlock - 300, kBlock, 2 * kBlock}) {
        for (std::size_t more = 0; more < 256; more += 17) {
            Built built;
            const auto hostile = built.add(std::string(bytes + more, 1));
            const auto after = built.add("after");
            built.bytes[hostile] ^= 1;
            const auto file = std::make_shared<CountingFile>(built.bytes);
            const auto found =
                find_frame_from(built.segment(file), hostile + 1, built.bytes.size());
            REQUIRE(found);
            REQUIRE(*found == after);
        }
    }
}

}  // namespace
}  // namespace dedup::test
