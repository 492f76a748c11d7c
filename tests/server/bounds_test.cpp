// The server's bounds on memory and time, where clients, disks and processes do not behave.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

struct Bounded {
    explicit Bounded(ServerOptions options = {}) {
        store.before_append = [this] {
            ++appending;
            while (hangs) {
                std::this_thread::sleep_for(1ms);
            }
        };
        options.unix_path = path;
        auto started = Server::start(store, std::move(options));
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
    }
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    std::unique_ptr<StreamStore> inner = make_memory_store();
    HookedStore store{*inner};
    std::atomic<bool> hangs = false;  // the store, in its appends
    std::atomic<int> appending = 0;   // appends that have begun
    std::unique_ptr<Server> server;
};

template <class Condition>
void wait_until(const Condition& condition) {
    while (!condition()) {
        std::this_thread::sleep_for(1ms);
    }
}

// Many that ask for much and take nothing.
std::vector<Client> gluttons(const Bounded& bounded, int count, int requests) {
    std::vector<Client> clients;
    for (int i = 0; i < count; ++i) {
        clients.emplace_back(bounded.path);
        for (int j = 0; j < requests; ++j) {
            clients.back().send(request({"GET", "large"}));
        }
    }
    return clients;
}

constexpr std::size_t kLarge = 500'000;

TEST_CASE(
    "bounds: clients that take no replies are disconnected when they hold too much together") {
    // Guards against a server whose memory many slow readers use up, each within its own bound.
    Bounded bounded({.reply_bytes_max = 2'000'000, .replies_bytes_max = 4'000'000});
    Client good(bounded.path);
    CHECK(good.ask({"SET", "large", std::string(kLarge, 'x')}) == "OK");
    const auto bad = gluttons(bounded, 20, 20);
    wait_until([&] { return bounded.server->metrics().connections < 15; });
    for (int i = 0; i < 20; ++i) {
        CHECK(good.ask({"GET", "large"}).size() == kLarge + 2);
        CHECK(bounded.server->metrics().untaken_bytes <= 150'000'000);
    }
}

TEST_CASE("bounds: the server's end keeps them, too") {
    // Guards against an end that first makes all replies that anybody was ever due.
    Bounded bounded(
        {.reply_bytes_max = 1'000'000, .replies_bytes_max = 4'000'000, .stop_timeout = 100ms});
    CHECK(Client(bounded.path).ask({"SET", "large", std::string(kLarge, 'x')}) == "OK");
    bounded.hangs = true;
    const Client writer(bounded.path);
    writer.send(request({"SET", "k", "v"}));
    wait_until([&] { return bounded.server->metrics().requests == 2; });
    const auto bad = gluttons(bounded, 6, 200);
    wait_until([&] { return bounded.server->metrics().requests == 1202; });
    bounded.hangs = false;
    std::atomic<bool> ended = false;
    std::uint64_t most = 0;
    std::thread stopper([&] {
        bounded.server->stop();
        ended = true;
    });
    while (!ended) {
        most = std::max(most, bounded.server->metrics().untaken_bytes);
    }
    stopper.join();
    CHECK(most <= 150'000'000);  // the bound and what a round reads, of 600 million
}

