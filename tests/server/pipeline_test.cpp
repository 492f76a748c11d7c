// What stands behind a request that waits, and what becomes of requests whose client has gone, that
// are refused, that are large, or that the server's end finds under way.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

struct Served {
    explicit Served(ServerOptions options = {}) {
        options.unix_path = path;
        auto started = Server::start(*store, std::move(options));
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
    }
    void wait_for_connections(std::uint64_t count) const {
        while (server->metrics().connections != count) {
            std::this_thread::yield();
        }
    }

    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    std::unique_ptr<StreamStore> store = make_memory_store();
    std::unique_ptr<Server> server;
};

TEST_CASE("pipeline: nothing overtakes a claim that waits") {
    Served served;
    Client holder(served.path);
    CHECK(holder.ask({"DEDUP.CLAIM", "a"}).starts_with("['outcome' 'claimed'"));
    Client client(served.path);
    client.send(request({"DEDUP.CLAIM", "a", "WAIT", "200"}) + request({"DEDUP.LOOKUP", "a"}) +
                request({"DEDUP.CLAIM", "b"}) + request({"DEDUP.STATS"}) +
                request({"DEDUP.CLAIM", "a", "WAIT", "100"}) + request({"ECHO", "last"}));
    CHECK(client.reply().starts_with("['outcome' 'in_flight'"));
    CHECK(client.reply().starts_with("['outcome' 'in_flight'"));
    CHECK(client.reply().starts_with("['outcome' 'claimed'"));
    CHECK(client.reply().contains("'store_id'"));
    CHECK(client.reply().starts_with("['outcome' 'in_flight'"));
    CHECK(client.reply() == "'last'");
}

TEST_CASE("pipeline: what waits in any order holds up nothing, and says what it is about") {
    Served served({.pipeline_max = 2});
    Client holder(served.path);
    Client client(served.path);
    for (const char* const key : {"a", "b", "c"}) {
        CHECK(holder.ask({"DEDUP.CLAIM", key, "NS", "n"}).starts_with("['outcome' 'claimed'"));
        client.send(request({"DEDUP.WAIT", key, "1000000", "NS", "n", "ORDER", "ANY"}));
    }
    // Also beside one whose order counts.
    client.send(request({"DEDUP.CLAIM", "a", "NS", "n", "WAIT", "100"}) + request({"PING"}));
    CHECK(client.reply().starts_with("['outcome' 'in_flight'"));
    CHECK(client.reply() == "PONG");
    CHECK(client.ask({"DEDUP.WAIT", "none", "1000000", "ORDER", "ANY"}) == "['default' 'none']");
    for (const char* const key : {"c", "a"}) {
        CHECK(holder.ask({"DEDUP.COMPLETE", key, "CURRENT", "r", "NS", "n"}).contains("'r'"));
        CHECK(client.reply() == "['n' '" + std::string(key) + "']");
    }
    CHECK(client.ask({"DEDUP.WAIT", "b", "1", "ORDER", "ANY", "NS", "n"}) == "['n' 'b']");
    CHECK(client.ask({"DEDUP.WAIT", "b", "1", "ORDER", "FIRST"}) ==
          "-ERR FIRST is not ANY, for ORDER");
    CHECK(client.ask({"DEDUP.LOOKUP", "b", "ORDER", "ANY"}).starts_with("-ERR ORDER is not"));
    std::thread stopper([&] { served.server->stop(); });
    CHECK(client.reply() == "['n' 'b']");
    CHECK(client.reply() == "EOF");
    stopper.join();
}

