// The catalog by itself: what is added is there in the next snapshot, and bad files are refused.

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "catalog/catalog.hpp"
#include "catalog/lmdb_env.hpp"
#include "log/segment_writer.hpp"
#include "support/child_process.hpp"
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

constexpr std::uint64_t kMiB = 1024 * 1024;

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
        REQUIRE(write_index(posix_env(), dir.path(), sample_meta(), row, entries, {}));
        REQUIRE((*catalog)->add(row, census, {{1, {{"ns", {0, 1, 0}}}}}));
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

// Segments of a hundred streams each, whose ids are spread over all hashes.
struct Runs {
    static constexpr std::uint64_t kStreams = 100;

    Runs() { REQUIRE(catalog); }

    static StreamId stream(std::uint64_t id, std::uint64_t i) {
        return {(kStreams * id + i) * 0x9e3779b97f4a7c15};
    }
    void add(std::uint64_t id) {
        make_segment(dir.path(), id);
        SegmentRow row;
        row.id = id;
        row.bytes = 1000;
        row.versions = {0, kStreams, 0};
        row.entries = kStreams;
        std::vector<IndexEntry> entries;
        for (std::uint64_t i = 0; i < kStreams; ++i) {
            entries.push_back({stream(id, i), i + 1, 80, 1});
        }
        std::ranges::sort(entries, {}, &IndexEntry::id);
        Census census;
        census.streams["ns"] = {0, kStreams, 0};
        const auto before = snapshot ? snapshot->segments() : std::vector<SealedSegment>();
        REQUIRE(write_index(posix_env(), dir.path(), sample_meta(), row, entries, before));
        REQUIRE((*catalog)->add(row, census, {}));
        look();
    }
    // The newest snapshot, in which every stream must be found by what is asked first.
    const CatalogSnapshot& look() {
        auto now = (*catalog)->snapshot(posix_env(), dir.path(), snapshot);
        REQUIRE_MESSAGE(now, (now ? "" : now.error().message));
        snapshot = std::move(*now);
        std::size_t segments = 0;
        for (const SealedRun& run : snapshot->runs()) {
            REQUIRE(run.begin == segments);
            for (std::size_t i = 0; i < run.filters->filters().size(); ++i, ++segments) {
                const SealedSegment& sealed = snapshot->segments()[segments];
                REQUIRE(run_of(sealed.row.id) == run.number);
                for (std::uint64_t which = 0; which < kStreams; ++which) {
                    const FilterBits bits(stream(sealed.row.id, which));
                    REQUIRE(run.filters->may_have(stream(sealed.row.id, which), bits));
                    REQUIRE(bits.in(run.filters->filters()[i]));
                }
            }
        }
        REQUIRE(segments == snapshot->segments().size());
        return *snapshot;
    }
    [[nodiscard]] bool is_joint(std::size_t run) {
        return look().runs()[run].filters->joint().data != nullptr;
    }

    TempDir dir;
    Result<std::unique_ptr<Catalog>> catalog =
        Catalog::create(posix_env(), dir.path() / "catalog", sample_meta());
    SnapshotPtr snapshot;
};

constexpr std::uint64_t kLast = kRunSegments - 1;  // of the first run

TEST_CASE(
    "a run has a joint filter from its last segment on, until half of its streams are dropped") {
    Runs runs;
    for (std::uint64_t id = 1; id < kLast; ++id) {
        runs.add(id);
        CHECK_FALSE(runs.is_joint(0));
    }
    runs.add(kLast);
    CHECK(runs.is_joint(0));
    runs.add(kLast + 1);
    REQUIRE(runs.look().runs().size() == 2);
    CHECK(runs.is_joint(0));
    CHECK_FALSE(runs.is_joint(1));
    REQUIRE((*runs.catalog)->drop(std::vector<std::uint64_t>{1, 5, 14}, {}));
    CHECK(runs.is_joint(0));
    REQUIRE((*runs.catalog)->drop(std::vector<std::uint64_t>{2, 3, 4, 6}, {}));
    CHECK(runs.is_joint(0));  // seven are gone
    REQUIRE((*runs.catalog)->drop(std::vector<std::uint64_t>{7}, {}));
    CHECK_FALSE(runs.is_joint(0));
    CHECK(runs.look().segments().size() == kLast - 8 + 1);
    REQUIRE((*runs.catalog)->drop(std::vector<std::uint64_t>{8, 9, 10, 11, 12, 13, kLast}, {}));
    CHECK(runs.look().runs().size() == 1);
}

