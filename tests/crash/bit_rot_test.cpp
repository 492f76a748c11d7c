// A disk that gives back other bytes than it was given.
//
// Every byte of a small store's segments is damaged in its turn. Whoever comes across it must be
// told, with file and offset, or must get the right answer all the same. Nobody may get a wrong
// answer, and opening for writing must not destroy what a repair could still use.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "log/frame_reader.hpp"
#include "repair/salvage.hpp"
#include "repair/verify.hpp"
#include "support/environment.hpp"
#include "support/fault_disk.hpp"
#include "support/fault_env.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kKeys = 122;

std::string receipt(int i) {
    return std::string(static_cast<std::size_t>(900 + i * 7 % 400),
                       static_cast<char>('a' + i % 26));
}

std::string key(int i) {
    return "key-" + std::to_string(i);
}

struct FramePlace {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::string key;  // empty: a mark
};

// A closed store with sealed segments and a tail, its log on a FaultDisk.
class RottingStore {
  public:
    RottingStore() {
        std::filesystem::create_directory(root() / "store");
        options_.segment_bytes = kSegmentBytesMin;
        const auto store = open(options_);
        REQUIRE(store);
        for (int i = 0; i < kKeys; ++i) {
            must_append(**store, key(i), receipt(i));
            env_.let_others_run();
        }
        wait_until_sealed(**store);
        sealed_ = (*store)->stats()->segments_sealed;
        REQUIRE(sealed_ == 2);
        REQUIRE((*store)->close());
        for (std::uint64_t id = 1; id <= sealed_ + 1; ++id) {
            places_.push_back(frames(id));
        }
    }

    Result<std::unique_ptr<LogStore>> open(const OpenOptions& options) {
        LogStoreInternals internals;
        internals.catalog_map_bytes = std::uint64_t{64} << 20;
        internals.pause = [this] { env_.pause(); };
        return LogStore::open(env_, root() / "store", options, internals);
    }
    Result<std::unique_ptr<LogStore>> open_reading() { return open(read_only()); }
    Result<std::unique_ptr<LogStore>> open_writing() { return open(options_); }
    // As far as it goes: the store does not open.
    void must_find_damage(std::uint64_t id) {
        const auto report = verify(env_, root() / "store");
        REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
        REQUIRE(report->log_damaged);
        REQUIRE(report->problems.front().find(segment(id).string()) == 0);
        REQUIRE(report->segments == newest());
        REQUIRE(report->records >= kKeys - 1);
    }

    [[nodiscard]] const Path& root() const { return dir_.path(); }
    [[nodiscard]] Path segment(std::uint64_t id) const {
        return segment_path(root() / "store", id);
    }
    [[nodiscard]] std::uint64_t newest() const { return sealed_ + 1; }
    [[nodiscard]] std::string& bytes(std::uint64_t id) {
        return disk_.contents(disk_.find(Path("store") / "log" / segment_file_name(id)));
    }
    [[nodiscard]] const std::vector<FramePlace>& places(std::uint64_t id) const {
        return places_[id - 1];
    }
    [[nodiscard]] std::size_t changes() const { return disk_.state().next_order; }

  private:
    std::vector<FramePlace> frames(std::uint64_t id) {
        std::vector<FramePlace> places;
        const auto segment = *Segment::open(env_, root() / "store" / "log", id);
        FrameReader reader(*segment, kSegmentHeaderBytes, *segment->file().size());
        for (auto frame = reader.next(); *frame; frame = reader.next()) {
            if (!has_records((*frame)->header.kind)) {
                continue;  // only recovery reads it, in the newest segment
            }
            FramePlace& place = places.emplace_back();
            place.begin = (*frame)->offset;
            place.end = reader.offset();
            FrameRecords records(**frame, id);
            if (const FrameRecord* const record = records.next()) {
                place.key = decode(record->encoded)->key;
            }
        }
        return places;
    }

    const TempDir dir_{fast_directory()};
    FaultDisk disk_;
    FaultEnv env_{disk_, dir_.path(), 1};
    OpenOptions options_;
    std::uint64_t sealed_ = 0;
    std::vector<std::vector<FramePlace>> places_;
};

bool names_place(const Error& error, const Path& file) {
    return error.code == Code::corruption &&
           error.message.find(file.string()) != std::string::npos &&
           error.message.find("offset") != std::string::npos;
}

int wrong_answers(StreamStore& store) {
    int wrong = 0;
    for (int i = 0; i < kKeys; ++i) {
        wrong += receipt_of(store, key(i)) == receipt(i) ? 0 : 1;
    }
    return wrong;
}

// DEDUP_ROT_STEP=1 leaves no byte out, where every byte would take minutes.
std::size_t step() {
    return number_from_environment("DEDUP_ROT_STEP", 97);
}

TEST_CASE("every byte of every sealed segment: whoever reads the record is told where") {
    RottingStore rotting;
    const auto store = rotting.open_reading();
    REQUIRE(store);
    std::uint64_t flips = 0;
    // Every bit takes minutes; one in 25 takes all eight bits in turn.
    const std::uint64_t stride = step() == 1 ? 1 : 25;
    for (std::uint64_t id = 1; id < rotting.newest(); ++id) {
        std::string& bytes = rotting.bytes(id);
        for (const FramePlace& place : rotting.places(id)) {
            for (std::uint64_t bit = place.begin * 8; bit < place.end * 8; bit += stride, ++flips) {
                char& byte = bytes[bit / 8];
                byte = static_cast<char>(byte ^ (1 << bit % 8));
                const auto head = (*store)->head({"test", place.key});
                byte = static_cast<char>(byte ^ (1 << bit % 8));
                if (head || !names_place(head.error(), rotting.segment(id)) ||
                    head.error().message.find(" " + std::to_string(place.begin) + ":") ==
                        std::string::npos) {
                    FAIL("segment ", id, ", bit ", bit % 8, " of byte ", bit / 8);
                }
            }
        }
    }
    CHECK(wrong_answers(**store) == 0);
    MESSAGE(flips << " single bits");
}

