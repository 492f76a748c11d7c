// The server in a process with its clients: order, sharing of flushes, bounds, and the end.
#include "dedup/server.hpp"

#include <doctest/doctest.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/memory_store.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

// An append stops here until it is let on.
class Gate {
  public:
    void close() {
        const std::lock_guard lock(mutex_);
        open_ = false;
    }
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }
    void pass() {
        std::unique_lock lock(mutex_);
        ++arrived_;
        changed_.notify_all();
        changed_.wait(lock, [this] { return open_; });
    }
    void wait_for_arrival(int count) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return arrived_ >= count; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = true;
    int arrived_ = 0;
};

struct Fixture {
    explicit Fixture(ServerOptions options = {}) {
        store.before_append = [this] { gate.pass(); };
        options.unix_path = path;
        auto started = Server::start(store, std::move(options));
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
    }
    // Until so many requests have come in.
    void wait_for_requests(std::uint64_t count) const {
        while (server->metrics().requests < count) {
            std::this_thread::yield();
        }
    }
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    ManualClock clock{1'000'000};
    std::unique_ptr<StreamStore> inner = make_memory_store(clock.clock());
    Gate gate;
    HookedStore store{*inner};
    std::unique_ptr<Server> server;
};

TEST_CASE("server: what all connections ask during one append is the next one") {
    Fixture fixture;
    constexpr int kClients = 40;
    std::vector<Client> clients;
    for (int i = 0; i < kClients; ++i) {
        clients.emplace_back(fixture.path);
    }
    fixture.gate.close();
    clients[0].send(request({"DEDUP.CLAIM", "first"}));
    fixture.gate.wait_for_arrival(1);
    for (int i = 1; i < kClients; ++i) {
        const std::string key = "k" + std::to_string(i);
        clients[static_cast<std::size_t>(i)].send(
            i % 2 == 0 ? request({"SET", key, "v"})
                       : request({"DEDUP.CLAIM", key, "NS", "n" + std::to_string(i % 5)}));
    }
    fixture.wait_for_requests(kClients);
    fixture.gate.open();
    for (Client& client : clients) {
        const std::string reply = client.reply();
        CHECK((reply == "OK" || reply.starts_with("['outcome' 'claimed'")));
    }
    fixture.server->stop();
    CHECK(fixture.store.appends == 2);
}

TEST_CASE("server: replies come in the order of the requests, and each sees the ones before") {
    Fixture fixture;
    Client client(fixture.path);
    std::string pipeline;
    std::vector<std::string> expected;
    for (int i = 0; i < 200; ++i) {
        const std::string key = "k" + std::to_string(i % 7);
        const std::string value = std::to_string(i);
        pipeline += request({"SET", key, value}) + request({"GET", key}) + request({"PING"}) +
                    request({"DEL", key, key}) + request({"EXISTS", key}) + request({"NO"});
        expected.insert(expected.end(), {"OK", "'" + value + "'", "PONG", "1", "0", "-"});
    }
    std::thread sender([&] { client.send(pipeline); });
    for (const std::string& reply : expected) {
        CHECK(client.reply().substr(0, reply.size()) == reply);
    }
    sender.join();
}

