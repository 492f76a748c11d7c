// What one user may take of the server, and how he says who he is.
#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dedup/remote_store.hpp"
#include "server/client.hpp"
#include "server/users_fixture.hpp"

namespace dedup::test {
namespace {

TEST_CASE("users: nobody takes more than half of what there is") {
    std::atomic<bool> held = true;
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"},
                          {.name = "b", .rights = "all", .namespaces = "*"}},
                         {.connections_max = 8, .requests_max = 20});
    std::vector<Client> of_a;
    for (int i = 0; i < 4; ++i) {
        of_a.push_back(fixture.client("a"));
    }
    Client b(fixture.path);
    CHECK(b.ask({"AUTH", "a", secret_of("a")}).starts_with("-ERR max number of clients"));
    CHECK(b.ask({"PING"}).starts_with("-NOAUTH"));
    CHECK(b.ask({"AUTH", "b", secret_of("b")}) == "OK");
    of_a.pop_back();
    Client next(fixture.path);
    while (next.ask({"AUTH", "a", secret_of("a")}) != "OK") {  // the other's end has been seen
    }
    CHECK(next.ask({"RESET"}) == "RESET");
    of_a.push_back(fixture.client("a"));

    fixture.store.before_append = [&] { held.wait(true); };
    const std::uint64_t before = fixture.server->metrics().requests;
    for (int i = 0; i < 15; ++i) {
        of_a[0].send(request({"SET", "k" + std::to_string(i), "v"}));
    }
    while (fixture.server->metrics().requests < before + 15) {
        std::this_thread::yield();
    }
    b.send(request({"SET", "of-b", "v"}));
    while (fixture.server->metrics().requests < before + 16) {
        std::this_thread::yield();
    }
    held = false;
    held.notify_all();
    for (int i = 0; i < 15; ++i) {
        const std::string reply = of_a[0].reply();
        CHECK_MESSAGE((i < 10 ? reply == "OK" : reply.starts_with("-BUSY")), i << ": " << reply);
    }
    CHECK(b.reply() == "OK");
    for (int i = 0; i < 50; ++i) {  // what was answered does not count any more
        CHECK(of_a[0].ask({"SET", "k", "v"}) == "OK");
    }
}