TEST_CASE("pipeline: what waits in any order leaves half of the room to others") {
    Served served({.requests_max = 8});
    Client client(served.path);
    CHECK(client.ask({"DEDUP.CLAIM", "a"}).starts_with("['outcome' 'claimed'"));
    for (int i = 0; i < 5; ++i) {
        client.send(request({"DEDUP.WAIT", "a", "1000000", "ORDER", "ANY"}));
    }
    CHECK(client.reply() == "['default' 'a' 'BUSY']");
    CHECK(client.ask({"DEDUP.LOOKUP", "a"}).starts_with("['outcome' 'in_flight'"));
    std::vector<Client> others;  // who take the rest
    for (int i = 0; i < 4; ++i) {
        others.emplace_back(served.path).send(request({"DEDUP.WAIT", "a", "1000000"}));
    }
    while (!client.ask({"PING"}).starts_with("-BUSY 8 requests are under way")) {
        std::this_thread::yield();
    }
    CHECK(client.ask({"DEDUP.WAIT", "b", "1", "NS", "n", "ORDER", "ANY"}) == "['n' 'b' 'BUSY']");
    CHECK(client.ask({"DEDUP.WAIT", "b", "1"}).starts_with("-BUSY"));
    CHECK(Cache(*served.store).release_current("a").has_value());
    for (int i = 0; i < 4; ++i) {
        CHECK(client.reply() == "['default' 'a']");
    }
}

TEST_CASE("pipeline: what waits in any order is not waited for by who quits, or makes no sense") {
    for (const bool quits : {false, true}) {
        CAPTURE(quits);
        Served served;
        Client client(served.path);
        CHECK(client.ask({"DEDUP.CLAIM", "a"}).starts_with("['outcome' 'claimed'"));
        client.send(request({"DEDUP.WAIT", "a", "1000000", "ORDER", "ANY"}) +
                    request({"DEDUP.CLAIM", "a", "WAIT", "50"}) +
                    (quits ? request({"QUIT"}) : "*x\r\n"));
        CHECK(client.reply().starts_with("['outcome' 'in_flight'"));
        CHECK(client.reply().starts_with(quits ? "OK" : "-ERR Protocol error"));
        CHECK(client.reply() == "EOF");
    }
}

TEST_CASE("pipeline: what waits in any order is answered beside a claim that waits on") {
    Served served;
    Client holder(served.path);
    Client client(served.path);
    for (const char* const key : {"a", "b", "c"}) {
        CHECK(holder.ask({"DEDUP.CLAIM", key}).starts_with("['outcome' 'claimed'"));
    }
    client.send(request({"DEDUP.WAIT", "a", "1000000", "ORDER", "ANY"}) +
                request({"DEDUP.CLAIM", "c", "WAIT", "1000000"}) +
                request({"DEDUP.WAIT", "b", "1000000", "ORDER", "ANY"}));
    for (const char* const key : {"b", "a"}) {
        CHECK(holder.ask({"DEDUP.RELEASE", key, "CURRENT"}).contains("'released'"));
        CHECK(client.reply() == "['default' '" + std::string(key) + "']");
    }
    CHECK(holder.ask({"DEDUP.RELEASE", "c", "CURRENT"}).contains("'released'"));
    CHECK(client.reply().starts_with("['outcome' 'claimed'"));
}

TEST_CASE("pipeline: a client that has gone does not get the claim that it waited for") {
    // Over TCP the server learns of its end alone, and not whether anybody still reads.
    for (const bool tcp : {false, true}) {
        CAPTURE(tcp);
        Served served({.tcp = "127.0.0.1:0", .pipeline_max = 2});
        Client holder(served.path);
        CHECK(holder.ask({"DEDUP.CLAIM", "a"}).starts_with("['outcome' 'claimed'"));
        // The end also lies behind requests that the server does not read yet.
        for (const int behind : {0, 5}) {
            Client gone = tcp ? Client(served.server->tcp_port()) : Client(served.path);
            gone.send(request({"PING"}) + request({"DEDUP.CLAIM", "a", "WAIT", "600000"}) +
                      request({"DEDUP.WAIT", "a", "2000000000"}));
            for (int i = 0; i < behind; ++i) {
                gone.send(request({"DEDUP.WAIT", "a", "2000000000"}));
            }
            CHECK(gone.reply() == "PONG");
        }
        served.wait_for_connections(1);
        CHECK(holder.ask({"DEDUP.RELEASE", "a", "CURRENT"}).contains("'released'"));
        CHECK(holder.ask({"DEDUP.CLAIM", "a"}).starts_with("['outcome' 'claimed'"));
        served.server->stop();  // which waits for what is under way
    }
}

