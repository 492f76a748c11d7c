// Index files against docs/format.md, and what is not one.

#include <doctest/doctest.h>
#include <xxhash.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "env/bytes.hpp"
#include "index/index_file.hpp"
#include "support/hex.hpp"
#include "support/temp_dir.hpp"
#include "support/text.hpp"

namespace dedup::test {
namespace {

// The one that docs/format.md writes down.
IndexHeader sample_header() {
    IndexHeader header;
    for (std::size_t i = 0; i < header.store_id.size(); ++i) {
        header.store_id[i] = static_cast<char>(i);
    }
    header.secret.fill('s');
    header.row.id = 1;
    header.row.bytes = 1'000;
    header.row.entries = 2;
    header.row.next_sequence = 4;
    header.row.time_high_ms = 1'700'000'000'000;
    header.row.versions = {2, 1, 0};
    header.row.version_bytes = {200, 100, 0};
    header.row.expires_min_ms = 0;
    return header;
}

std::vector<IndexEntry> sample_entries() {
    return {{{0x1111'1111'1111'1111}, 2, 240, kExpiryNever << 2},
            {{0xeeee'eeee'eeee'eeee}, 3, 360, kExpiryNever << 2 | 1}};
}

std::string read_bytes(const Path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

Result<std::shared_ptr<const IndexFile>> open_sample(const Path& log) {
    const IndexHeader header = sample_header();
    return IndexFile::open(posix_env(), log, header.store_id, header.secret, 1, 1'000);
}

TEST_CASE("the index file that docs/format.md writes down is what the code writes and reads") {
    // Guards the format: whoever changes it has to change the page and the version.
    const auto page = std::filesystem::path(DEDUP_SOURCE_ROOT) / "docs" / "format.md";
    const auto documented = from_hex(code_block(read_text(page), "index example"));
    REQUIRE(documented);
    const TempDir dir;
    REQUIRE(write_index_file(posix_env(), dir.path(), sample_header(), sample_entries(), {}));
    const Path file = dir.path() / index_file_name(1);
    CHECK(to_hex(read_bytes(file)) == to_hex(*documented));
    CHECK_FALSE(std::filesystem::exists(file.string() + ".tmp"));

    std::ofstream(file, std::ios::binary | std::ios::trunc) << *documented;
    const auto index = open_sample(dir.path());
    REQUIRE_MESSAGE(index, (index ? "" : index.error().message));
    CHECK((*index)->header().row == sample_header().row);
    CHECK((*index)->filters_intact());
    const SealedIndex entries = (*index)->index();
    REQUIRE(entries.size() == 2);
    CHECK(entries.entry(0)->sequence == 2);
    CHECK(entries.entry(1)->offset == 360);
    CHECK(entries.lower_bound({0x2222'2222'2222'2222}).value() == 1);
}

TEST_CASE("an index file of a later version, and names that are none") {
    const TempDir dir;
    const Path file = dir.path() / index_file_name(1);
    CHECK(open_sample(dir.path()).error().os_error == ENOENT);
    REQUIRE(write_index_file(posix_env(), dir.path(), sample_header(), sample_entries(), {}));
    std::string bytes = read_bytes(file);
    bytes[8] = 2;
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    CHECK(open_sample(dir.path()).error().code == Code::corruption);
    constexpr std::size_t kStartBytes = 416;
    store(bytes.data() + kStartBytes, XXH3_64bits(bytes.data(), kStartBytes));
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    CHECK(open_sample(dir.path()).error().code == Code::unsupported_version);
    CHECK(indexed_segment(index_file_name(77)) == 77);
    for (const char* const name :
         {"", ".idx", "1.idx", "0000000000000001.log", "00000000000000001.idx",
          "0000000000000000.idx", "0000000000000001.idx.tmp"}) {
        CHECK_FALSE(indexed_segment(name));
    }
}

TEST_CASE("an index of many blocks is read as it was written, of none, too") {
    const TempDir dir;
    for (const std::uint64_t count : {0U, 1U, 127U, 128U, 129U, 20'000U}) {
        INFO(count);
        IndexHeader header = sample_header();
        header.row.bytes = count * 100 + 1'000;
        header.row.entries = count;
        header.row.versions = {0, count, 0};
        std::vector<IndexEntry> entries;
        for (std::uint64_t i = 0; i < count; ++i) {
            entries.push_back({{i * (UINT64_MAX / (count + 1))}, i + 1, 80, 1});
        }
        REQUIRE(write_index_file(posix_env(), dir.path(), header, entries, {}));
        const auto index = IndexFile::open(posix_env(), dir.path(), header.store_id, header.secret,
                                           1, header.row.bytes);
        REQUIRE_MESSAGE(index, (index ? "" : index.error().message));
        CHECK((*index)->filters_intact());
        const SealedIndex table = (*index)->index();
        REQUIRE(table.size() == count);
        for (std::uint64_t i = 0; i < count; ++i) {
            REQUIRE(table.entry(i)->sequence == i + 1);
            REQUIRE(table.lower_bound(entries[i].id).value() == i);
        }
    }
}

}  // namespace
}  // namespace dedup::test
