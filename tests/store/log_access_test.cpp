// Who may use a store, and what a stranger who may write into its directory can make it do: nothing
// outside of it, and no waiting for ever.

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "support/child_process.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

constexpr uid_t kSomebody = 65534;

std::unique_ptr<StreamStore> open_here(const Path& path, const OpenOptions& options = {}) {
    auto store = open(path, options);
    REQUIRE_MESSAGE(store, (store ? "" : store.error().message));
    return *std::move(store);
}

struct stat status_of(const Path& path) {
    struct stat status {};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    return status;
}

unsigned mode_of(const Path& path) {
    return status_of(path).st_mode & 07777U;
}

// The whole of a store's directory, with its own path first.
std::vector<Path> all_of(const Path& store) {
    std::vector<Path> paths{store};
    for (const auto& entry : fs::recursive_directory_iterator(store)) {
        paths.push_back(entry.path());
    }
    return paths;
}

void check_modes(const Path& store, unsigned directory_mode) {
    for (const Path& path : all_of(store)) {
        INFO(path.string());
        const bool is_lock = path.filename() == "LOCK";
        const unsigned file_mode = directory_mode & (is_lock ? 0660U : 0666U);
        CHECK(mode_of(path) == (fs::is_directory(path) ? directory_mode : file_mode));
    }
}

// Fills segments, seals them, sweeps and compacts, so that files of every kind come and go.
void live_through(const Path& path, OpenOptions options = {}) {
    std::int64_t now = 1'800'000'000'000;
    options.segment_bytes = kSegmentBytesMin;
    options.clock = [&now] { return now; };
    const auto store = open_here(path, options);
    const std::string prefix = std::to_string(store->stats()->last_sequence) + "-";
    fill(*store, prefix + "gone-", 1000, now, now + 1);
    fill(*store, prefix + "kept-", 1000, now);
    now += 3'600'000;
    SweepOptions compact;
    compact.compact = true;
    const auto report = store->sweep(compact);
    REQUIRE(report);
    CHECK(report->removed.total() == 1000);
    fill(*store, prefix + "more-", 1000, now);
    wait_until_sealed(*store);
    REQUIRE(store->close());
}

class Umask {
  public:
    explicit Umask(mode_t mask) : old_(::umask(mask)) {}
    ~Umask() { ::umask(old_); }
    Umask(const Umask&) = delete;
    Umask& operator=(const Umask&) = delete;

  private:
    mode_t old_;
};

TEST_CASE("a new store is its owner's alone") {
    const TempDir dir(fast_directory());
    const Umask umask(022);
    live_through(dir.path() / "store");
    check_modes(dir.path() / "store", 0700);
}

TEST_CASE("what is created in a store follows its directory, not the umask of whoever writes") {
    const TempDir dir(fast_directory());
    const Path path = dir.path() / "store";
    OpenOptions options;
    options.permissions = fs::perms{0775};
    {
        const Umask umask(002);
        live_through(path, options);
        check_modes(path, 0775);
    }
    {
        const Umask umask(077);
        live_through(path);
        check_modes(path, 0775);
    }
    SUBCASE("the umask holds for the directory of a new store") {
        const Umask umask(027);
        live_through(dir.path() / "other", options);
        check_modes(dir.path() / "other", 0750);
    }
    SUBCASE("a directory that is there already keeps its mode") {
        REQUIRE(::mkdir((dir.path() / "made").c_str(), 0700) == 0);
        REQUIRE(::chmod((dir.path() / "made").c_str(), 0770) == 0);
        live_through(dir.path() / "made");
        check_modes(dir.path() / "made", 0770);
    }
}

TEST_CASE("permissions that would lock the owner out, or mean something else, are refused") {
    const TempDir dir(fast_directory());
    for (const unsigned mode : {0077U, 0600U, 01777U, 04700U}) {
        OpenOptions options;
        options.permissions = fs::perms{mode};
        const auto refused = open(dir.path() / "store", options);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Code::invalid_argument);
    }
    CHECK_FALSE(fs::exists(dir.path() / "store"));
}

TEST_CASE("root that writes in somebody's store leaves files of that owner") {
    if (::geteuid() != 0) {
        MESSAGE("not root: nothing to try");
        return;
    }
    const TempDir dir(fast_directory());
    const Path path = dir.path() / "store";
    live_through(path);
    for (const Path& each : all_of(path)) {
        REQUIRE(::lchown(each.c_str(), kSomebody, kSomebody) == 0);
    }
    live_through(path);
    fs::remove_all(path / "catalog");
    live_through(path);
    for (const Path& each : all_of(path)) {
        INFO(each.string());
        CHECK(status_of(each).st_uid == kSomebody);
        CHECK(status_of(each).st_gid == kSomebody);
    }
}

// What somebody else's process, which may not write in the store, is told.
std::string message_to_stranger(const Path& path, bool reading) {
    const Shared<std::array<char, 1024>> message;
    CHECK(exit_code(in_child([&] {
              if (::setresuid(kSomebody, kSomebody, kSomebody) != 0) {
                  return 2;
              }
              OpenOptions options;
              options.read_only = reading;
              const auto store = open(path, options);
              if (!store) {
                  store.error().message.copy(message->data(), message->size() - 1);
              }
              return store || store.error().code != Code::read_only ? 1 : 0;
          })) == 0);
    return message->data();
}