TEST_CASE("pipeline: a client that sends no more gets all replies, and waits for nobody") {
    for (const bool tcp : {false, true}) {
        CAPTURE(tcp);
        Served served({.tcp = "127.0.0.1:0"});
        Client holder(served.path);
        CHECK(holder.ask({"DEDUP.CLAIM", "a"}).starts_with("['outcome' 'claimed'"));
        Client client = tcp ? Client(served.server->tcp_port()) : Client(served.path);
        client.send(request({"PING"}) + request({"DEDUP.STATS"}) + request({"DEDUP.CLAIM", "b"}) +
                    request({"DEDUP.CLAIM", "a", "WAIT", "600000"}) +
                    request({"DEDUP.WAIT", "a", "600000"}) + request({"SET", "k", "v"}));
        client.end_sending();
        CHECK(client.reply() == "PONG");
        CHECK(client.reply().contains("'store_id'"));
        CHECK(client.reply().starts_with("['outcome' 'claimed'"));
        CHECK(client.reply().starts_with("-ERR the client sends no more"));
        CHECK(client.reply().starts_with("-ERR the client sends no more"));
        CHECK(client.reply() == "OK");
        CHECK(client.reply() == "EOF");
    }
}

TEST_CASE("pipeline: of many that wait for a key the one that came first gets it") {
    Served served;
    Client holder(served.path);
    CHECK(holder.ask({"DEDUP.CLAIM", "k", "OWNER", "holder"}).starts_with("['outcome' 'claimed'"));
    constexpr int kWaiting = 12;
    std::vector<Client> waiting;
    for (int i = 0; i < kWaiting; ++i) {
        const std::uint64_t before = served.server->metrics().requests;
        waiting.emplace_back(served.path);
        waiting.back().send(
            request({"DEDUP.CLAIM", "k", "OWNER", std::to_string(i), "WAIT", "600000"}));
        while (served.server->metrics().requests == before) {
            std::this_thread::yield();
        }
    }
    // Nor is one that comes with the release before them.
    Client late(served.path);
    late.send(request({"DEDUP.RELEASE", "k", "CURRENT"}) +
              request({"DEDUP.CLAIM", "k", "OWNER", "late", "WAIT", "600000"}));
    for (int i = 0; i <= kWaiting; ++i) {
        std::string found = holder.ask({"DEDUP.LOOKUP", "k"});
        while (found.contains("'absent'") || found.contains("'holder'")) {
            found = holder.ask({"DEDUP.LOOKUP", "k"});
        }
        const std::string owner = i == kWaiting ? "late" : std::to_string(i);
        CHECK_MESSAGE(found.contains("'owner' '" + owner + "'"), found);
        CHECK(holder.ask({"DEDUP.RELEASE", "k", "CURRENT"}).contains("'released'"));
    }
}

TEST_CASE("pipeline: a claim that loses to another writer waits for it, and keeps its place") {
    const auto inner = make_memory_store();
    HookedStore store(*inner);
    Cache other(*inner);
    bool raced = false;
    store.before_append = [&] {
        if (!std::exchange(raced, true)) {
            CHECK(std::holds_alternative<Claimed>(*other.claim("k", {.owner = "other"})));
        }
    };
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    const auto server = Server::start(store, {.unix_path = path}).value();
    Client client(path);
    client.send(request({"DEDUP.CLAIM", "k", "WAIT", "600000"}) + request({"SET", "x", "v"}) +
                request({"DEDUP.WAIT", "none", "1", "ORDER", "ANY"}) + request({"GET", "x"}) +
                request({"DEDUP.CLAIM", "l"}));
    Client observer(path);
    while (observer.ask({"GET", "x"}) != "'v'") {
        std::this_thread::yield();
    }
    CHECK(other.release_current("k").has_value());
    CHECK(client.reply().starts_with("['outcome' 'claimed'"));
    CHECK(client.reply() == "OK");
    CHECK(client.reply() == "['default' 'none']");
    CHECK(client.reply() == "'v'");
    CHECK(client.reply().starts_with("['outcome' 'claimed'"));
    CHECK(client.ask({"PING"}) == "PONG");  // nothing is counted that has been answered
}

