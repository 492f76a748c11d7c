// A primary and its standby, and a server whose disk is full: nothing acknowledged is lost.
#include <sys/mount.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "postgres/helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

Result<std::uint64_t> complete_key(StreamStore& store, const std::string& key,
                                   std::string receipt = "done") {
    Append append;
    append.record.ns = "standby";
    append.record.key = key;
    append.record.receipt = std::move(receipt);
    return store.append({&append, 1}).front();
}

std::uint64_t must_complete(StreamStore& store, const std::string& key) {
    const auto landed = complete_key(store, key);
    REQUIRE_MESSAGE(landed.has_value(), landed.error().message);
    return *landed;
}

void wait_until(const PostgresServer& server, const std::string& question) {
    for (int i = 0; i < 1'000 && server.sql(question) != "t"; ++i) {
        std::this_thread::sleep_for(milliseconds(20));
    }
    REQUIRE_MESSAGE(server.sql(question) == "t", question);
}

TEST_CASE("standby: refused by name, passed over in a list, and led by after it was promoted") {
    NEEDS_POSTGRES();
    PostgresServer primary;
    REQUIRE(init_postgres(primary.url()).has_value());
    const PostgresServer standby(primary, "second");
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'second'");
    primary.sql("SELECT pg_reload_conf()");
    wait_until(primary, "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'");

    PostgresOptions options;
    options.timeout = milliseconds(3'000);
    const auto refused = open_postgres(standby.url(), options);
    REQUIRE(!refused.has_value());
    CHECK(refused.error().message.contains("standby"));
    CHECK_MESSAGE(refused.error().message.contains("primary"), refused.error().message);

    const std::string both =
        "postgresql://dedup@/postgres?host=" + standby.directory() + "," + primary.directory();
    const auto store = open_postgres(both, options);
    REQUIRE_MESSAGE(store.has_value(), store.error().message);
    std::vector<std::uint64_t> acknowledged;
    for (int i = 0; i < 20; ++i) {
        acknowledged.push_back(must_complete(**store, "key-" + std::to_string(i)));
    }

    primary.stop(SIGQUIT);
    const auto without = complete_key(**store, "while nobody leads");
    REQUIRE(!without.has_value());
    CHECK_MESSAGE((without.error().code == Code::unavailable ||
                   without.error().code == Code::outcome_unknown),
                  without.error().message);

    standby.sql("SELECT pg_promote()");
    for (int i = 0; i < 20; ++i) {
        const auto head = (*store)->head({"standby", "key-" + std::to_string(i)});
        REQUIRE_MESSAGE(head.has_value(), head.error().message);
        REQUIRE(head->has_value());
        CHECK((*head)->sequence == acknowledged[static_cast<std::size_t>(i)]);
    }
    // The new primary may have lost blocks of sequences that the old one gave.
    CHECK(must_complete(**store, "after") > acknowledged.back() + (std::uint64_t{1} << 32U));
}

// A small file system, gone with this. Only root may make one.
class SmallDisk {
  public:
    explicit SmallDisk(const std::string& size)
        : mounted_(::mount("none", path().c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0) {}
    ~SmallDisk() {
        if (mounted_) {
            ::umount2(path().c_str(), MNT_DETACH);
        }
    }
    SmallDisk(const SmallDisk&) = delete;
    SmallDisk& operator=(const SmallDisk&) = delete;

    [[nodiscard]] bool mounted() const { return mounted_; }
    [[nodiscard]] std::filesystem::path path() const { return directory_.path(); }

  private:
    TempDir directory_;
    bool mounted_;
};

TEST_CASE("full disk: out_of_space, nothing acknowledged is lost, and room makes it go on") {
    NEEDS_POSTGRES();
    const SmallDisk disk("4m");
    if (!disk.mounted()) {
        MESSAGE("no file system can be mounted here");
        return;
    }
    const PostgresServer server;
    server.give(disk.path());
    REQUIRE(init_postgres(server.url()).has_value());
    server.sql("CREATE TABLESPACE small LOCATION '" + disk.path().string() + "'");
    server.sql("ALTER TABLE dedup.head SET TABLESPACE small");
    const auto store = open_postgres(server.url());
    REQUIRE(store.has_value());
    std::vector<std::uint64_t> acknowledged;
    Result<std::uint64_t> last = 0;
    for (int i = 0; i < 10'000 && last; ++i) {
        last = complete_key(**store, "key-" + std::to_string(i), std::string(1'500, 'r'));
        if (last) {
            acknowledged.push_back(*last);
        }
    }
    REQUIRE(!last.has_value());
    CHECK_MESSAGE(last.error().code == Code::out_of_space, last.error().message);
    CHECK(last.error().message.contains("make room on the server's disk"));
    CHECK(acknowledged.size() > 100);

    server.sql("ALTER TABLE dedup.head SET TABLESPACE pg_default");
    CHECK(must_complete(**store, "with room") > acknowledged.back());
    for (std::size_t i = 0; i < acknowledged.size(); ++i) {
        const auto head = (*store)->head({"standby", "key-" + std::to_string(i)});
        REQUIRE(head.has_value());
        REQUIRE(head->has_value());
        CHECK((*head)->sequence == acknowledged[i]);
    }
}

}  // namespace
}  // namespace dedup::test
