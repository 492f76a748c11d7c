// What a dump shows of segments and index files, and that nothing in them makes it fail.
//
// The items of a segment tile the file: each byte behind the header is in one frame, in one damaged
// part or in the unused end. So nothing is left out, whatever the bytes are.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/dump.hpp"
#include "dedup/log_store.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr std::uint64_t kHeaderBytes = 80;

using Items = std::vector<DumpItem>;

std::string bytes_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

Result<Items> items_of(const std::filesystem::path& path) {
    Items items;
    const auto done = dump(path, [&](const DumpItem& item) {
        items.push_back(item);
        return true;
    });
    return done ? Result<Items>(std::move(items)) : std::unexpected(done.error());
}

template <class T>
std::vector<T> only(const Items& items) {
    std::vector<T> found;
    for (const DumpItem& item : items) {
        if (const T* one = std::get_if<T>(&item)) {
            found.push_back(*one);
        }
    }
    return found;
}

// Where each part of a segment begins, and how long it is.
std::map<std::uint64_t, std::uint64_t> parts_of(const Items& items) {
    std::map<std::uint64_t, std::uint64_t> parts;
    for (const auto& item : only<RecordDump>(items)) {
        parts[item.frame.offset] = item.frame.bytes;
    }
    for (const auto& item : only<MarkDump>(items)) {
        parts[item.frame.offset] = item.frame.bytes;
    }
    for (const auto& item : only<ManifestDump>(items)) {
        parts[item.frame.offset] = item.frame.bytes;
    }
    for (const auto& item : only<DamageDump>(items)) {
        parts[item.offset] = item.bytes;
    }
    for (const auto& item : only<UnusedDump>(items)) {
        parts[item.offset] = item.bytes;
    }
    return parts;
}

void check_that_it_tiles(const Items& items, std::uint64_t file_bytes) {
    std::uint64_t at = kHeaderBytes;
    for (const auto& [offset, bytes] : parts_of(items)) {
        REQUIRE(offset == at);
        at += bytes;
    }
    CHECK(at == std::max(file_bytes, kHeaderBytes));
}

// A store whose first segment is sealed, so that both kinds of file are there.
struct Sample {
    Sample() {
        OpenOptions options;
        options.segment_bytes = 64 * 1024;
        auto store = open(dir.path() / "store", options);
        REQUIRE(store);
        Cache cache(**store, {.ns = "tests"});
        for (std::size_t i = 0; keys.size() < 700; ++i) {
            keys.push_back("key " + std::to_string(i));
            REQUIRE(cache.remember(keys.back(), std::string(i % 300, 'r')));
        }
        REQUIRE((*store)->close());
    }
    [[nodiscard]] std::filesystem::path file(bool index = false) const {
        return segment_path(dir.path() / "store", 1, index);
    }
    TempDir dir{fast_directory()};
    std::vector<std::string> keys;
};

TEST_CASE("a dump of all segments shows each record once, in order, and tiles the files") {
    const Sample sample;
    std::vector<std::string> keys;
    std::uint64_t sequence = 0;
    for (std::uint64_t id = 1;; ++id) {
        const auto path = segment_path(sample.dir.path() / "store", id);
        if (!std::filesystem::exists(path)) {
            CHECK(id > 2);
            break;
        }
        const auto items = items_of(path);
        REQUIRE(items);
        const auto* start = std::get_if<SegmentDump>(&items->front());
        REQUIRE(start != nullptr);
        CHECK(start->segment == id);
        CHECK(start->previous_segment == id - 1);
        CHECK(only<DamageDump>(*items).empty());
        CHECK(only<ManifestDump>(*items).size() == 1);
        check_that_it_tiles(*items, std::filesystem::file_size(path));
        for (const RecordDump& item : only<RecordDump>(*items)) {
            CHECK(item.record.sequence == ++sequence);
            CHECK(item.frame.kind == "records");
            keys.push_back(item.record.key);
        }
    }
    CHECK(keys == sample.keys);
}

