// The catalog by itself: what is added is there in the next snapshot, and bad files are refused.

#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "catalog/catalog.hpp"
#include "log/segment_writer.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

CatalogMeta sample_meta() {
    CatalogMeta meta;
    meta.store_id.fill('i');
    meta.secret.fill('s');
    return meta;
}

void make_segment(const Path& log, std::uint64_t id) {
    SegmentHeader header;
    header.id = id;
    REQUIRE(SegmentWriter::create(posix_env(), log, header, {}));
}

TEST_CASE("a sealed segment is in the next snapshot and not in the one before") {
    const TempDir dir;
    auto catalog = Catalog::create(posix_env(), dir.path() / "catalog", sample_meta());
    REQUIRE(catalog);
    const auto before = (*catalog)->snapshot(posix_env(), dir.path(), nullptr);
    REQUIRE(before);
    CHECK_FALSE((*catalog)->changed_since(**before));
    for (const std::uint64_t id : {1U, 2U}) {
        make_segment(dir.path(), id);
        SegmentRow row;
        row.id = id;
        row.bytes = 1000;
        row.versions = {1, 1, 0};
        row.entries = 2;
        const std::vector<IndexEntry> entries = {{{5}, 1, 80, 1}, {{9}, 2, 100, 0}};
        Census census;
        census.streams["ns"] = {1, 1, 0};
        REQUIRE((*catalog)->add(row, entries, census, {{1, {{"ns", {0, 1, 0}}}}}));
    }
    CHECK((*catalog)->changed_since(**before));
    CHECK((*before)->segments().empty());
    const auto after = (*catalog)->snapshot(posix_env(), dir.path(), *before);
    REQUIRE(after);
    const auto& segments = (*after)->segments();
    REQUIRE(segments.size() == 2);
    CHECK(segments[0].row.id == 1);
    CHECK(segments[0].row.streams == StateCounts{1, 1, 0});
    CHECK(segments[0].row.superseded == StateCounts{0, 1, 0});
    CHECK(segments[0].row.live() == StateCounts{1, 0, 0});
    CHECK(segments[1].row.superseded == StateCounts{});
    CHECK(segments[1].index.entry(1)->sequence == 2);
    CHECK(FilterBits({9}).in(segments[1].filter));
}

TEST_CASE("a second opening in the process shares the environment, and reading needs a catalog") {
    const TempDir dir;
    CHECK_FALSE(Catalog::open(dir.path() / "catalog", false));
    CHECK_FALSE(std::filesystem::exists(dir.path() / "catalog"));
    const auto writer = Catalog::create(posix_env(), dir.path() / "catalog", sample_meta());
    REQUIRE(writer);
    const auto reader = Catalog::open(dir.path() / "catalog", false);
    REQUIRE(reader);
    CHECK((*reader)->meta().store_id == sample_meta().store_id);
    make_segment(dir.path(), 1);
    const auto snapshot = (*reader)->snapshot(posix_env(), dir.path(), nullptr);
    REQUIRE(snapshot);
    REQUIRE((*writer)->add({.id = 1}, {}, {}, {}));
    CHECK((*reader)->changed_since(**snapshot));
    // The map cannot move under a reader.
    CHECK((*writer)->grow().error().code == Code::busy);
}

TEST_CASE("a catalog of a newer version is refused, not rebuilt") {
    const TempDir dir;
    {
        REQUIRE(Catalog::create(posix_env(), dir.path() / "catalog", sample_meta()));
        const auto env = LmdbEnv::open(dir.path() / "catalog", true, kCatalogMapBytes);
        auto txn = LmdbTxn::begin(*env, true);
        REQUIRE(txn->put("m", std::string("\x02\0\0\0more", 8)));
        REQUIRE(txn->commit());
    }
    const auto refused = Catalog::open(dir.path() / "catalog", true);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::unsupported_version);
}

}  // namespace
}  // namespace dedup::test