TEST_CASE("every byte of the tail and of each header: refused with file and offset, or harmless") {
    RottingStore rotting;
    std::uint64_t refused = 0;
    std::uint64_t harmless = 0;
    for (std::uint64_t id = 1; id <= rotting.newest(); ++id) {
        std::string& bytes = rotting.bytes(id);
        const std::size_t end = id == rotting.newest() ? bytes.size() : kSegmentHeaderBytes;
        for (std::size_t at = 0; at < end; ++at) {
            const char was = bytes[at];
            bytes[at] = static_cast<char>(was ^ (1 << at % 8));
            const std::size_t changes = rotting.changes();
            INFO("segment ", id, ", byte ", at);
            for (const bool writing : {false, true}) {
                const auto store = writing ? rotting.open_writing() : rotting.open_reading();
                if (!store) {
                    REQUIRE(names_place(store.error(), rotting.segment(id)));
                    if (!writing && (at < kSegmentHeaderBytes || at % step() == 0)) {
                        rotting.must_find_damage(id);
                    }
                    ++refused;
                    continue;
                }
                // The mark of a clean close has nothing behind it that proves it whole.
                REQUIRE(id == rotting.newest());
                REQUIRE(at >= rotting.places(id).back().begin);
                REQUIRE(wrong_answers(**store) == 0);
                ++harmless;
                break;  // opening it for writing would mend it
            }
            REQUIRE(bytes.size() >= end);
            bytes[at] = was;
            // A refused opening has changed nothing.
            REQUIRE(rotting.changes() == changes);
        }
    }
    CHECK(harmless > 0);
    CHECK(harmless < 64);
    CHECK(refused > 2'000);
    MESSAGE(refused << " openings refused, " << harmless << " harmless");
    const auto store = rotting.open_writing();
    REQUIRE(store);
    CHECK(wrong_answers(**store) == 0);
}

// Of a store that was opened after a byte of segment `id` at `at` had changed: the key that lies
// there is in error with file and offset, or, if the key itself is hit, missing; the others are
// right. Gives the number of keys in error.
int check_damaged(RottingStore& rotting, StreamStore& store, std::uint64_t id, std::size_t at) {
    int in_error = 0;
    for (int i = 0; i < kKeys; ++i) {
        const auto head = store.head({"test", key(i)});
        const auto& places = rotting.places(id);
        const bool hit = std::ranges::any_of(places, [&](const FramePlace& place) {
            return place.key == key(i) && place.begin <= at && at < place.end;
        });
        if (hit && !head) {
            REQUIRE(names_place(head.error(), rotting.segment(id)));
            ++in_error;
        } else if (hit) {
            REQUIRE_FALSE(head->has_value());
        } else {
            REQUIRE_MESSAGE(head, (head ? "" : head.error().message));
            REQUIRE(head->has_value());
            REQUIRE(((*head)->receipt == receipt(i)));
        }
    }
    return in_error;
}

TEST_CASE("bytes of sealed segments: verify names the place, and a store without catalog opens") {
    RottingStore rotting;
    const Path data = rotting.root() / "store" / "catalog" / "data.mdb";
    const std::string catalog = read_file(data);
    std::uint64_t flips = 0;
    int in_error = 0;
    for (std::uint64_t id = 1; id < rotting.newest(); ++id) {
        const std::size_t size = rotting.bytes(id).size();
        for (std::size_t at = 0; at < size; at += at < kSegmentHeaderBytes ? 1 : step()) {
            const char was = rotting.bytes(id)[at];  // (no reference to it survives new files)
            rotting.bytes(id)[at] = static_cast<char>(was ^ 0x40);
            INFO("segment ", id, ", byte ", at);
            if (at >= kSegmentHeaderBytes) {
                const auto store = rotting.open_reading();
                REQUIRE(store);
                const auto report = verify(**store);
                REQUIRE(report);
                REQUIRE_FALSE(report->problems.empty());
                REQUIRE(report->problems.front().find(rotting.segment(id).string()) == 0);
            }
            std::filesystem::remove(data);
            const auto store = rotting.open_writing();
            if (at < kSegmentHeaderBytes) {
                REQUIRE_FALSE(store);
                REQUIRE(names_place(store.error(), rotting.segment(id)));
            } else {
                REQUIRE_MESSAGE(store, (store ? "" : store.error().message));
                REQUIRE((*store)->stats()->damaged == 1);
                in_error += check_damaged(rotting, **store, id, at);
                REQUIRE((*store)->sweep({}));
                check_damaged(rotting, **store, id, at);
                REQUIRE((*store)->close());
            }
            rotting.bytes(id)[at] = was;
            write_file(data, catalog);
            REQUIRE(rotting.open_writing());  // its indexes are of the one that was made anew
            ++flips;
        }
    }
    MESSAGE(flips << " bytes, " << in_error << " keys in error");
    CHECK(static_cast<std::uint64_t>(in_error) > flips / 2);
    const auto store = rotting.open_writing();
    REQUIRE(store);
    CHECK(wrong_answers(**store) == 0);
}

}  // namespace
}  // namespace dedup::test