TEST_CASE("a dump of an index leads from each entry to the stream's record in the segment") {
    const Sample sample;
    const auto items = items_of(sample.file(true));
    const auto segment = items_of(sample.file());
    REQUIRE(items);
    REQUIRE(segment);
    const auto* start = std::get_if<IndexDump>(&items->front());
    REQUIRE(start != nullptr);
    CHECK(start->segment == 1);
    CHECK(start->segment_bytes == std::filesystem::file_size(sample.file()));
    CHECK(start->versions.total() == only<RecordDump>(*segment).size());
    const auto tables = only<TableDump>(*items);
    REQUIRE(tables.size() >= 2);
    CHECK(std::ranges::all_of(tables, [](const auto& table) { return table.damaged.empty(); }));
    std::map<std::uint64_t, std::uint64_t> offsets;
    for (const RecordDump& item : only<RecordDump>(*segment)) {
        offsets[item.record.sequence] = item.frame.offset;
    }
    const auto entries = only<EntryDump>(*items);
    CHECK(entries.size() == start->entries);
    CHECK(entries.size() == offsets.size());
    for (const EntryDump& entry : entries) {
        CHECK(offsets.at(entry.sequence) == entry.offset);
        CHECK(entry.state == State::completed);
    }
}

TEST_CASE("a damaged frame is shown with its place and reason, and what lies behind it as well") {
    const Sample sample;
    const auto whole = items_of(sample.file());
    REQUIRE(whole);
    const auto records = only<RecordDump>(*whole);
    const RecordDump& hit = records.at(records.size() / 2);
    std::string bytes = bytes_of(sample.file());
    SUBCASE("in its body") {
        bytes[hit.frame.offset + hit.frame.bytes - 1] ^= 1;
    }
    SUBCASE("in its header") {
        bytes[hit.frame.offset + 9] ^= 1;
    }
    SUBCASE("all of it, by zeros") {
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(hit.frame.offset), hit.frame.bytes,
                    '\0');
    }
    // Under any name: as somebody sends it who asks for help.
    const auto copy = sample.dir.path() / "copy.bin";
    write_bytes(copy, bytes);
    const auto items = items_of(copy);
    REQUIRE(items);
    const auto damage = only<DamageDump>(*items);
    REQUIRE(damage.size() == 1);
    CHECK(damage[0].offset == hit.frame.offset);
    CHECK(damage[0].bytes == hit.frame.bytes);
    CHECK_FALSE(damage[0].at_end);
    CHECK_FALSE(damage[0].reason.empty());
    CHECK(only<RecordDump>(*items).size() == records.size() - 1);
    check_that_it_tiles(*items, bytes.size());
}

TEST_CASE("the key of a record whose receipt is damaged is told") {
    const Sample sample;
    const auto whole = items_of(sample.file());
    REQUIRE(whole);
    const RecordDump hit = only<RecordDump>(*whole).at(200);
    std::string bytes = bytes_of(sample.file());
    bytes[hit.frame.offset + hit.frame.bytes - 1] ^= 1;
    write_bytes(sample.file(), bytes);
    const auto items = items_of(sample.file());
    REQUIRE(items);
    const auto damage = only<DamageDump>(*items);
    REQUIRE(damage.size() == 1);
    REQUIRE(damage[0].may_hold.size() == 1);
    CHECK(damage[0].may_hold[0].key == hit.record.key);
    CHECK(damage[0].may_hold[0].sequence == hit.record.sequence);
}

