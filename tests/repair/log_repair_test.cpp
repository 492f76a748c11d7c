// A log of which parts are gone: what verify() says of it, and what repair() saves. Damage costs
// what lies there, and neither ends at the first.

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "repair/salvage.hpp"
#include "support/child_process.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

constexpr int kMany = 1500;  // more than three of the smallest segments
constexpr int kFew = 40;

// A store, and the place for a repaired one.
struct Lossy {
    explicit Lossy(int count) : keys(count) {
        const auto store = must_open(path, small_segments());
        for (int i = 0; i < keys; ++i) {
            must_append(*store, name(i), std::string(100, 'r'));
        }
        wait_until_sealed(*store);
        segments = store->stats()->segments_sealed + 1;
        REQUIRE(store->close());
    }

    static std::string name(int i) { return "key-" + std::to_string(10'000 + i); }

    void overwrite(const Path& file, std::uint64_t at, const std::string& with) const {
        std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
        out.seekp(static_cast<std::streamoff>(at)) << with;
        REQUIRE(out.flush());
    }
    void overwrite(std::uint64_t segment, std::uint64_t at, const std::string& with) const {
        overwrite(segment_path(path, segment), at, with);
    }
    void zero(std::uint64_t segment, std::uint64_t at, std::uint64_t bytes) const {
        overwrite(segment, at, std::string(bytes, '\0'));
    }

    // How many keys a repair saves; what it saves is whole.
    [[nodiscard]] int saved() const {
        fs::remove_all(target);
        const auto report = repair(path, target);
        REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
        const auto verified = verify(target);
        REQUIRE(verified);
        CHECK(verified->problems.empty());
        const auto store = must_open(target, small_segments());
        int found = 0;
        for (int i = 0; i < keys; ++i) {
            const std::string receipt = receipt_of(*store, name(i));
            REQUIRE((receipt == "(absent)" || receipt == std::string(100, 'r')));
            found += receipt == "(absent)" ? 0 : 1;
        }
        CHECK(must_append(*store, "new") > static_cast<std::uint64_t>(keys));
        return found;
    }

    [[nodiscard]] VerifyReport verified() const {
        auto report = verify(path);
        REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
        REQUIRE_FALSE(report->problems.empty());
        return *std::move(report);
    }

    int keys;
    TempDir dir{fast_directory()};
    Path path = dir.path() / "store";
    Path target = dir.path() / "repaired";
    std::uint64_t segments = 0;
};

bool tells(const VerifyReport& report, const std::string& what) {
    return std::ranges::any_of(report.problems, [&](const std::string& problem) {
        return problem.find(what) != std::string::npos;
    });
}

std::string damaged_at(const Path& file, std::uint64_t offset) {
    return file.string() + " is damaged at offset " + std::to_string(offset);
}

TEST_CASE("lost header: a lost sector at the beginning costs what lies in it, not the store") {
    for (const std::uint64_t bytes : {8U, 512U, 4096U}) {
        for (const bool catalog_damaged : {false, true}) {
            CAPTURE(bytes);
            CAPTURE(catalog_damaged);
            Lossy lossy(kFew);
            lossy.zero(1, 0, bytes);
            if (catalog_damaged) {
                lossy.overwrite(lossy.path / "catalog" / "data.mdb", 0, std::string(4096, '\0'));
            }
            CHECK(open_error(lossy.path).code == Code::corruption);
            const VerifyReport report = lossy.verified();
            CHECK(report.log_damaged);
            CHECK(tells(report, damaged_at(segment_path(lossy.path, 1), 0)));
            CHECK(report.records >= kFew - bytes / 100);
            CHECK(lossy.saved() == static_cast<int>(report.records));
        }
    }
}

TEST_CASE("lost header: in each segment of a store") {
    Lossy lossy(kMany);
    for (std::uint64_t id = 1; id <= lossy.segments; ++id) {
        lossy.zero(id, 0, 512);
    }
    const VerifyReport report = lossy.verified();
    CHECK(report.segments == lossy.segments);
    for (std::uint64_t id = 1; id <= lossy.segments; ++id) {
        CHECK(tells(report, damaged_at(segment_path(lossy.path, id), 0)));
    }
    CHECK(lossy.saved() >= kMany - static_cast<int>(lossy.segments) * 5);
}

TEST_CASE("lost header: without a catalog of this store nothing tells what is valid") {
    Lossy lossy(kFew);
    const Lossy other(kFew);
    lossy.zero(1, 0, 512);
    const auto is_hopeless = [&] {
        const auto refused = repair(lossy.path, lossy.target);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Code::corruption);
        CHECK(refused.error().message.find("only a copy helps") != std::string::npos);
        CHECK_FALSE(fs::exists(lossy.target));
        CHECK(tells(lossy.verified(), "only a copy helps"));
        CHECK(lossy.verified().log_damaged);
    };
    fs::copy_file(other.path / "catalog" / "data.mdb", lossy.path / "catalog" / "data.mdb",
                  fs::copy_options::overwrite_existing);
    is_hopeless();
    fs::remove_all(lossy.path / "catalog");
    is_hopeless();
}

TEST_CASE("lost header: a wrong version under a wrong checksum is damage, and costs nothing") {
    Lossy lossy(kFew);
    const std::string header = read_file(segment_path(lossy.path, 1)).substr(0, 16);
    for (std::size_t bit = 0; bit < 32; ++bit) {
        std::string version = header.substr(kSegmentVersionAt, 4);
        version[bit / 8] = static_cast<char>(version[bit / 8] ^ (1 << bit % 8));
        lossy.overwrite(1, kSegmentVersionAt, version);
        const Error error = open_error(lossy.path);
        CHECK(error.code == Code::corruption);
        CHECK(error.message.find(damaged_at(segment_path(lossy.path, 1), 0)) == 0);
        CHECK(lossy.verified().records == kFew);
        if (bit % 5 == 0) {
            CHECK(lossy.saved() == kFew);
        }
    }
}

TEST_CASE("verify goes on: behind each damage of the newest segment, too") {
    for (const bool catalog : {true, false}) {
        Lossy lossy(kMany);
        if (!catalog) {
            fs::remove_all(lossy.path / "catalog");
        }
        const Path newest = segment_path(lossy.path, lossy.segments);
        const std::string bytes = read_file(newest);
        std::vector<std::uint64_t> places;
        for (std::size_t at = bytes.find("rrrr", bytes.size() / 5);
             at < bytes.size() * 3 / 4 && at != std::string::npos; at = bytes.find("rrrr", at)) {
            lossy.overwrite(newest, at, "R");
            places.push_back(at);
            at += 3000;
        }
        REQUIRE(places.size() >= 3);
        const VerifyReport report = lossy.verified();
        CHECK(report.log_damaged);
        const std::string damaged = newest.string() + " is damaged at offset ";
        CHECK(std::ranges::count_if(report.problems, [&](const std::string& problem) {
                  return problem.starts_with(damaged);
              }) == static_cast<std::ptrdiff_t>(places.size()));
        CHECK(report.records == kMany - places.size());
        CHECK(report.segments == lossy.segments);
        CHECK(lossy.saved() == kMany - static_cast<int>(places.size()));
    }
}

TEST_CASE("verify goes on: over missing segments, wherever they are missing") {
    Lossy lossy(kMany);
    REQUIRE(lossy.segments >= 4);
    const Path kept = lossy.dir.path() / "kept";
    fs::copy(lossy.path, kept, fs::copy_options::recursive);
    const auto take = [&](const std::vector<std::uint64_t>& ids) {
        fs::remove_all(lossy.path);
        fs::copy(kept, lossy.path, fs::copy_options::recursive);
        for (const std::uint64_t id : ids) {
            fs::remove(segment_path(lossy.path, id));
        }
        const VerifyReport report = lossy.verified();
        CHECK(report.log_damaged);
        CHECK(report.segments == lossy.segments - ids.size());
        CHECK(report.records > 0);
        for (const std::uint64_t id : ids) {
            CHECK(tells(report, segment_path(lossy.path, id).string() + " is missing"));
        }
        CHECK(report.problems.size() == ids.size());
        CHECK(lossy.saved() == static_cast<int>(report.records));
    };
    take({1});
    take({2});
    take({1, 3});
    take({lossy.segments});
    // One more is damaged; that is told, too.
    fs::remove(segment_path(lossy.path, 2));
    lossy.zero(3, 0, 512);
    CHECK(tells(lossy.verified(), segment_path(lossy.path, 2).string() + " is missing"));
    CHECK(tells(lossy.verified(), damaged_at(segment_path(lossy.path, 3), 0)));
}

TEST_CASE("verify goes on: a segment that ends where no frame does, or too early") {
    for (const std::uint64_t id : {1U, 2U}) {
        Lossy lossy(kMany);
        const Path file = segment_path(lossy.path, id);
        fs::resize_file(file, fs::file_size(file) / 2);
        CHECK(lossy.verified().log_damaged);
        CHECK(lossy.verified().segments == lossy.segments);
        fs::resize_file(file, kSegmentHeaderBytes);
        CHECK(lossy.verified().log_damaged);
        fs::resize_file(file, 0);
        CHECK(lossy.verified().log_damaged);
        CHECK(tells(lossy.verified(), damaged_at(file, 0)));
        CHECK(lossy.saved() > kMany / 2);
    }
}

TEST_CASE("verify goes on: without a catalog all of the log is read, and none of it damaged") {
    Lossy lossy(kMany);
    const auto is_catalog_alone = [&] {
        const VerifyReport report = lossy.verified();
        CHECK_FALSE(report.log_damaged);
        CHECK(report.problems.size() == 1);
        CHECK(tells(report, "catalog"));
        CHECK(report.records == kMany);
        CHECK(report.segments == lossy.segments);
    };
    write_file(lossy.path / "catalog" / "data.mdb", "garbage");
    is_catalog_alone();
    fs::remove_all(lossy.path / "catalog");
    is_catalog_alone();
    // And damage of the log is told as that.
    lossy.overwrite(2, 30'000, "garbage");
    CHECK(lossy.verified().log_damaged);
    CHECK(lossy.verified().problems.size() == 2);
}

TEST_CASE("verify goes on: a log that is lost is a problem of the store") {
    Lossy lossy(kFew);
    fs::remove(segment_path(lossy.path, 1));
    CHECK(lossy.verified().log_damaged);
    CHECK(tells(lossy.verified(), "has lost its log"));
    fs::remove(lossy.path / "log");
    CHECK(lossy.verified().problems.size() == 1);
    CHECK(tells(lossy.verified(), "has lost its log"));
    CHECK(repair(lossy.path, lossy.target).error().code == Code::invalid_argument);
    CHECK(verify(lossy.dir.path() / "none").error().code == Code::invalid_argument);
}

TEST_CASE("repair and writers keep each other out, and say who is there") {
    Lossy lossy(kFew);
    const std::string pid = std::to_string(::getpid());
    const auto is_busy = [&](const auto& refused) {
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Code::busy);
        CHECK(refused.error().message.find(lossy.path.string()) != std::string::npos);
        CHECK(refused.error().message.find(pid) != std::string::npos);
    };
    {
        const auto writer = must_open(lossy.path);
        is_busy(repair(lossy.path, lossy.target));
        CHECK(verify(lossy.path)->problems.empty());
        // Somebody removes the lock to get rid of it; the directory is locked, too.
        fs::remove(lossy.path / "LOCK");
        const auto refused = repair(lossy.path, lossy.target);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Code::busy);
        CHECK_FALSE(fs::exists(lossy.target));
        CHECK_FALSE(fs::exists(lossy.target.string() + ".partial"));
    }
    REQUIRE(must_open(lossy.path)->close());
    int asked = 0;
    const auto repaired = repair(lossy.path, lossy.target, [&](std::uint64_t, std::uint64_t) {
        if (asked++ != 0) {
            return;
        }
        is_busy(LogStore::open(posix_env(), lossy.path, {}));
        // Readers are welcome, and another repair is one.
        CHECK(must_open(lossy.path, read_only())->stats());
        CHECK(verify(lossy.path)->problems.empty());
        CHECK(repair(lossy.path, lossy.dir.path() / "another"));
        // (One into the same place is not.)
        CHECK(repair(lossy.path, lossy.target).error().code == Code::invalid_argument);
    });
    REQUIRE_MESSAGE(repaired, (repaired ? "" : repaired.error().message));
    CHECK(asked > 0);
    REQUIRE(must_open(lossy.path)->close());
}