TEST_CASE("a run whose last segment is dropped has no joint filter any more") {
    Runs runs;
    for (std::uint64_t id = 1; id <= kLast; ++id) {
        runs.add(id);
    }
    CHECK(runs.is_joint(0));
    REQUIRE((*runs.catalog)->drop(std::vector<std::uint64_t>{kLast}, {}));
    CHECK_FALSE(runs.is_joint(0));
}

TEST_CASE("a segment that comes out of turn is not hidden by its run's joint filter") {
    // Guards against a false negative, which would be a key taken for new.
    Runs runs;
    for (std::uint64_t id = 1; id <= kLast; ++id) {
        if (id != 7) {
            runs.add(id);
        }
    }
    CHECK(runs.is_joint(0));
    runs.add(7);
    CHECK_FALSE(runs.is_joint(0));
    CHECK(runs.look().segments().size() == kLast);
}

TEST_CASE("a joint filter that is not what was written is not asked") {
    Runs runs;
    for (std::uint64_t id = 1; id <= kLast; ++id) {
        runs.add(id);
    }
    const Path file = runs.dir.path() / index_file_name(kLast);
    std::string intact(std::filesystem::file_size(file), '\0');
    std::ifstream(file, std::ios::binary)
        .read(intact.data(), static_cast<std::streamsize>(intact.size()));
    const std::uint64_t joint = runs.snapshot->segments().back().file->header().joint_bytes;
    const auto put = [&](const std::string& bytes) {
        std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    };
    // (It comes last: its data, and a checksum for each block of them.)
    for (std::size_t at = intact.size() - joint - 8; at < intact.size(); at += 3) {
        std::string damaged = intact;
        damaged[at] = static_cast<char>(damaged[at] ^ 4);
        put(damaged);
        const auto without = (*runs.catalog)->snapshot(posix_env(), runs.dir.path(), nullptr);
        REQUIRE(without);
        REQUIRE((*without)->runs()[0].filters->joint().data == nullptr);
        REQUIRE_FALSE((*without)->segments().back().file->filters_intact());
    }
    for (std::size_t bytes = 1; bytes < intact.size(); bytes += 7) {
        put(intact.substr(0, bytes));
        REQUIRE_FALSE((*runs.catalog)->snapshot(posix_env(), runs.dir.path(), nullptr));
    }
    put(intact);
    CHECK((*runs.catalog)->snapshot(posix_env(), runs.dir.path(), nullptr));
}

TEST_CASE("readers see a copy: beside the writer, with the right to read only, without a lock") {
    const TempDir dir;
    const Path path = dir.path() / "catalog";
    CHECK_FALSE(Catalog::open_for_reading(posix_env(), path));
    CHECK_FALSE(std::filesystem::exists(path));
    const auto writer = Catalog::create(posix_env(), path, sample_meta());
    REQUIRE(writer);
    const auto reader = Catalog::open_for_reading(posix_env(), path);
    REQUIRE(reader);
    CHECK((*reader)->meta().store_id == sample_meta().store_id);
    CHECK((*reader)->rows()->empty());
    CHECK_FALSE((*reader)->changed_since_open());
    REQUIRE((*writer)->add({.id = 1}, {}, {}));
    CHECK((*reader)->changed_since_open());
    CHECK((*reader)->rows()->size() == 1);
    CHECK_FALSE(std::filesystem::exists(path / "lock.mdb"));
}

// Both values of a transaction, which must be of one; gives its number.
std::uint64_t number_in(const std::shared_ptr<LmdbEnv>& env) {
    const auto txn = LmdbTxn::begin(env, false);
    const auto first = txn->get("first");
    const auto second = txn->get("second");
    REQUIRE(first);
    REQUIRE(second);
    REQUIRE(*first == second->substr(0, first->size()));
    REQUIRE(std::ranges::all_of(second->substr(first->size()), [](char c) { return c == '.'; }));
    return std::stoull(std::string(*first));
}

