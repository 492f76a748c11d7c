// A log that is gone, or has lost its end, while other parts of the store are there: somebody has
// removed files, or put back half of a backup.
//
// To begin a new log there would give sequences again, which fences rely on, and forget what was
// acknowledged. So such a store is refused, for reading and for writing, with a way out, and
// nothing in it is changed.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>

#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

// All names, and the sizes of files but LMDB's own.
std::set<std::string> listing(const fs::path& store) {
    std::set<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(store)) {
        const bool sized = entry.is_regular_file() && entry.path().extension() != ".mdb";
        names.insert(fs::relative(entry.path(), store).string() +
                     (sized ? ":" + std::to_string(entry.file_size()) : ""));
    }
    return names;
}

void check_refused(const fs::path& store, const std::string& why, const std::string& way_out) {
    OpenOptions existing;
    existing.create = false;
    const auto before = listing(store);
    for (const OpenOptions& options : {read_only(), existing, OpenOptions(), small_segments()}) {
        const Error error = open_error(store, options);
        INFO(error.message);
        CHECK(error.code == Code::corruption);
        CHECK(error.message.find(why) != std::string::npos);
        CHECK(error.message.find(way_out) != std::string::npos);
    }
    CHECK(listing(store) == before);
}

TEST_CASE("a store without its log is refused, and not begun anew") {
    const TempDir dir(fast_directory());
    const fs::path store = dir.path() / "store";
    // Small: its catalog knows no segment yet.
    must_append(*must_open(store), "key");
    const fs::path log = dir.path() / "log";
    fs::rename(store / "log", log);
    const auto check = [&] {
        INFO("log/ is removed");
        check_refused(store, "has lost its log", "put the segments back, or remove");
        INFO("log/ is empty");
        fs::create_directory(store / "log");
        check_refused(store, "has lost its log", "put the segments back, or remove");
        INFO("log/ has what was never named");
        write_file(store / "log" / "0000000000000007.log.tmp", "junk");
        check_refused(store, "has lost its log", "put the segments back, or remove");
        fs::remove_all(store / "log");
    };
    check();
    INFO("the catalog is empty");
    fs::remove(store / "catalog" / "data.mdb");
    check();
    INFO("there is no catalog, but a reserve");
    fs::remove_all(store / "catalog");
    REQUIRE(fs::exists(store / "reserve"));
    check();
    // The way out.
    fs::rename(log, store / "log");
    CHECK(receipt_of(*must_open(store), "key") == "done");
}

TEST_CASE("newest segments that are missing are missed, however the store was closed before") {
    const TempDir dir(fast_directory());
    const fs::path store = dir.path() / "store";
    std::uint64_t newest = 0;
    {
        const auto open = must_open(store, small_segments());
        fill(*open, "key-", 4000);
        const auto stats = open->stats();
        newest = stats->segments_sealed + stats->segments_unsealed;
        REQUIRE(open->close());  // perhaps before what is full has been sealed
    }
    REQUIRE(newest > 3);
    for (std::uint64_t id = newest; id > 1; --id) {
        INFO("from segment ", id, " of ", newest);
        fs::remove(segment_path(store, id));
        check_refused(store, segment_file_name(id), "dedupctl repair");
    }
}

TEST_CASE("a newest segment with steps of sweeps in it is missed, and the catalog not made anew") {
    const TempDir dir(fast_directory());
    const fs::path store = dir.path() / "store";
    ManualClock clock(1'700'000'000'000);
    std::uint64_t newest = 0;
    {
        const auto open = must_open(store, small_segments(clock.clock()));
        fill(*open, "lasts-", 1000, clock.now_ms());
        fill(*open, "expires-", 1500, clock.now_ms(), clock.now_ms() + 1000);
        fill(*open, "last-", 100, clock.now_ms());
        wait_until_sealed(*open);
        clock.advance(60'000);
        SweepOptions options;
        options.bytes_max = 1;  // the oldest that are worth it; others stay
        for (int i = 0; i < 3; ++i) {
            REQUIRE(open->sweep(options));
        }
        wait_until_sealed(*open);
        for (newest = 99; !fs::exists(segment_path(store, newest)); --newest) {
        }
        REQUIRE(open->close());
    }
    fs::remove(segment_path(store, newest));
    check_refused(store, "is missing", "dedupctl repair");
}

}  // namespace
}  // namespace dedup::test
