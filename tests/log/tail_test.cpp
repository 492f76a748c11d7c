// How the end of a log is judged: room, torn tail, or damage.

#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "log/frame_reader.hpp"
#include "log/segment_writer.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

// A segment with `groups` flushed groups of two frames each; gives where each frame begins.
std::vector<std::uint64_t> write_groups(const TempDir& dir, int groups) {
    SegmentHeader header;
    header.id = 1;
    auto writer = SegmentWriter::create(posix_env(), dir.path(), header, {});
    REQUIRE(writer);
    std::vector<std::uint64_t> starts;
    std::uint64_t sequence = 1;
    for (int group = 0; group < groups; ++group) {
        for (int frame = 0; frame < 2; ++frame) {
            Record record;
            record.ns = "test";
            record.key = std::to_string(sequence);
            starts.push_back((*writer)->begin());
            add_record((*writer)->buffer(), 1, record, sequence, {}, true);
            (*writer)->finish(FrameKind::records, 1, sequence);
            ++sequence;
        }
        REQUIRE((*writer)->reserve());
        REQUIRE((*writer)->write());
        REQUIRE((*writer)->sync_written());
    }
    starts.push_back((*writer)->end());
    REQUIRE((*writer)->trim());
    return starts;
}

void change_byte(const TempDir& dir, std::uint64_t at) {
    std::fstream file(dir.path() / segment_file_name(1),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 1));
}

struct Read {
    std::uint64_t end = 0;
    Result<Tail> tail;
};

Read read_all(const TempDir& dir) {
    const auto segment = Segment::open(posix_env(), dir.path(), 1);
    REQUIRE(segment);
    const std::uint64_t bytes = (*segment)->file().size().value();
    FrameReader reader(**segment, kSegmentHeaderBytes, bytes);
    while (reader.next()->has_value()) {
    }
    return {reader.offset(), inspect_tail(**segment, reader.offset(), bytes)};
}

TEST_CASE("a hole in the last group is a torn tail, one in any group before is damage") {
    // Guards both mistakes: losing flushed records in silence, and refusing after a mere crash.
    constexpr int kGroups = 4;
    for (int frame = 0; frame < 2 * kGroups; ++frame) {
        const TempDir dir;
        const auto starts = write_groups(dir, kGroups);
        const auto at = static_cast<std::size_t>(frame);
        change_byte(dir, starts[at] + 40);
        const Read read = read_all(dir);
        CHECK(read.end == starts[at]);
        const bool in_last_group = frame >= 2 * (kGroups - 1);
        REQUIRE(read.tail.has_value() == in_last_group);
        if (in_last_group) {
            CHECK(read.tail->torn_bytes == starts.back() - starts[at]);
        } else {
            CHECK(read.tail.error().code == Code::corruption);
            CHECK(read.tail.error().message.find("offset " + std::to_string(starts[at])) !=
                  std::string::npos);
        }
    }
}

TEST_CASE("reading goes on over the borders of blocks") {
    const TempDir dir;
    const auto starts = write_groups(dir, 5000);  // more than two blocks of 256 KiB
    REQUIRE(starts.back() > 400'000);
    const Read read = read_all(dir);
    CHECK(read.end == starts.back());
    CHECK(read.tail->torn_bytes == 0);
}

TEST_CASE("proof of damage is found however far behind it lies") {
    const TempDir dir;
    const auto starts = write_groups(dir, 3000);
    change_byte(dir, starts[10] + 40);
    // All that could prove it is destroyed, but for the last group.
    std::fstream file(dir.path() / segment_file_name(1),
                      std::ios::in | std::ios::out | std::ios::binary);
    const std::uint64_t last_group = starts[starts.size() - 3];
    file.seekp(static_cast<std::streamoff>(starts[11]));
    file << std::string(last_group - starts[11], 'x');
    file.close();
    const Read read = read_all(dir);
    CHECK(read.end == starts[10]);
    REQUIRE_FALSE(read.tail);
    CHECK(read.tail.error().code == Code::corruption);
}

TEST_CASE("bytes that look like frames are no proof") {
    // Guards against a receipt that was crafted to look like a later frame.
    const TempDir dir;
    const auto starts = write_groups(dir, 1);
    std::string fake(kFrameHeaderBytes, '\0');
    store(fake.data() + kFrameHeaderCheckAt, kFrameMagic);
    store(fake.data() + kFrameFlushedAt, static_cast<std::uint32_t>(starts.back() + 1));
    std::string garbage;
    for (int i = 0; i < 10'000; ++i) {
        garbage += fake;
    }
    std::ofstream(dir.path() / segment_file_name(1), std::ios::binary | std::ios::app) << garbage;
    const Read read = read_all(dir);
    CHECK(read.end == starts.back());
    REQUIRE(read.tail);
    CHECK(read.tail->torn_bytes > 300'000);
}

TEST_CASE("a segment gets its name only with a durable header") {
    const TempDir dir;
    write_groups(dir, 1);
    CHECK_FALSE(std::filesystem::exists(dir.path() / (segment_file_name(1) + ".tmp")));
}

}  // namespace
}  // namespace dedup::test