TEST_CASE("whoever has not the right to something is told to what") {
    if (::geteuid() != 0) {
        MESSAGE("not root: nothing to try");
        return;
    }
    const TempDir dir(fast_directory());
    const Path path = dir.path() / "store";
    REQUIRE(::chmod(dir.path().c_str(), 0755) == 0);
    live_through(path);
    for (const bool reading : {true, false}) {
        CHECK(message_to_stranger(path, reading) ==
              "cannot open " + path.string() +
                  ": Permission denied; check the owner and the permissions");
    }
    for (const Path& each : all_of(path)) {
        REQUIRE(::chmod(each.c_str(), fs::is_directory(each) ? 0755 : 0644) == 0);
    }
    const Path data = path / "catalog" / "data.mdb";
    REQUIRE(::chmod(data.c_str(), 0600) == 0);
    CHECK(message_to_stranger(path, true) ==
          "cannot open " + data.string() +
              ": Permission denied; check the owner and the permissions");
    CHECK(message_to_stranger(path, false) ==
          "cannot open " + (path / "LOCK").string() +
              ": Permission denied; check the owner and the permissions");
}

// What somebody may have put in the place of a file or a directory.
const std::map<std::string, std::function<void(const Path&, const Path& victim)>> kOddThings = {
    {"a symbolic link", [](const Path& at, const Path& victim) { fs::create_symlink(victim, at); }},
    {"a pipe", [](const Path& at, const Path&) { REQUIRE(::mkfifo(at.c_str(), 0600) == 0); }},
    {"a socket",
     [](const Path& at, const Path&) {
         const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
         sockaddr_un address{};
         address.sun_family = AF_UNIX;
         REQUIRE(at.string().size() < sizeof address.sun_path);
         at.string().copy(address.sun_path, at.string().size());
         REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
         ::close(fd);
     }},
};

void put_odd_things(Path name, bool is_directory) {
    for (const auto& [what, put] : kOddThings) {
        for (const bool reading : {false, true}) {
            INFO(name.string() << " is " << what << (reading ? ", for reading" : ""));
            const TempDir dir(fast_directory());
            const Path path = dir.path() / "s";
            live_through(path);
            if (name.parent_path() == "log") {
                name = fs::relative(std::ranges::max(all_of(path / "log")), path);
            }
            const Path victim = dir.path() / "victim";
            if (is_directory) {
                fs::create_directory(victim);
                write_file(victim / "file", "untouched");
                fs::copy(path / name, victim, fs::copy_options::recursive);
            } else {
                write_file(victim, "untouched");
            }
            fs::remove_all(path / name);
            put(path / name, victim);
            const std::size_t had = all_of(path).size();
            OpenOptions options;
            options.read_only = reading;
            const auto opened = open(path, options);
            const bool reader_needs_it = name != "LOCK" && name != "reserve";
            if (!reading || reader_needs_it) {
                if (name == "reserve") {
                    CHECK(opened.has_value());
                } else {
                    REQUIRE_FALSE(opened);
                    CHECK(opened.error().code == Code::invalid_argument);
                    CHECK(opened.error().message.find((path / name).string() + " is " + what) !=
                          std::string::npos);
                    if (!reading) {
                        const auto reset = reset_clock(path);
                        REQUIRE_FALSE(reset);
                        CHECK(reset.error().message == opened.error().message);
                    }
                    CHECK(all_of(path).size() == had);
                }
            }
            CHECK(read_file(is_directory ? victim / "file" : victim) == "untouched");
        }
    }
}

TEST_CASE("no file of a store is opened through a link, or waited for") {
    put_odd_things("LOCK", false);
    put_odd_things("reserve", false);
    put_odd_things("log/newest", false);
    put_odd_things("catalog/data.mdb", false);
}

TEST_CASE("no directory of a store is a link") {
    put_odd_things("log", true);
    put_odd_things("catalog", true);
}

TEST_CASE("the path of a store may lead over links") {
    const TempDir dir(fast_directory());
    fs::create_directory(dir.path() / "real");
    fs::create_directory_symlink(dir.path() / "real", dir.path() / "link");
    live_through(dir.path() / "link");
    live_through(dir.path() / "link" / "");
    live_through(dir.path() / "real");
    CHECK(fs::exists(dir.path() / "real" / "LOCK"));
}

// All descriptors that the process may still open are taken while this is there.
class NoDescriptors {
  public:
    NoDescriptors() {
        REQUIRE(::getrlimit(RLIMIT_NOFILE, &old_) == 0);
        rlimit few = old_;
        few.rlim_cur = 0;
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    }
    ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &old_); }
    NoDescriptors(const NoDescriptors&) = delete;
    NoDescriptors& operator=(const NoDescriptors&) = delete;

  private:
    rlimit old_{};
};

TEST_CASE("when descriptors run out, a call fails and not the store") {
    const TempDir dir(fast_directory());
    const auto store = open_here(dir.path() / "store", small_segments());
    fill(*store, "before-", 100);
    int landed = 0;
    {
        const NoDescriptors none;
        Error error;
        // Until the next segment needs a file.
        for (; landed < 100'000 && error.message.empty(); ++landed) {
            const Append item{0, completed_record("key-" + std::to_string(landed), "receipt")};
            if (const auto results = store->append({&item, 1}); !results[0]) {
                error = results[0].error();
                break;
            }
        }
        CHECK(error.os_error == EMFILE);
        CHECK(error.code == Code::io);
        CHECK(store->flush());
        (void)store->sweep();
    }
    for (int i = 0; i < 2000; ++i) {
        must_append(*store, "after-" + std::to_string(i));
    }
    REQUIRE(store->sweep());
    for (int i = 0; i < landed; ++i) {
        REQUIRE(receipt_of(*store, "key-" + std::to_string(i)) == "receipt");
    }
    REQUIRE(store->close());
}

}  // namespace
}  // namespace dedup::test