TEST_CASE("a segment that is cut anywhere shows its intact frames, then a torn end") {
    const Sample sample;
    const std::string bytes = bytes_of(sample.file());
    const auto whole = items_of(sample.file());
    REQUIRE(whole);
    const auto parts = parts_of(*whole);
    const auto copy = sample.dir.path() / "copy.bin";
    for (std::size_t cut = kHeaderBytes; cut < 1'000; ++cut) {
        write_bytes(copy, bytes.substr(0, cut));
        const auto items = items_of(copy);
        REQUIRE(items);
        check_that_it_tiles(*items, cut);
        const auto damage = only<DamageDump>(*items);
        // Zeros behind the last frame are room; a frame may begin with some.
        const std::uint64_t last = std::prev(parts.upper_bound(cut))->first;
        const bool only_zeros =
            std::string_view(bytes).substr(last, cut - last).find_first_not_of('\0') ==
            std::string_view::npos;
        CHECK(damage.size() == (only_zeros ? 0 : 1));
        CHECK(std::ranges::all_of(damage, [](const auto& one) { return one.at_end; }));
    }
}

TEST_CASE("no bytes make a dump fail: it shows them as damage, or says what is wrong") {
    const Sample sample;
    const auto copy = sample.dir.path() / "copy.bin";
    std::mt19937_64 random(20'260'101);
    const auto below = [&](std::uint64_t n) { return random() % n; };
    std::size_t shown = 0;
    for (const bool index : {false, true}) {
        const std::string sound = bytes_of(sample.file(index));
        for (int round = 0; round < 400; ++round) {
            std::string bytes = sound;
            // Most rounds spare the header, without which there is nothing to show.
            const std::uint64_t from = round % 8 == 0 ? 0 : index ? 500 : kHeaderBytes;
            for (std::uint64_t hits = below(20); hits != 0; --hits) {
                bytes[from + below(bytes.size() - from)] = static_cast<char>(random());
            }
            if (round % 3 == 0) {
                bytes.resize(from + below(bytes.size() - from));
            }
            if (round % 5 == 0) {
                bytes.insert(from + below(bytes.size() - from + 1), below(5'000), '\x01');
            }
            write_bytes(copy, bytes);
            const auto items = items_of(copy);
            if (!items) {
                CHECK_FALSE(items.error().message.empty());
                continue;
            }
            ++shown;
            if (!index) {
                check_that_it_tiles(*items, bytes.size());
            }
        }
    }
    CHECK(shown > 400);
    for (int round = 0; round < 300; ++round) {
        std::string bytes(below(3'000), '\0');
        std::ranges::generate(bytes, [&] { return static_cast<char>(random()); });
        bytes.insert(0, round % 3 == 0 ? "DEDUPLOG" : round % 3 == 1 ? "dedupidx" : "");
        write_bytes(copy, bytes);
        const auto items = items_of(copy);
        REQUIRE_FALSE(items);
        CHECK(items.error().code == (round % 3 == 2 ? Code::invalid_argument : Code::corruption));
    }
}

TEST_CASE("what is no segment gets an error that says what it is and what to give") {
    const Sample sample;
    const auto store = sample.dir.path() / "store";
    const auto empty = sample.dir.path() / "empty";
    write_bytes(empty, "");
    for (const auto& [path, what] :
         std::map<std::filesystem::path, std::string>{{store, "a directory"},
                                                      {store / "catalog" / "data.mdb", "LMDB"},
                                                      {empty, "empty"},
                                                      {"/dev/null", "no regular file"}}) {
        const auto items = items_of(path);
        REQUIRE_FALSE(items);
        CHECK(items.error().code == Code::invalid_argument);
        for (const std::string& part : {path.string(), what, std::string(".log")}) {
            CHECK(items.error().message.find(part) != std::string::npos);
        }
    }
    const auto absent = items_of(sample.dir.path() / "absent");
    REQUIRE_FALSE(absent);
    CHECK(absent.error().code == Code::io);
}

TEST_CASE("a visitor that has seen enough ends the dump") {
    const Sample sample;
    for (const bool index : {false, true}) {
        for (int wanted = 1; wanted < 6; ++wanted) {
            int seen = 0;
            CHECK(dump(sample.file(index), [&](const DumpItem&) { return ++seen < wanted; }));
            CHECK(seen == wanted);
        }
    }
}

}  // namespace
}  // namespace dedup::test
