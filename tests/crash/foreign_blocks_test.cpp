// Blocks of other files.
//
// A disk may give the block of another file in place of the right one: of another segment, of
// another store. A frame from there is valid where it comes from. Here whole frames, at the same
// offset and of the same length, are put over those of a sealed segment: whoever asks for their
// keys gets the right answer or an error, never another's record and never "absent".
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <map>
#include <string>
#include <vector>

#include "log/frame_reader.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr std::uint64_t kAlignedAt = 8192;  // from here on, each segment has frames of one length
constexpr std::size_t kReceiptBytes = 1000;
constexpr std::uint64_t kSealed = 3;

// Of each frame with records: where it begins. The last element is where they end.
std::vector<std::uint64_t> frame_offsets(const Path& store, std::uint64_t id) {
    const auto segment = Segment::open(posix_env(), store / "log", id);
    REQUIRE(segment);
    FrameReader reader(**segment, kSegmentHeaderBytes, *(*segment)->file().size());
    std::vector<std::uint64_t> offsets;
    for (auto frame = reader.next(); frame && *frame; frame = reader.next()) {
        if (has_records((*frame)->header.kind)) {
            offsets.push_back((*frame)->offset);
        }
    }
    offsets.push_back(reader.offset());
    return offsets;
}

// A store whose segments have frames at the same offsets, each of a key and a receipt of its own.
class Aligned {
  public:
    explicit Aligned(const Path& path, char letter) : path_(path), letter_(letter) {
        const auto store = must_open(path, small_segments());
        // All sequences, and with them all frames, are of the same length from here on.
        for (int i = 0; i < 200; ++i) {
            must_append(*store, fmt::format("small-{:04}", i), "x");
        }
        for (std::uint64_t id = 2; id <= kSealed + 1; ++id) {
            while (!std::filesystem::exists(segment_path(path, id))) {
                put(*store, kReceiptBytes);
            }
            const auto offsets = frame_offsets(path, id);
            const std::uint64_t frame = offsets.back() - offsets[offsets.size() - 2];
            put(*store, kAlignedAt - offsets.back() - (frame - kReceiptBytes));
            REQUIRE(frame_offsets(path, id).back() == kAlignedAt);
        }
        wait_until_sealed(*store);
        REQUIRE(store->stats()->segments_sealed == kSealed);
        REQUIRE(store->close());
    }

    [[nodiscard]] const Path& path() const { return path_; }
    [[nodiscard]] const std::map<std::string, std::string>& truth() const { return truth_; }

  private:
    void put(StreamStore& store, std::size_t receipt_bytes) {
        const std::string key = fmt::format("key-{}-{:04}", letter_, truth_.size());
        truth_[key] = fmt::format("{}{:04}", letter_, truth_.size());
        truth_[key].resize(receipt_bytes, letter_);
        must_append(store, key, truth_[key]);
    }

    Path path_;
    char letter_;
    std::map<std::string, std::string> truth_;
};

// Of all keys, how many get an error. Each other one has its receipt.
int errors_among(const Aligned& store) {
    auto opened = LogStore::open(posix_env(), store.path(), read_only());
    REQUIRE(opened);
    int errors = 0;
    for (const auto& [key, receipt] : store.truth()) {
        const auto head = (*opened)->head({"test", key});
        INFO(key);
        if (!head) {
            CHECK(head.error().code == Code::corruption);
            ++errors;
            continue;
        }
        REQUIRE(*head);
        REQUIRE(*(*head)->receipt == receipt);
    }
    return errors;
}

// Puts `frames` frames of `donor` over those of a sealed segment of `victim`.
void transplant(const Aligned& victim, std::uint64_t id, const Path& donor, std::uint64_t donor_id,
                std::size_t frames) {
    const std::string right = read_file(segment_path(victim.path(), id));
    const std::string other = read_file(segment_path(donor, donor_id));
    const auto offsets = frame_offsets(victim.path(), id);
    const auto first = std::ranges::find(offsets, kAlignedAt) - offsets.begin();
    for (auto at = static_cast<std::size_t>(first); at + frames < offsets.size(); at += 9) {
        INFO("segment ", id, " at ", offsets[at], " gets ", frames, " frames of segment ",
             donor_id);
        const std::uint64_t bytes = offsets[at + frames] - offsets[at];
        if (offsets[at] + bytes > other.size()) {
            break;
        }
        std::string damaged = right;
        damaged.replace(offsets[at], bytes, other, offsets[at], bytes);
        write_file(segment_path(victim.path(), id), damaged);
        CHECK(errors_among(victim) == static_cast<int>(frames));
        CHECK_FALSE(verify(victim.path())->problems.empty());
    }
    write_file(segment_path(victim.path(), id), right);
}

TEST_CASE("frames of one segment over another's, at equal offsets, count for nothing") {
    const TempDir dir(fast_directory());
    const Aligned store(dir.path() / "store", 'a');
    CHECK(errors_among(store) == 0);
    for (std::uint64_t id = 2; id <= kSealed; ++id) {
        for (std::uint64_t donor = 2; donor <= kSealed; ++donor) {
            if (id != donor) {
                transplant(store, id, store.path(), donor, 1);
                transplant(store, id, store.path(), donor, 5);
            }
        }
    }
}

TEST_CASE("frames of another store's segment of the same number count for nothing") {
    const TempDir dir(fast_directory());
    const Aligned store(dir.path() / "store", 'a');
    const Aligned other(dir.path() / "other", 'b');
    for (std::uint64_t id = 2; id <= kSealed; ++id) {
        transplant(store, id, other.path(), id, 1);
        transplant(store, id, other.path(), id, 5);
    }
}

}  // namespace
}  // namespace dedup::test
