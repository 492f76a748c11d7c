// Frames and segment headers against docs/format.md, and their links both ways.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "log/frame_reader.hpp"
#include "log/manifest.hpp"
#include "log/segment_writer.hpp"
#include "record/codec.hpp"
#include "support/hex.hpp"
#include "support/temp_dir.hpp"
#include "support/text.hpp"

namespace dedup::test {
namespace {

Record sample_claim() {
    Record record;
    record.ns = "default";
    record.key = "order-7";
    record.timestamp_ms = 1'700'000'000'000;
    record.ttl_ms = 86'400'000;
    record.expires_at_ms = record.timestamp_ms + record.ttl_ms;
    return record;
}

SegmentHeader sample_header() {
    SegmentHeader header;
    for (std::size_t i = 0; i < header.store_id.size(); ++i) {
        header.store_id[i] = static_cast<char>(i);
    }
    header.id = 1;
    return header;
}

// Writes `bytes` as segment 1 and opens it.
std::shared_ptr<const Segment> as_segment(const TempDir& dir, const std::string& bytes) {
    std::ofstream(dir.path() / segment_file_name(1), std::ios::binary) << bytes;
    auto segment = Segment::open(posix_env(), dir.path(), 1);
    REQUIRE_MESSAGE(segment, (segment ? "" : segment.error().message));
    return *segment;
}

void append_frame(std::string& out, const std::vector<std::pair<Record, Link>>& records,
                  std::uint64_t sequence, const FrameSalt& salt) {
    const std::size_t start = out.size();
    begin_frame(out);
    for (std::size_t i = 0; i < records.size(); ++i) {
        add_record(out, 7, records[i].first, sequence + i, records[i].second, records.size() == 1);
    }
    FrameHeader header;
    header.records = static_cast<std::uint16_t>(records.size());
    header.sequence = sequence;
    header.flushed = kSegmentHeaderBytes;
    finish_frame(out, start, header, salt, static_cast<std::uint32_t>(start));
}

TEST_CASE("a segment that is mapped gives the frames that reading it gives") {
    // Guards against a lookup that finds in place what a read would refuse, or the reverse.
    const TempDir dir;
    std::string bytes = encode_segment_header(sample_header());
    const FrameSalt salt = as_segment(dir, bytes)->salt();
    const std::size_t first = bytes.size();
    append_frame(bytes, {{sample_claim(), {}}}, 1, salt);
    const std::size_t large = bytes.size();
    Record record = sample_claim();
    record.metadata.assign(5000, 'm');
    append_frame(bytes, {{record, {}}}, 2, salt);
    const std::size_t damaged = bytes.size();
    append_frame(bytes, {{sample_claim(), {}}}, 3, salt);
    bytes.back() ^= 1;
    const std::size_t cut = bytes.size();
    append_frame(bytes, {{sample_claim(), {}}}, 4, salt);
    bytes.resize(bytes.size() - 1);

    const auto read = as_segment(dir, bytes);
    const auto mapped = Segment::open(posix_env(), dir.path(), 1, bytes.size());
    REQUIRE(mapped);
    FrameBuffer buffer;
    FrameBuffer other;
    for (std::size_t at = 0; at < bytes.size() + 2; ++at) {
        const auto offset = static_cast<std::uint32_t>(at);
        const auto one = read->find_frame(offset, buffer);
        const auto two = (*mapped)->find_frame(offset, other);
        REQUIRE((one && two));
        REQUIRE(one->has_value() == (at == first || at == large));
        REQUIRE(two->has_value() == one->has_value());
        if (*one) {
            CHECK((*two)->body == (*one)->body);
            CHECK((*two)->body.data() != other.inline_bytes() + kFrameHeaderBytes);  // in place
        }
    }
    CHECK(damaged < cut);
}

TEST_CASE("a sealed segment that has been cut short is not mapped") {
    // Guards against reading behind the end of the file, which would end the process.
    const TempDir dir;
    std::string bytes = encode_segment_header(sample_header());
    const FrameSalt salt = as_segment(dir, bytes)->salt();
    append_frame(bytes, {{sample_claim(), {}}}, 1, salt);
    as_segment(dir, bytes);
    const auto segment = Segment::open(posix_env(), dir.path(), 1, bytes.size() + 100'000);
    REQUIRE(segment);
    FrameBuffer buffer;
    CHECK((*segment)->read_frame(kSegmentHeaderBytes, buffer));
    const auto behind =
        (*segment)->find_frame(static_cast<std::uint32_t>(bytes.size()) + 50'000, buffer);
    REQUIRE(behind);
    CHECK_FALSE(*behind);
}

TEST_CASE("the segment that docs/format.md writes down is what the code writes and reads") {
    // Guards the format: whoever changes it has to change the page and the version.
    const auto page = std::filesystem::path(DEDUP_SOURCE_ROOT) / "docs" / "format.md";
    const auto documented = from_hex(code_block(read_text(page), "segment example"));
    REQUIRE(documented);

    const TempDir dir;
    const auto segment = as_segment(dir, *documented);
    std::string written = segment_start(sample_header(), {});
    const std::size_t start = written.size();
    begin_frame(written);
    add_record(written, 1, sample_claim(), 1, {}, true);
    FrameHeader header;
    header.records = 1;
    header.flushed = static_cast<std::uint32_t>(start);
    header.sequence = 1;
    finish_frame(written, start, header, segment->salt(), static_cast<std::uint32_t>(start));
    CHECK(to_hex(written) == to_hex(*documented));

    FrameReader reader(*segment, kSegmentHeaderBytes, documented->size());
    const auto first = reader.next();
    REQUIRE((first && *first));
    REQUIRE((*first)->header.kind == FrameKind::manifest);
    CHECK(decode_manifest(**first)->segments.empty());
    FrameBuffer buffer;
    const auto frame = segment->read_frame(static_cast<std::uint32_t>(start), buffer);
    REQUIRE(frame);
    FrameRecords records(*frame, 1);
    const FrameRecord* const record = records.next();
    REQUIRE(record != nullptr);
    Record expected = sample_claim();
    expected.sequence = 1;
    expected.claim_sequence = 1;
    CHECK(decode(record->encoded).value() == expected);
    CHECK(records.next() == nullptr);
    CHECK(records.outcome());
}

TEST_CASE("a manifest is read as it was written, and in no other form") {
    Frame frame;
    for (const std::uint64_t given_up : {std::uint64_t{0}, std::uint64_t{7}}) {
        for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) {
            Manifest manifest{{5, 6, 7}, 8, 9, {}, given_up, {}};
            for (std::uint64_t id = 1; id <= count; ++id) {
                manifest.segments.push_back({id * 2, id * 1000});
            }
            const std::string bytes = encode_manifest(manifest);
            frame.body = bytes;
            const auto read = decode_manifest(frame);
            REQUIRE(read);
            CHECK(read->segments == manifest.segments);
            CHECK(read->given_up == given_up);
            CHECK(read->steps == 8);
            CHECK(encode_manifest(*read) == bytes);
            for (std::size_t length = 0; length < bytes.size(); ++length) {
                frame.body = std::string_view(bytes).substr(0, length);
                const auto part = decode_manifest(frame);
                CHECK((!part || encode_manifest(*part) == frame.body));
            }
        }
    }
    const std::string zero = encode_manifest({}) + std::string(8, '\0');
    frame.body = zero;
    CHECK_FALSE(decode_manifest(frame));
}

TEST_CASE("a segment's version says how its frames are checked, and an unknown one is refused") {
    const TempDir dir;
    const auto open_version = [&](std::uint32_t version) {
        SegmentHeader header = sample_header();
        header.version = version;
        std::ofstream(dir.path() / segment_file_name(1), std::ios::binary)
            << segment_start(header, {});
        return Segment::open(posix_env(), dir.path(), 1);
    };
    for (const std::uint32_t version : {1U, 2U}) {
        const auto segment = open_version(version);
        REQUIRE(segment);
        FrameBuffer buffer;
        CHECK((*segment)->read_frame(kSegmentHeaderBytes, buffer));
        SegmentHeader other = (*segment)->header();
        CHECK(other.version == version);
        other.version = 3 - version;
        const std::shared_ptr<File> file(*segment, &(*segment)->file());
        const Segment misread(file, (*segment)->path(), other);
        CHECK_FALSE(misread.find_frame(kSegmentHeaderBytes, buffer)->has_value());
    }
    CHECK(open_version(0).error().code == Code::corruption);
    CHECK(open_version(3).error().code == Code::unsupported_version);
}

TEST_CASE("every flipped bit of a frame is noticed") {
    const TempDir dir;
    std::string bytes = encode_segment_header(sample_header());
    const auto salt = as_segment(dir, bytes)->salt();
    append_frame(bytes, {{sample_claim(), {}}}, 1, salt);
    for (std::size_t i = kSegmentHeaderBytes; i < bytes.size(); ++i) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string damaged = bytes;
            damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
            FrameBuffer buffer;
            const auto frame = as_segment(dir, damaged)->find_frame(kSegmentHeaderBytes, buffer);
            REQUIRE(frame);
            REQUIRE_FALSE(*frame);
        }
    }
}

TEST_CASE("a frame is valid at its own offset only") {
    const TempDir dir;
    std::string bytes = encode_segment_header(sample_header());
    const auto salt = as_segment(dir, bytes)->salt();
    append_frame(bytes, {{sample_claim(), {}}}, 1, salt);
    bytes += bytes.substr(kSegmentHeaderBytes);
    const auto copy_at = static_cast<std::uint32_t>((bytes.size() + kSegmentHeaderBytes) / 2);
    FrameBuffer buffer;
    const auto segment = as_segment(dir, bytes);
    CHECK(segment->find_frame(kSegmentHeaderBytes, buffer)->has_value());
    CHECK_FALSE(segment->find_frame(copy_at, buffer)->has_value());
}

TEST_CASE("links and batches come back as they were written") {
    // Guards histories: a wrong link shows another stream's records, or none.
    const std::vector<Link> links = {{},
                                     {7, 79, State::in_flight},
                                     {6, UINT32_MAX, State::completed},
                                     {6, 127, State::released},
                                     {1, 128, State::completed}};
    const TempDir dir;
    std::string bytes = encode_segment_header(sample_header());
    const auto salt = as_segment(dir, bytes)->salt();
    std::vector<std::pair<Record, Link>> records;
    for (const Link& link : links) {
        Record record = sample_claim();
        record.key += std::to_string(records.size());
        records.emplace_back(record, link);
    }
    append_frame(bytes, records, 10, salt);
    FrameBuffer buffer;
    const auto frame = as_segment(dir, bytes)->read_frame(kSegmentHeaderBytes, buffer);
    REQUIRE(frame);
    FrameRecords read(*frame, 7);
    for (std::size_t i = 0; i < links.size(); ++i) {
        const FrameRecord* const record = read.next();
        REQUIRE(record != nullptr);
        CHECK(record->link == links[i]);
        CHECK(record->sequence == 10 + i);
        CHECK(decode(record->encoded)->key == "order-7" + std::to_string(i));
    }
    CHECK(read.next() == nullptr);
    CHECK(read.outcome());
}

TEST_CASE("a body that is not a row of records is an error, whatever it is") {
    // Guards against reading past a frame: bodies with a right checksum and wrong contents.
    const std::vector<std::pair<std::string, std::uint16_t>> bodies = {
        {"", 1},
        {std::string(1, '\0'), 2},
        {std::string("\0\xff\xff\xff\xff", 5), 2},
        {"\x80", 1},
        {std::string("\x80\0", 2), 1},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1},
        {"\x04\x01", 1},                      // state 3
        {"\x40\x01", 1},                      // a segment before the first
        {"\x01\xff\xff\xff\xff\xff\x01", 1},  // an offset beyond 32 bits
        {std::string("\x01\x01", 2), 1},      // a link forth, which could lead in a circle
        {"x", 0}};
    for (const auto& [body, count] : bodies) {
        Frame frame;
        frame.header.records = count;
        frame.body = body;
        FrameRecords records(frame, 1);
        Result<void> outcome;
        for (int i = 0; outcome && i < 5; ++i) {
            const FrameRecord* const record = records.next();
            if (record == nullptr) {
                outcome = records.outcome();
                break;
            }
            if (!decode(record->encoded)) {
                outcome = std::unexpected(Error{Code::corruption, ""});
            }
        }
        REQUIRE_FALSE(outcome);
        CHECK(outcome.error().code == Code::corruption);
    }
}

TEST_CASE("segment file names are 16 digits, and nothing else is a segment") {
    CHECK(segment_file_name(1) == "0000000000000001.log");
    CHECK(segment_id("0000000000000042.log") == 42);
    for (const char* name : {"0000000000000000.log", "1.log", "0000000000000001.log.tmp",
                             "000000000000000x.log", "0000000000000001.txt", "", ".log"}) {
        CHECK_FALSE(segment_id(name));
    }
}

}  // namespace
}  // namespace dedup::test