TEST_CASE("whoever used the damaged store can use the repaired one") {
    Lossy lossy(kFew);
    fs::permissions(lossy.path, fs::perms(0750));
    const bool root = ::geteuid() == 0;
    REQUIRE((!root || ::chown(lossy.path.c_str(), 12'345, 23'456) == 0));
    REQUIRE(repair(lossy.path, lossy.target));
    struct stat damaged {};
    REQUIRE(::stat(lossy.path.c_str(), &damaged) == 0);
    int files = 0;
    const auto check = [&](const Path& path) {
        struct stat made {};
        REQUIRE(::stat(path.c_str(), &made) == 0);
        CAPTURE(path.string());
        CHECK(made.st_uid == damaged.st_uid);
        CHECK(made.st_gid == damaged.st_gid);
        // (Who may only read gets no lock.)
        if (path.filename() != "LOCK") {
            CHECK((made.st_mode & 0777U) == (S_ISDIR(made.st_mode) ? 0750U : 0640U));
        }
        ++files;
    };
    check(lossy.target);
    for (const auto& entry : fs::recursive_directory_iterator(lossy.target)) {
        check(entry.path());
    }
    CHECK(files >= 6);
}

#if defined(__has_feature)
#define DEDUP_HAS_FEATURE(name) __has_feature(name)
#else
#define DEDUP_HAS_FEATURE(name) 0
#endif
// A sanitizer's own tables take more than any limit that would be of use.
constexpr bool kMemoryCanBeLimited =
    !DEDUP_HAS_FEATURE(thread_sanitizer) && !DEDUP_HAS_FEATURE(address_sanitizer);