bool put_number(const std::shared_ptr<LmdbEnv>& env, std::uint64_t number) {
    auto txn = LmdbTxn::begin(env, true);
    const std::string first = std::to_string(number);
    return txn && txn->put("first", first) &&
           txn->put("second", first + std::string(number * 977 % 30'000, '.')) && txn->commit();
}

TEST_CASE("a copy beside a writer that is at work is of one transaction, and never goes back") {
    const TempDir dir(fast_directory());
    const Shared<std::atomic<bool>> done;
    REQUIRE(put_number(*LmdbEnv::open(dir.path(), kMiB), 1));
    const pid_t writer = in_child([&] {
        const auto env = LmdbEnv::open(dir.path(), kMiB);
        bool put = true;
        for (std::uint64_t number = 2; number < 20'000 && put; ++number) {
            put = put_number(*env, number);
        }
        *done = true;
        return put ? 0 : 1;
    });
    std::uint64_t before = 0;
    int copies = 0;
    for (bool last = false; !last; ++copies) {
        last = *done;
        const auto file = posix_env().open(dir.path() / "data.mdb", OpenMode::read);
        REQUIRE(file);
        const auto env = LmdbEnv::open_copy(dir.path(), **file);
        if (!env) {
            REQUIRE(env.error().code == Code::unavailable);
            continue;
        }
        const std::uint64_t now = number_in(*env);
        REQUIRE(now >= before);
        before = now;
    }
    CHECK(exit_code(writer) == 0);
    CHECK(before == 19'999);
    MESSAGE(copies << " copies");
}

TEST_CASE("threads that read beside one that writes see one transaction each") {
    // LMDB without a lock file would use the pages of those who read again.
    const TempDir dir(fast_directory());
    const auto env = LmdbEnv::open(dir.path(), kMiB);
    REQUIRE(put_number(*env, 1));
    std::atomic<bool> done{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < 2; ++i) {
        readers.emplace_back([&] {
            while (!done) {
                const auto txn = LmdbTxn::begin(*env, false);
                const std::string first(*txn->get("first"));
                std::this_thread::yield();
                const std::string_view second = *txn->get("second");
                wrong += second.substr(0, first.size()) != first;
            }
        });
    }
    for (std::uint64_t number = 2; number < 500; ++number) {
        REQUIRE(put_number(*env, number));
    }
    done = true;
    for (std::thread& reader : readers) {
        reader.join();
    }
    CHECK(wrong == 0);
}

TEST_CASE("free pages at the end that LMDB has not written are no damage, and used ones are") {
    const TempDir dir;
    const Path file = dir.path() / "data.mdb";
    {
        const auto env = LmdbEnv::open(dir.path(), kCatalogMapBytes);
        REQUIRE(env);
        const auto commit = [&](const auto& change) {
            auto txn = LmdbTxn::begin(*env, true);
            change(*txn);
            REQUIRE(txn->commit());
        };
        // Only who has reused free pages gives back what is taken at the end.
        commit([](LmdbTxn& txn) { REQUIRE(txn.put("short", std::string(20'000, 's'))); });
        commit([](LmdbTxn& txn) { REQUIRE(txn.remove("short")); });
        commit([](LmdbTxn& txn) { REQUIRE(txn.put("first", "1")); });
        commit([](LmdbTxn& txn) {
            REQUIRE(txn.put("kept", std::string(5'000, 'k')));
            REQUIRE(txn.put("gone", std::string(100'000, 'g')));
            REQUIRE(txn.remove("gone"));
        });
    }
    {
        const auto env = LmdbEnv::open(dir.path(), kCatalogMapBytes);
        REQUIRE_MESSAGE(env, (env ? "" : env.error().message));
        CHECK(LmdbTxn::begin(*env, false)->get("kept")->size() == 5'000);
        CHECK((*env)->used_bytes() > std::filesystem::file_size(file));  // or this tests nothing
    }
    std::filesystem::resize_file(file, 3 * 4096);
    const auto refused = LmdbEnv::open(dir.path(), kCatalogMapBytes);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::corruption);
}

TEST_CASE("where there is less room for a map than asked for, it becomes smaller") {
    constexpr std::uint64_t kNoRoom = std::uint64_t{1} << 48;
    const TempDir dir;
    {
        const auto env = LmdbEnv::open(dir.path(), kNoRoom);
        REQUIRE_MESSAGE(env, (env ? "" : env.error().message));
        const auto put = [&](const char* key) {
            auto txn = LmdbTxn::begin(*env, true);
            REQUIRE(txn->put(key, "1"));
            CHECK(txn->commit());
        };
        put("a");
        // Until there is no room any more: that is an error, and all stays as it was.
        Result<void> grown;
        while (grown) {
            grown = (*env)->grow();
            put("b");
        }
        CHECK(grown.error().code == Code::out_of_space);
        put("c");
    }
    const auto env = LmdbEnv::open(dir.path(), kCatalogMapBytes);
    REQUIRE(env);
    CHECK(LmdbTxn::begin(*env, false)->get("c") == "1");
}

TEST_CASE("a catalog of a newer version is refused, not rebuilt") {
    const TempDir dir;
    {
        REQUIRE(Catalog::create(posix_env(), dir.path() / "catalog", sample_meta()));
        const auto env = LmdbEnv::open(dir.path() / "catalog", kCatalogMapBytes);
        auto txn = LmdbTxn::begin(*env, true);
        REQUIRE(txn->put("m", std::string("\x03\0\0\0more", 8)));
        REQUIRE(txn->commit());
    }
    const auto refused = Catalog::open(dir.path() / "catalog");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::unsupported_version);
}

}  // namespace
}  // namespace dedup::test
