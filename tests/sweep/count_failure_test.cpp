// A sweep whose counts could not be written is made up for by the next one, in a report of its own.
#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <string>
#include <string_view>

#include "dedup/cache.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace {

std::atomic<bool> catalog_flushes_fail{false};

bool is_catalog(int fd) {
    std::array<char, 4096> path{};
    const auto link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t n = ::readlink(link.c_str(), path.data(), path.size());
    return n > 0 && std::string_view(path.data(), static_cast<std::size_t>(n)).ends_with(".mdb");
}

}  // namespace

// In the place of the system's, for LMDB, too.
extern "C" int fdatasync(int fd) {
    if (catalog_flushes_fail && is_catalog(fd)) {
        errno = EIO;
        return -1;
    }
    return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

namespace dedup::test {
namespace {

TEST_CASE("the report of a count that failed stays in the history with what it removed") {
    const TempDir dir;
    ManualClock clock{1'700'000'000'000};
    const auto store = must_open(
        dir.path() / "store",
        {.clock = clock.clock(), .trust_clock = true, .grace = std::chrono::milliseconds{0}});
    Cache cache(*store);
    const auto claimed = cache.claim("unanswered", {.ttl = std::chrono::seconds{1}});
    REQUIRE(claimed);
    REQUIRE(cache.remember("done", "receipt", {.ttl = std::chrono::seconds{1}}));
    clock.advance(10'000);
    catalog_flushes_fail = true;
    CHECK_FALSE(store->sweep());
    catalog_flushes_fail = false;
    const auto next = store->sweep();
    REQUIRE_MESSAGE(next.has_value(), next.error().message);
    CHECK(next->removed.total() == 0);
    const auto history = store->sweep_history();
    REQUIRE_MESSAGE(history.has_value(), history.error().message);
    REQUIRE_FALSE(history->empty());
    StateCounts removed;
    std::size_t unanswered = 0;
    for (const SweepReport& report : *history) {
        removed += report.removed;
        unanswered += report.unanswered.size();
    }
    CHECK(removed.total() == 2);
    CHECK(unanswered == 1);
}

}  // namespace
}  // namespace dedup::test