#undef DEDUP_HAS_FEATURE

// Runs `work` in a process that gets little memory; whether it came to an end, and was content.
template <class Work>
bool with_little_memory(Work work) {
    constexpr rlim_t kBytes = rlim_t{192} << 20;
    const auto limited = [&] {
        const rlimit limit{kBytes, kBytes};
        try {
            const bool ready = !kMemoryCanBeLimited || ::setrlimit(RLIMIT_DATA, &limit) == 0;
            return ready && work() ? 0 : 1;
        } catch (...) {
            return 1;  // memory ran out
        }
    };
    return exit_code(in_child(limited)) == 0;
}

void check_saved_with_little_memory(const Lossy& lossy) {
    CHECK(with_little_memory([&] {
        const auto report = verify(lossy.path);
        return report && report->log_damaged && report->records == kFew &&
               report->problems.size() <= 1001;
    }));
    CHECK(with_little_memory([&] {
        const auto report = repair(lossy.path, lossy.target);
        return report && report->records == kFew && report->losses.size() < 5000;
    }));
}

TEST_CASE("made up: files with holes and names of any number cost what they are worth") {
    Lossy lossy(kFew);
    SegmentHeader header = (*Segment::open(posix_env(), lossy.path / "log", 1))->header();
    for (const std::uint64_t id :
         {std::uint64_t{7'000'000}, std::uint64_t{9'999'999'999'999'999}}) {
        header.id = id;
        write_file(segment_path(lossy.path, id), encode_segment_header(header));
    }
    fs::resize_file(segment_path(lossy.path, 7'000'000), std::uint64_t{1} << 40);
    check_saved_with_little_memory(lossy);
    CHECK(with_little_memory([&] {
        const auto store = LogStore::open(posix_env(), lossy.path, {});
        return !store && store.error().code == Code::corruption;
    }));
}

TEST_CASE("made up: a manifest of more segments than there are files") {
    Lossy lossy(kFew);
    SegmentHeader header = (*Segment::open(posix_env(), lossy.path / "log", 1))->header();
    Manifest manifest;
    manifest.segments.push_back({1, fs::file_size(segment_path(lossy.path, 1))});
    for (std::uint64_t id = 2; id < 1'000'000; ++id) {
        manifest.segments.push_back({id * 1000, UINT64_MAX});
    }
    header.id = 2'000'000'000;
    header.previous_id = 1;
    write_file(segment_path(lossy.path, header.id), segment_start(header, manifest));
    check_saved_with_little_memory(lossy);
}

}  // namespace
}  // namespace dedup::test