TEST_CASE("bounds: a request is counted once") {
    Bounded bounded({.request_bytes_max = 100'000});
    Client client(bounded.path);
    CHECK(client.ask({"SET", "k", std::string(60'000, 'x')}) == "OK");
    CHECK(client.ask({"STRLEN", "k"}) == "60000");
}

TEST_CASE("bounds: what waits for its EXEC counts, and does not wait for ever") {
    // Guards against open transactions as memory that nobody counts.
    Bounded bounded({.request_bytes_max = 1'000'000});
    std::vector<Client> clients;
    std::string reply = "QUEUED";
    const std::string value(50'000, 'x');
    while (reply == "QUEUED" && clients.size() < 100) {
        clients.emplace_back(bounded.path);
        CHECK(clients.back().ask({"MULTI"}) == "OK");
        reply = clients.back().ask({"SET", "k", value});
    }
    CHECK(reply.starts_with("-BUSY"));
    CHECK(clients.size() > 15);
    CHECK(clients.back().ask({"EXEC"}).starts_with("-EXECABORT"));
    CHECK(clients.front().ask({"EXEC"}) == "[OK]");
    CHECK(clients.front().ask({"MULTI"}) == "OK");
    CHECK(clients.front().ask({"SET", "k", value}) == "QUEUED");
    CHECK(clients.front().ask({"DISCARD"}) == "OK");
    CHECK(clients.back().ask({"SET", "k", value}) == "OK");
    clients.clear();
    // Small commands take memory, too.
    int queued = 0;
    for (int i = 0; i < 3; ++i) {
        clients.emplace_back(bounded.path);
        CHECK(clients.back().ask({"MULTI"}) == "OK");
        for (int j = 0; j < 1000; ++j) {
            queued += clients.back().ask({"SET", "k", "v"}) == "QUEUED" ? 1 : 0;
        }
    }
    CHECK(queued > 1000);
    CHECK(queued < 2500);
}

TEST_CASE("bounds: a transaction that is left open ends with its connection") {
    Bounded bounded({.stall_timeout = 50ms});
    Client client(bounded.path);
    CHECK(client.ask({"MULTI"}) == "OK");
    CHECK(client.reply() == "EOF");
    Client waits(bounded.path);
    CHECK(waits.ask({"DEDUP.CLAIM", "k"}).starts_with("['outcome' 'claimed'"));
    waits.send(request({"DEDUP.WAIT", "k", "1000000", "ORDER", "ANY"}));
    CHECK(waits.ask({"MULTI"}) == "OK");
    CHECK(waits.reply() == "EOF");
}

TEST_CASE("bounds: thousands that wait in any order hold up others by a part of their looks") {
    constexpr std::uint64_t kWaits = 4'000;
    std::atomic<bool> armed = true;
    std::atomic<bool> held = false;
    std::atomic<std::size_t> looks = 0;
    std::atomic<std::size_t> looks_before = 0;
    Bounded bounded;
    bounded.store.before_heads = [&](std::span<const StreamKey> streams) {
        if (armed.exchange(false)) {
            looks = 0;
            held = true;
            held.wait(true);
        }
        looks += streams.size();
        if (streams.back().key == "other") {
            looks_before = looks.load();
        }
    };
    Client waiting(bounded.path);
    Client other(bounded.path);
    Client pings(bounded.path);
    // How many looks come before another client's, which begins while they are held up.
    const auto looks_before_others = [&](std::uint64_t requests) {
        wait_until([&] { return held && bounded.server->metrics().requests == requests; });
        other.send(request({"DEDUP.LOOKUP", "other"}));
        wait_until([&] { return bounded.server->metrics().requests == requests + 1; });
        CHECK(pings.ask({"PING"}) == "PONG");  // so the lookup has been handed over
        held = false;
        held.notify_all();
        CHECK(other.reply().starts_with("['outcome' 'absent'"));
        return looks_before.load();
    };
    Cache inside(*bounded.inner);
    std::string waits;
    for (std::uint64_t i = 0; i < kWaits; ++i) {
        REQUIRE(inside.claim(std::to_string(i)).has_value());
        waits += request({"DEDUP.WAIT", std::to_string(i), "1000000", "ORDER", "ANY"});
    }
    waiting.send(waits);
    CHECK(looks_before_others(kWaits) < 2'500);
    CHECK(waiting.ask({"DEDUP.LOOKUP", "0"}).starts_with("['outcome' 'in_flight'"));
    // All have looked, and look again, lest somebody else has decided.
    armed = true;
    CHECK(looks_before_others(kWaits + 3) < 1'000);
}

TEST_CASE("bounds: looks that take long keep nothing of their connection from its turn") {
    Bounded bounded;
    bounded.store.before_heads = [](std::span<const StreamKey>) {
        std::this_thread::sleep_for(30ms);
    };
    Client client(bounded.path);
    CHECK(client.ask({"DEDUP.CLAIM", "k"}).starts_with("['outcome' 'claimed'"));
    client.send(request({"DEDUP.WAIT", "k", "1000000", "ORDER", "ANY"}));
    CHECK(client.ask({"DEDUP.LOOKUP", "k"}).starts_with("['outcome' 'in_flight'"));
    CHECK(client.ask({"DEDUP.STATS"}).contains("'store_id'"));
}

TEST_CASE("bounds: a disk that hangs holds up the server's end, and no client") {
    Bounded bounded({.stop_timeout = 20ms});
    bounded.hangs = true;
    Client client(bounded.path);
    client.send(request({"SET", "k", "v"}));
    wait_until([&] { return bounded.appending == 1; });
    std::thread stopper([&] { bounded.server->stop(); });
    CHECK(client.reply() == "EOF");
    bounded.hangs = false;
    stopper.join();
    CHECK(bounded.inner->head({"redis:0", "k"}).value().has_value());
}

TEST_CASE("bounds: a slow sweep holds up no statistics, scans and histories") {
    std::atomic<bool> sweeping = false;
    Bounded bounded;
    bounded.store.before_sweep = [&](const SweepOptions& options) -> Result<void> {
        sweeping = true;
        wait_until([&] { return options.stop.stop_requested(); });
        return {};
    };
    Client sweeper(bounded.path);
    Client client(bounded.path);
    sweeper.send(request({"DEDUP.SWEEP", "ID", "mine"}));
    wait_until([&] { return sweeping.load(); });
    CHECK(client.ask({"DEDUP.STATS"}).find("'streams' 0") != std::string::npos);
    CHECK(client.ask({"SCAN", "0"}) == "['0' []]");
    CHECK(client.ask({"DEDUP.HISTORY", "k"}) == "[]");
    CHECK(client.ask({"DEDUP.SWEEPING", "mine"}) == "[0 0]");
    CHECK(client.ask({"DEDUP.SWEEPING", "other"}) == "nil");
    CHECK(client.ask({"DEDUP.SWEEPING", "mine", "STOP"}) == "[0 0]");
    CHECK(sweeper.reply().starts_with("['now_ms'"));
}

TEST_CASE("bounds: scans of those who have gone, or that the server's end finds, are not begun") {
    for (const bool ends : {false, true}) {
        CAPTURE(ends);
        std::atomic<bool> held = true;
        std::atomic<int> begun = 0;
        Bounded bounded;
        bounded.store.before_scan = [&](const ScanOptions&) {
            ++begun;
            held.wait(true);
        };
        Client holder(bounded.path);
        CHECK(holder.ask({"SET", "a", "v"}) == "OK");
        CHECK(holder.ask({"DEDUP.CLAIM", "k"}).starts_with("['outcome' 'claimed'"));
        constexpr int kScans = 50;
        std::vector<Client> clients;
        for (int i = 0; i < kScans; ++i) {
            clients.emplace_back(bounded.path);
            clients.back().send(i % 2 == 0 ? request({"DEDUP.SCAN", "0", "COUNT", "10000"})
                                           : request({"DBSIZE"}));
            wait_until([&] { return begun == 1; });
        }
        holder.send(request({"DEDUP.WAIT", "k", "600000"}));
        wait_until([&] { return bounded.server->metrics().requests == kScans + 3; });
        if (!ends) {
            clients.clear();
            wait_until([&] { return bounded.server->metrics().connections == 1; });
            held = false;
            held.notify_all();
            CHECK(Client(bounded.path).ask({"DEDUP.SCAN", "0", "COUNT", "1"}).contains("'heads'"));
            CHECK(begun == 2);
            continue;
        }
        std::thread stopper([&] { bounded.server->stop(); });
        CHECK(holder.reply().starts_with("['outcome' 'in_flight'"));  // so it has begun to end
        held = false;
        held.notify_all();
        CHECK(clients.front().reply().contains("'heads'"));
        for (std::size_t i = 1; i < clients.size(); ++i) {
            CHECK(clients[i].reply().starts_with("-CLOSED "));
        }
        stopper.join();
        CHECK(begun == 1);
    }
}

TEST_CASE("bounds: a scan for which there is no memory gets an error, and ends nothing else") {
    Bounded bounded;
    bounded.store.before_scan = [](const ScanOptions&) { throw std::bad_alloc(); };
    Client client(bounded.path);
    CHECK(client.ask({"DEDUP.SCAN", "0"}) == "-OOM out of memory");
    bounded.store.before_scan = nullptr;
    CHECK(client.ask({"DEDUP.SCAN", "0"}) == "['cursor' '' 'heads' []]");
}

TEST_CASE("bounds: a store that refuses what is written is told once, and that it takes it again") {
    std::mutex mutex;
    std::vector<std::string> told;
    ServerOptions options{.stall_timeout = 40ms};  // it looks every 10 ms
    options.observer = [&](const ServerEvent& event) {
        if (event.what.starts_with("store_")) {
            const std::lock_guard lock(mutex);
            told.push_back(std::string(event.what) + " " + event.detail);
        }
    };
    const auto count = [&] {
        const std::lock_guard lock(mutex);
        return told.size();
    };
    Bounded bounded(std::move(options));
    std::atomic<bool> fails = true;
    bounded.store.fail_append = [&](const Append&) -> std::optional<Code> {
        return fails ? std::optional(Code::out_of_space) : std::nullopt;
    };
    Client client(bounded.path);
    while (count() == 0) {
        CHECK(client.ask({"SET", "k", "v"}) == "-OOM injected");
    }
    for (int i = 0; i < 100; ++i) {
        CHECK(client.ask({"SET", "k", "v"}) == "-OOM injected");
        CHECK(client.ask({"GET", "k"}) == "nil");
    }
    fails = false;
    while (count() == 1) {
        CHECK(client.ask({"SET", "k", "v"}) == "OK");
    }
    const std::lock_guard lock(mutex);
    CHECK(told ==
          std::vector<std::string>{"store_failed out_of_space: injected", "store_recovered "});
}

TEST_CASE("bounds: a long history is not read whole") {
    Bounded bounded;
    Client client(bounded.path);
    CHECK(client.ask({"SET", "k", std::string(8'000'000, 'x')}) == "OK");
    for (int i = 0; i < 12; ++i) {
        CHECK(client.ask({"EXPIRE", "k", "1000"}) == "1");
    }
    CHECK(client.ask({"DEDUP.HISTORY", "k", "NS", "redis:0"}).find("ask for fewer with NEWEST") !=
          std::string::npos);
    CHECK(client.ask({"DEDUP.HISTORY", "k", "NS", "redis:0", "NEWEST", "10"}).starts_with("-ERR"));
    const std::string three = client.ask({"DEDUP.HISTORY", "k", "NEWEST", "3", "NS", "redis:0"});
    CHECK(three.size() > 24'000'000);
    CHECK(three.size() < 25'000'000);
    CHECK(client.ask({"DEDUP.HISTORY", "k", "NEWEST", "0"}).starts_with("-ERR syntax"));
    CHECK(client.ask({"DEDUP.HISTORY", "k", "NEWEST"}).starts_with("-ERR syntax"));
}

TEST_CASE("bounds: of many that wait, those whose claim is answered are woken, and no others") {
    // Guards against a reread of all that wait upon each completion, and against a poll of them all
    // fifty times a second.
    Bounded bounded;
    constexpr int kWaiting = 500;
    Client holder(bounded.path);
    std::vector<Client> waiting;
    for (int i = 0; i < kWaiting; ++i) {
        const std::string key = std::to_string(i);
        CHECK(holder.ask({"DEDUP.CLAIM", key}).starts_with("['outcome' 'claimed'"));
        waiting.emplace_back(bounded.path);
        waiting.back().send(request({"DEDUP.WAIT", key, "1000000"}));
    }
    wait_until([&] { return bounded.server->metrics().requests == 2 * kWaiting; });
    CHECK(holder.ask({"PING"}) == "PONG");
    const std::size_t before = bounded.store.streams_read;
    for (int i = 0; i < kWaiting; ++i) {
        CHECK(holder.ask({"DEDUP.COMPLETE", std::to_string(i), "CURRENT", "r"})
                  .starts_with("['outcome' 'completed'"));
        CHECK(waiting[static_cast<std::size_t>(i)].reply().starts_with("['outcome' 'completed'"));
    }
    // One for the completion, one for who waited, and a few polls: it was 250 for each.
    CHECK(bounded.store.streams_read - before < 40 * kWaiting);
}

TEST_CASE("bounds: a forked child leaves the server to its parent") {
    Bounded bounded;
    Client before(bounded.path);
    CHECK(before.ask({"PING"}) == "PONG");
    const pid_t child = ::fork();
    if (child == 0) {
        bounded.server->stop();
        bounded.server.reset();
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(before.ask({"SET", "k", "v"}) == "OK");
    CHECK(Client(bounded.path).ask({"GET", "k"}) == "'v'");
}

TEST_CASE("bounds: of many that begin to serve at one place, one does") {
    // Guards against a starter that takes another's new socket for one that was left.
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    const auto store = make_memory_store();
    for (int round = 0; round < 20; ++round) {
        std::vector<std::unique_ptr<Server>> servers(4);
        std::vector<std::jthread> threads;
        std::atomic<int> refused = 0;
        for (auto& server : servers) {
            threads.emplace_back([&] {
                auto started = Server::start(*store, {.unix_path = path});
                if (started) {
                    server = *std::move(started);
                } else {
                    refused += started.error().code == Code::busy;
                }
            });
        }
        threads.clear();
        CHECK(refused == 3);
        CHECK(Client(path).ask({"PING"}) == "PONG");
    }
}

}  // namespace
}  // namespace dedup::test