TEST_CASE("pipeline: one command may read more than a round") {
    Served served;
    Client client(served.path);
    const std::string value(2 * 1024 * 1024, 'v');
    CHECK(client.ask({"SET", "k", value}) == "OK");
    std::string many = "*101\r\n$6\r\nEXISTS\r\n";
    for (int i = 0; i < 100; ++i) {
        many += "$1\r\nk\r\n";
    }
    client.send(many + request({"PING"}));
    CHECK(client.reply() == "100");
    CHECK(client.reply() == "PONG");
    std::string values = "*201\r\n$4\r\nMGET\r\n";
    for (int i = 0; i < 200; ++i) {
        values += "$1\r\nk\r\n";
    }
    client.send(values);
    CHECK(client.reply().contains("too long"));
    client.ask({"MULTI"});
    client.send(values);
    CHECK(client.reply() == "QUEUED");
    CHECK(client.ask({"EXEC"}).contains("too long"));
}

TEST_CASE("pipeline: a transaction of which something was refused is refused") {
    Served served({.requests_max = 1});
    Client holder(served.path);
    CHECK(holder.ask({"DEDUP.CLAIM", "a"}).starts_with("['outcome' 'claimed'"));
    Client waits(served.path);
    waits.send(request({"DEDUP.CLAIM", "a", "WAIT", "600000"}));
    Client client(served.path);
    while (!client.ask({"GET", "k"}).starts_with("-BUSY")) {
        std::this_thread::yield();
    }
    CHECK(client.ask({"SELECT", "3"}) == "OK");
    CHECK(client.ask({"MULTI"}) == "OK");
    CHECK(client.ask({"SET", "debit", "1"}).starts_with("-BUSY"));
    waits.end_sending();
    { const Client closed = std::move(waits); }
    while (client.ask({"SET", "credit", "1"}) != "QUEUED") {
        std::this_thread::yield();
    }
    CHECK(client.ask({"EXEC"}).starts_with("-EXECABORT"));
    CHECK(client.ask({"EXISTS", "credit"}) == "0");

    client.ask({"MULTI"});
    std::string values = "*5001\r\n$4\r\nMGET\r\n";
    for (int i = 0; i < 5000; ++i) {
        const std::string key = std::to_string(i);
        values += "$" + std::to_string(key.size()) + "\r\n" + key + "\r\n";
    }
    client.send(values);
    CHECK(client.reply().contains("4096 keys"));
    CHECK(client.ask({"EXEC"}).starts_with("-EXECABORT"));
}

TEST_CASE("pipeline: the server's end answers what is under way to clients that read slowly") {
    Served served({.stop_timeout = std::chrono::minutes{5}});
    Client client(served.path);
    const std::string value(1024 * 1024, 'v');
    CHECK(client.ask({"SET", "k", value}) == "OK");
    std::string gets;
    for (int i = 0; i < 30; ++i) {
        gets += request({"GET", "k"});
    }
    client.send(gets);
    CHECK(client.reply().size() == value.size() + 2);  // all of them have come
    std::thread stopper([&] { served.server->stop(); });
    for (int i = 1; i < 30; ++i) {
        CHECK(client.reply().size() == value.size() + 2);
    }
    CHECK(client.reply() == "EOF");
    stopper.join();
}

}  // namespace
}  // namespace dedup::test