TEST_CASE("server: of many clients that claim one key, one wins") {
    Fixture fixture;
    constexpr int kThreads = 8;
    constexpr int kKeys = 100;
    std::vector<std::atomic<int>> winners(kKeys);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&] {
            Client client(fixture.path);
            std::string pipeline;
            for (int key = 0; key < kKeys; ++key) {
                pipeline += key % 2 == 0 ? request({"DEDUP.CLAIM", std::to_string(key)})
                                         : request({"SET", std::to_string(key), "v", "NX"});
            }
            client.send(pipeline);
            for (int key = 0; key < kKeys; ++key) {
                const std::string reply = client.reply();
                const bool won = reply == "OK" || reply.starts_with("['outcome' 'claimed'");
                winners[static_cast<std::size_t>(key)] += won ? 1 : 0;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(std::ranges::all_of(winners, [](const auto& count) { return count == 1; }));
}

TEST_CASE("server: requests of several connections happen in one order") {
    Fixture fixture;
    Client first(fixture.path);
    Client one(fixture.path);
    Client other(fixture.path);
    // All of these are there when the next group is made.
    fixture.gate.close();
    first.send(request({"SET", "k", "v"}));
    fixture.gate.wait_for_arrival(1);
    one.send(request({"SET", "x", "v"}) + request({"GET", "y"}));
    other.send(request({"SET", "y", "v"}) + request({"GET", "x"}));
    fixture.wait_for_requests(5);
    fixture.gate.open();
    CHECK(one.reply() == "OK");
    CHECK(other.reply() == "OK");
    // Whichever was first, the other one saw what it did.
    const std::string y = one.reply();
    const std::string x = other.reply();
    CHECK((x == "'v'" || y == "'v'"));
}

TEST_CASE("server: an append that loses a race is decided again") {
    Fixture fixture;
    Client client(fixture.path);
    CHECK(client.ask({"SET", "k", "old", "PX", "10"}) == "OK");
    // A sweep takes the stream away between the look at its head and the append.
    fixture.clock.advance(10'000);
    bool swept = false;
    fixture.store.before_append = [&] {
        if (!swept) {
            swept = true;
            REQUIRE(fixture.inner->sweep().has_value());
        }
    };
    CHECK(client.ask({"SET", "k", "new", "NX"}) == "OK");
    CHECK(client.ask({"GET", "k"}) == "'new'");
    CHECK(swept);
}

TEST_CASE("server: what the store refuses is the client's error, and the next one is carried out") {
    Fixture fixture;
    Client client(fixture.path);
    fixture.store.fail_append = [](const Append& item) -> std::optional<Code> {
        return item.record.key == "bad" ? std::optional(Code::outcome_unknown) : std::nullopt;
    };
    client.send(request({"SET", "bad", "v"}) + request({"DEDUP.CLAIM", "good"}) +
                request({"SET", "good", "v"}));
    CHECK(client.reply() == "-OUTCOME_UNKNOWN injected");
    CHECK(client.reply().starts_with("['outcome' 'claimed'"));
    CHECK(client.reply() == "OK");
}

TEST_CASE("server: a full queue answers BUSY, and goes on") {
    Fixture fixture({.requests_max = 10});
    Client client(fixture.path);
    Client other(fixture.path);
    fixture.gate.close();
    std::string pipeline;
    for (int i = 0; i < 30; ++i) {
        pipeline += request({"SET", "k" + std::to_string(i), "v"});
    }
    client.send(pipeline);
    fixture.wait_for_requests(30);
    other.send(request({"SET", "x", "v"}));
    CHECK(other.reply().starts_with("-BUSY "));
    fixture.gate.open();
    int done = 0;
    int busy = 0;
    for (int i = 0; i < 30; ++i) {
        const std::string reply = client.reply();
        done += reply == "OK" ? 1 : 0;
        busy += reply.starts_with("-BUSY ") ? 1 : 0;
    }
    CHECK(done == 10);
    CHECK(busy == 20);
    CHECK(fixture.server->metrics().busy == 21);
    CHECK(other.ask({"SET", "x", "v"}) == "OK");
}

TEST_CASE("server: a connection has so many requests under way, and its next ones wait") {
    Fixture fixture({.pipeline_max = 8});
    Client client(fixture.path);
    std::string pipeline;
    for (int i = 0; i < 2000; ++i) {
        pipeline += request({"SET", "k", std::to_string(i)});
    }
    std::thread sender([&] { client.send(pipeline); });
    for (int i = 0; i < 2000; ++i) {
        CHECK(client.reply() == "OK");
    }
    sender.join();
    CHECK(client.ask({"GET", "k"}) == "'1999'");
}

TEST_CASE("server: who takes no replies gets no more carried out, and holds up nobody") {
    Fixture fixture({.reply_bytes_max = 64 * 1024});
    Client greedy(fixture.path);
    Client other(fixture.path);
    const std::string value(1024 * 1024, 'v');
    CHECK(greedy.ask({"SET", "big", value}) == "OK");
    constexpr int kAsked = 50;
    for (int i = 0; i < kAsked; ++i) {
        greedy.send(request({"GET", "big"}));
    }
    CHECK(other.ask({"SET", "other", "v"}) == "OK");
    for (int i = 0; i < kAsked; ++i) {
        CHECK(greedy.reply() == "'" + value + "'");
    }
    CHECK(greedy.ask({"PING"}) == "PONG");
}

TEST_CASE("server: who leaves a request unfinished, or takes no replies, is disconnected") {
    Fixture fixture({.stall_timeout = 40ms});
    Client half(fixture.path);
    Client idle(fixture.path);
    half.send("*2\r\n$3\r\nGE");
    CHECK(half.reply() == "EOF");
    CHECK(idle.ask({"PING"}) == "PONG");

    Client deaf(fixture.path);
    Cache cache(*fixture.inner, {.ns = "redis:0"});
    REQUIRE(cache.remember("big", std::string(4 * 1024 * 1024, 'v')).has_value());
    CHECK(deaf.ask({"PING"}) == "PONG");
    const std::uint64_t connections = fixture.server->metrics().connections;
    deaf.send(request({"GET", "big"}));
    while (fixture.server->metrics().connections == connections) {
        std::this_thread::yield();
    }
    CHECK(idle.ask({"PING"}) == "PONG");
}

TEST_CASE("server: no more connections than allowed, and room again when one has gone") {
    Fixture fixture({.connections_max = 2});
    Client first(fixture.path);
    CHECK(first.ask({"PING"}) == "PONG");
    {
        Client second(fixture.path);
        CHECK(second.ask({"PING"}) == "PONG");
        Client third(fixture.path);
        CHECK(third.reply() == "-ERR max number of clients reached");
        CHECK(third.reply() == "EOF");
    }
    while (fixture.server->metrics().connections > 1) {
        std::this_thread::yield();
    }
    Client again(fixture.path);
    CHECK(again.ask({"PING"}) == "PONG");
}

TEST_CASE("server: garbage gets one error behind the replies that are due, and the end") {
    Fixture fixture;
    Client client(fixture.path);
    client.send(request({"SET", "k", "v"}) + "*1\r\nGARBAGE\r\n" + request({"PING"}));
    CHECK(client.reply() == "OK");
    CHECK(client.reply().starts_with("-ERR Protocol error: "));
    CHECK(client.reply() == "EOF");

    Client browser(fixture.path);
    browser.send("POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k evil\r\n");
    CHECK(browser.reply() == "-ERR this is no HTTP server");
    CHECK(browser.reply() == "EOF");
    Client check(fixture.path);
    CHECK(check.ask({"GET", "k"}) == "'v'");
}

TEST_CASE("server: what a client asked before it left is carried out") {
    Fixture fixture;
    {
        Client client(fixture.path);
        client.send(request({"SET", "k", "v"}));
        client.end_sending();
        CHECK(client.reply() == "OK");
        CHECK(client.reply() == "EOF");
    }
    fixture.gate.close();
    {
        Client client(fixture.path);
        client.send(request({"SET", "a", "v"}) + request({"SET", "b", "v"}));
        fixture.gate.wait_for_arrival(2);
    }
    fixture.gate.open();
    Client check(fixture.path);
    while (check.ask({"MGET", "k", "a", "b"}) != "['v' 'v' 'v']") {
    }
}

// A record as a client of ours sends it: that of a claim.
std::string record_of_claim(Client& client, const std::string& key) {
    REQUIRE(client.ask({"DEDUP.CLAIM", key}).starts_with("['outcome' 'claimed'"));
    const std::string heads = client.ask({"DEDUP.HEADS", "default", key});
    const std::size_t begin = heads.find('\'') + 1;
    return heads.substr(begin, heads.rfind('\'') - begin);
}

TEST_CASE("server: a client that gives two appends one id harms nobody") {
    Fixture fixture;
    Client client(fixture.path);
    const std::string one = record_of_claim(client, "one");
    const std::string two = record_of_claim(client, "two");
    client.send(request({"DEDUP.APPEND", "EACH", "same", "0", "1", one}) +
                request({"DEDUP.APPEND", "EACH", "same", "0", "2", two}));
    for (int i = 0; i < 2; ++i) {
        CHECK(client.reply().starts_with("[1000000 "));
    }
    // Until the replies to these are forgotten.
    constexpr int kAppends = 17'000;
    constexpr int kTogether = 500;
    for (int i = 0; i < kAppends; i += kTogether) {
        std::string pipeline;
        for (int j = 0; j < kTogether; ++j) {
            const std::string id = std::to_string(i + j);
            pipeline += request({"DEDUP.APPEND", "EACH", id, "0", "999999", one});
        }
        client.send(pipeline);
        for (int j = 0; j < kTogether; ++j) {
            REQUIRE(client.reply().find("SEQUENCE_CONFLICT") != std::string::npos);
        }
    }
    CHECK(client.ask({"PING"}) == "PONG");
}

TEST_CASE("server: a client of ours is told the time, whatever comes of its request") {
    Fixture fixture;
    Client client(fixture.path);
    const std::string record = record_of_claim(client, "k");
    for (const char* const mode : {"EACH", "ATOMIC"}) {
        const std::string refused = client.ask({"DEDUP.APPEND", mode, mode, "0", "999999", record});
        CHECK_MESSAGE(refused.starts_with("[1000000 "), refused);
    }
    fixture.store.fail_heads = true;
    CHECK(client.ask({"DEDUP.HEADS", "default", "k"}).starts_with("[1000000 "));
    CHECK(client.ask({"DEDUP.APPEND", "EACH", "x", "0", "0", record}).starts_with("[1000000 "));
}

TEST_CASE("server: who connects does not wait for what others scan") {
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    Gate gate;
    // The clock hangs where a scan looks at it.
    const auto store = make_memory_store([&gate] {
        std::array<char, 16> name{};
        ::pthread_getname_np(::pthread_self(), name.data(), name.size());
        if (std::string_view(name.data()) == "dedup-chores") {
            gate.pass();
        }
        return std::int64_t{1'000'000};
    });
    const auto server = Server::start(*store, {.unix_path = path}).value();
    Client scanning(path);
    gate.close();
    scanning.send(request({"SCAN", "0"}));
    gate.wait_for_arrival(1);
    Client client(path);
    const std::string told = client.ask({"DEDUP.STORE"});
    CHECK(told.starts_with("['version' 1 'store_id' '"));
    CHECK(told.find("now_ms") == std::string::npos);
    CHECK(client.ask({"DEDUP.STORE", "TIME"}).find("'now_ms' 1000000") != std::string::npos);
    CHECK(client.ask({"DEDUP.STORE", "NO"}).starts_with("-ERR syntax error"));
    gate.open();
    CHECK(scanning.reply() == "['0' []]");
}

TEST_CASE("server: a stop answers what is under way, and takes nothing more") {
    Fixture fixture;
    Client client(fixture.path);
    Client waiting(fixture.path);
    CHECK(waiting.ask({"DEDUP.CLAIM", "held"}).starts_with("['outcome' 'claimed'"));
    waiting.send(request({"DEDUP.WAIT", "held", "1000000"}));
    fixture.gate.close();
    client.send(request({"SET", "a", "v"}) + request({"SET", "b", "v"}));
    fixture.wait_for_requests(4);
    std::thread stopper([&] { fixture.server->stop(); });
    fixture.gate.wait_for_arrival(2);
    fixture.gate.open();
    CHECK(client.reply() == "OK");
    CHECK(client.reply() == "OK");
    CHECK(client.reply() == "EOF");
    CHECK(waiting.reply().starts_with("['outcome' 'in_flight'"));
    CHECK(waiting.reply() == "EOF");
    stopper.join();
    CHECK(::access(fixture.path.c_str(), F_OK) != 0);
}

TEST_CASE("server: who waits for a key is told when it is answered, by whomever") {
    Fixture fixture;
    Client holder(fixture.path);
    Client waiter(fixture.path);
    Client claimer(fixture.path);
    CHECK(holder.ask({"DEDUP.CLAIM", "k"}).starts_with("['outcome' 'claimed'"));
    CHECK(holder.ask({"DEDUP.CLAIM", "c"}).starts_with("['outcome' 'claimed'"));
    waiter.send(request({"DEDUP.WAIT", "k", "1000000"}) + request({"PING"}));
    claimer.send(request({"DEDUP.CLAIM", "c", "WAIT", "1000000"}));
    fixture.wait_for_requests(5);
    CHECK(holder.ask({"DEDUP.COMPLETE", "k", "CURRENT", "r"}).find("'r'") != std::string::npos);
    CHECK(waiter.reply().find("'receipt' 'r'") != std::string::npos);
    CHECK(waiter.reply() == "PONG");
    CHECK(holder.ask({"DEDUP.RELEASE", "c", "CURRENT"}).find("'released'") != std::string::npos);
    CHECK(claimer.reply().starts_with("['outcome' 'claimed'"));
    CHECK(holder.ask({"DEDUP.WAIT", "c", "1"}).starts_with("['outcome' 'in_flight'"));
    // A lease that runs out ends the wait, and a claim takes over.
    CHECK(holder.ask({"DEDUP.CLAIM", "l", "LEASE", "10"}).starts_with("['outcome' 'claimed'"));
    claimer.send(request({"DEDUP.CLAIM", "l", "WAIT", "1000000"}));
    fixture.wait_for_requests(10);
    fixture.clock.advance(1'000);
    CHECK(claimer.reply().find("'attempt' 2") != std::string::npos);
}

TEST_CASE("server: a password is needed before anything else, and there is no room without it") {
    Fixture fixture({.password = "open sesame, please"});
    Client client(fixture.path);
    CHECK(client.ask({"GET", "k"}).starts_with("-NOAUTH "));
    CHECK(client.ask({"NO.SUCH"}).starts_with("-NOAUTH "));
    CHECK(client.ask({"AUTH", "open sesame, pleas"}).starts_with("-WRONGPASS "));
    CHECK(client.ask({"AUTH", "somebody", "open sesame, please"}).starts_with("-WRONGPASS "));
    CHECK(client.ask({"HELLO", "3"}).starts_with("-NOAUTH "));
    CHECK(client.ask({"AUTH", "open sesame, please"}) == "OK");
    CHECK(client.ask({"SET", "k", std::string(100'000, 'v')}) == "OK");
    CHECK(client.ask({"RESET"}) == "RESET");
    CHECK(client.ask({"GET", "k"}).starts_with("-NOAUTH "));
    CHECK(client.ask({"HELLO", "3", "AUTH", "default", "open sesame, please"})
              .starts_with("{'server'"));
    Client stranger(fixture.path);
    stranger.send("*2\r\n$3\r\nGET\r\n$100000\r\n");
    CHECK(stranger.reply().starts_with("-ERR Protocol error: "));
    CHECK(stranger.reply() == "EOF");
}

TEST_CASE("server: refuses to start where it cannot serve, and says what to do") {
    Fixture fixture;
    const auto start = [&](ServerOptions options) {
        const auto started = Server::start(fixture.store, std::move(options));
        REQUIRE(!started.has_value());
        return std::string(name(started.error().code)) + ": " + started.error().message;
    };
    CHECK(start({}).starts_with("invalid_argument: there is nowhere to listen"));
    CHECK(start({.unix_path = fixture.path}).starts_with("busy: another process listens at "));
    CHECK(start({.unix_path = std::string(200, 'x')}).find("at most 107") != std::string::npos);
    CHECK(start({.unix_path = fixture.directory.path()}).find("no socket") != std::string::npos);
    CHECK(start({.tcp = "0.0.0.0:0"}).find("needs a password") != std::string::npos);
    CHECK(start({.tcp = "127.0.0.1:0", .password = "15 bytes of it."}).find("16 to 512") !=
          std::string::npos);
    CHECK(start({.tcp = "127.0.0.1:0", .http = "127.0.0.1:0", .http_token = "t"}).find("HTTP") !=
          std::string::npos);
    CHECK(start({.tcp = "127.0.0.1"}).find("host:port") != std::string::npos);
    CHECK(start({.tcp = "127.0.0.1:0", .pipeline_max = 0}).find("is 0") != std::string::npos);
    const auto tcp = Server::start(fixture.store, {.tcp = "127.0.0.1:0"});
    REQUIRE(tcp.has_value());
    const std::string taken = "127.0.0.1:" + std::to_string((*tcp)->tcp_port());
    CHECK(start({.tcp = taken}).starts_with("busy: "));
}

}  // namespace
}  // namespace dedup::test