TEST_CASE(
    "users: nobody holds more than half of the bytes, in requests that are not whole either") {
    // Guards against a user whose unfinished requests have all others get BUSY.
    UsersFixture fixture({{.name = "a", .rights = "claim", .namespaces = "a"},
                          {.name = "b", .rights = "all", .namespaces = "b"}},
                         {.request_bytes_max = 1'000'000});
    const std::string part = "*2\r\n$3\r\nGET\r\n$900000\r\n" + std::string(60'000, 'x');
    std::vector<Client> of_a;
    for (int i = 0; i < 16; ++i) {
        of_a.push_back(fixture.client("a"));
        of_a.back().send(part);
    }
    while (fixture.server->metrics().connections != 8) {
        std::this_thread::yield();
    }
    Client b = fixture.client("b");
    const std::string value(300'000, 'v');
    CHECK(b.ask({"DEDUP.REMEMBER", "k", value, "NS", "b"}).starts_with("['outcome' 'new'"));
    // What has been answered, or has gone, is not counted any more.
    of_a.clear();
    Client a = fixture.client("a");
    for (int i = 0; i < 20; ++i) {
        CHECK(a.ask({"DEDUP.CLAIM", std::string(60'000, 'k'), "NS", "a"}).starts_with("-ERR"));
        CHECK(b.ask({"DEDUP.REMEMBER", std::to_string(i), value, "NS", "b"})
                  .starts_with("['outcome' 'new'"));
    }
}

TEST_CASE("users: strangers keep nobody out") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"}},
                         {.connections_max = 6});
    Client first = fixture.client("a");
    std::vector<Client> strangers;
    for (int i = 0; i < 5; ++i) {
        strangers.emplace_back(fixture.path);
        CHECK(strangers.back().ask({"PING"}).starts_with("-NOAUTH"));
    }
    Client second = fixture.client("a");
    CHECK(strangers.front().reply() == "EOF");
    for (std::size_t i = 1; i < strangers.size(); ++i) {
        CHECK(strangers[i].ask({"PING"}).starts_with("-NOAUTH"));
    }
    // Who has logged out is one of them, though not while there is an answer to come.
    CHECK(second.ask({"RESET"}) == "RESET");
    CHECK(second.ask({"AUTH", "a", secret_of("a")}) == "OK");
    CHECK(first.ask({"PING"}) == "PONG");
    CHECK(fixture.server->metrics().refused == 1);
}

TEST_CASE("users: a stranger has no more than a few KiB of replies held") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"}});
    std::string hellos;
    for (int i = 0; i < 200; ++i) {
        hellos += request({"HELLO"});
    }
    std::vector<Client> strangers;
    for (int i = 0; i < 20; ++i) {
        strangers.emplace_back(fixture.path);
        strangers.back().send_without_waiting(hellos, 1'000'000);
    }
    Client a = fixture.client("a");
    for (int i = 0; i < 50; ++i) {  // many rounds of the reactor's
        CHECK(a.ask({"PING"}) == "PONG");
        CHECK(fixture.server->metrics().untaken_bytes < 20 * 5000);
    }
}

TEST_CASE("users: where replies take too much room, it is the user who holds most that goes") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"},
                          {.name = "b", .rights = "all", .namespaces = "*"}},
                         {.reply_bytes_max = 2'000'000, .replies_bytes_max = 4'000'000});
    Client b = fixture.client("b");
    CHECK(b.ask({"SET", "large", std::string(500'000, 'x')}) == "OK");
    constexpr int kOfB = 4;  // 2 MB, of which the socket takes 0.2
    for (int i = 0; i < kOfB; ++i) {
        b.send(request({"GET", "large"}));
    }
    while (fixture.server->metrics().untaken_bytes < 1'000'000) {
        std::this_thread::yield();
    }
    // Each of these holds less than that.
    std::vector<Client> of_a;
    for (int i = 0; i < 12; ++i) {
        of_a.push_back(fixture.client("a"));
        of_a.back().send(request({"GET", "large"}) + request({"GET", "large"}));
    }
    while (fixture.server->metrics().connections == 13) {
        std::this_thread::yield();
    }
    for (int i = 0; i < kOfB; ++i) {
        CHECK(b.reply().size() == 500'002);
    }
}

TEST_CASE("users: scans take turns by user, and hold up no claims") {
    std::atomic<bool> held = true;
    std::atomic<int> begun = 0;
    std::string order;
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "a"},
                          {.name = "b", .rights = "all", .namespaces = "b"}});
    fixture.store.before_scan = [&](const ScanOptions& options) {
        order += options.ns;  // one at a time
        ++begun;
        held.wait(true);
    };
    Client b = fixture.client("b");
    Client other_b = fixture.client("b");
    std::vector<Client> of_a;
    const std::uint64_t before = fixture.server->metrics().requests;
    constexpr int kScans = 8;
    for (int i = 0; i < kScans; ++i) {
        of_a.push_back(fixture.client("a"));
        of_a.back().send(request({"DEDUP.SCAN", "0", "NS", "a"}));
    }
    while (fixture.server->metrics().requests < before + 2 * kScans || begun == 0) {
        std::this_thread::yield();
    }
    b.send(request({"DEDUP.SCAN", "0", "NS", "b"}));
    while (fixture.server->metrics().requests < before + 2 * kScans + 1) {
        std::this_thread::yield();
    }
    // Behind all scans, and done before any of them: so they all wait by now.
    CHECK(other_b.ask({"DEDUP.CLAIM", "k", "NS", "b"}).find("claimed") != std::string::npos);
    CHECK(order == "a");
    held = false;
    held.notify_all();
    CHECK(b.reply() != "EOF");
    for (Client& client : of_a) {
        CHECK(client.reply() != "EOF");
    }
    CHECK(order == "aabaaaaaa");
}

TEST_CASE("users: an address of a Unix socket may say who one is") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "a"}});
    const RemoteOptions options{.password = secret_of("a")};
    auto store = open_remote("unix:" + fixture.path + "?user=a", options);
    REQUIRE_MESSAGE(store.has_value(), store.error().message);
    CHECK((*store)->head({"a", "k"}).has_value());
    CHECK_FALSE((*store)->head({"b", "k"}).has_value());
    for (const std::string_view wrong : {"", "?user=b", "?user=a&user=a", "?user=", "?user=%4"}) {
        const auto refused = open_remote("unix:" + fixture.path + std::string(wrong), options);
        REQUIRE_FALSE(refused.has_value());
        CHECK_MESSAGE(refused.error().code == Code::invalid_argument, wrong);
    }
}

}  // namespace
}  // namespace dedup::test
