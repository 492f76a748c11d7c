// Many connections that ask now and then: they cost little memory, and hold nobody up.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/environment.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr std::uint64_t kBytesEachMax = 20 * 1024;

// Their memory is not the server's.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

// Of this process, without files.
std::uint64_t memory_bytes() {
    std::ifstream status("/proc/self/status");
    std::string word;
    while (status >> word && word != "RssAnon:") {
    }
    std::uint64_t kib = 0;
    status >> kib;
    return kib * 1024;
}

TEST_CASE("server: idle connections take at most 20 KiB each, and hold nobody up") {
    const std::uint64_t count = number_from_environment("DEDUP_IDLE_CONNECTIONS", 1000);
    rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 2 * count + 200);  // both ends
    ::setrlimit(RLIMIT_NOFILE, &limit);
    REQUIRE_MESSAGE(limit.rlim_cur >= 2 * count + 50, "ulimit -n allows too few descriptors");
    const TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    const auto store = make_memory_store();
    const auto server = Server::start(*store, {.unix_path = path, .connections_max = count + 10});
    REQUIRE(server.has_value());
    const std::string value(8 * 1024, 'v');
    std::vector<Client> clients;
    clients.reserve(count);
    Client(path).ask({"SET", "k", value});
    const std::uint64_t before = memory_bytes();
    for (std::uint64_t i = 0; i < count; ++i) {
        // Each has asked for something, in pieces, and got something large.
        Client& client = clients.emplace_back(path);
        const std::string bytes = request({"ECHO", value}) + request({"GET", "k"});
        client.send(std::string_view(bytes).substr(0, 5000));
        client.send(std::string_view(bytes).substr(5000));
        REQUIRE(client.reply().size() == value.size() + 2);
        REQUIRE(client.reply().size() == value.size() + 2);
        client.forget_input();
    }
    const std::uint64_t after = memory_bytes();
    const std::uint64_t each = after > before ? (after - before) / count : 0;
    MESSAGE(count << " connections, " << each << " bytes each");
    if (!kSanitized) {
        CHECK(each <= kBytesEachMax);
    }
    CHECK((*server)->metrics().connections >= count);
    for (const std::uint64_t i : {std::uint64_t{0}, count / 2, count - 1}) {
        CHECK(clients[i].ask({"PING"}) == "PONG");
    }
}

}  // namespace
}  // namespace dedup::test
