// A client of ours whose way to the server fails. (The contract suite, and those of all layers,
// run against one whose way does not.)
#include "dedup/remote_store.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/away.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;

// A completion of the claim that is the stream's head.
Append completion(const Record& claim, std::string receipt) {
    Append append = item(claim.sequence, claim.key, std::move(receipt));
    append.record.claim_sequence = claim.claim_sequence;
    return append;
}

// Takes connections, and says nothing.
class SilentServer {
  public:
    explicit SilentServer(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        REQUIRE(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        REQUIRE(::listen(fd_, 8) == 0);
    }
    SilentServer(const SilentServer&) = delete;
    ~SilentServer() { ::close(fd_); }

  private:
    int fd_;
};

TEST_CASE("remote: an append whose request or answer was lost lands once, and says so") {
    // Guards against a claim that nobody knows to have.
    for (const auto fault : {FaultyWay::Fault::lose_request, FaultyWay::Fault::lose_answer}) {
        Away away;
        away.way.arm(fault);
        const auto claimed = away.append(item(0, "k"));
        REQUIRE_MESSAGE(claimed.has_value(), claimed.error().message);
        CHECK(!away.way.armed());
        away.way.arm(fault);
        const auto again = away.append(item(0, "k"));
        CHECK(again.error().code == Code::sequence_conflict);
        CHECK(again.error().head_sequence == *claimed);
        away.way.arm(fault);
        const std::vector<Append> batch = {item(*claimed, "k", "receipt"), item(0, "other")};
        const auto whole = away.client->append(batch, Batch::atomic);
        REQUIRE(whole[0].has_value());
        REQUIRE(whole[1].has_value());
        CHECK(away.inner->history({"remote", "k"})->size() == 2);
        CHECK(away.inner->head({"remote", "other"}).value()->sequence == *whole[1]);
    }
}

TEST_CASE("remote: of two clients that claim with equal records, one wins, whatever is lost") {
    // Guards against taking another's claim for one's own since it looks the same.
    Away away;
    const auto other = Away::open_at(away.server_path);
    const Append same = item(0, "k");
    away.way.arm(FaultyWay::Fault::lose_request, [&] {
        REQUIRE(other->append({&same, 1}, Batch::each).front().has_value());
    });
    CHECK(away.append(same).error().code == Code::sequence_conflict);
    // The same with a server that does not know what was before.
    const Append next = item(0, "k2");
    away.way.arm(FaultyWay::Fault::lose_request, [&] {
        REQUIRE(other->append({&next, 1}, Batch::each).front().has_value());
        away.serve();
    });
    CHECK(away.append(next).error().code == Code::outcome_unknown);
}

TEST_CASE(
    "remote: behind a restart of the server a completion knows itself, and a claim does not") {
    Away away;
    REQUIRE(away.append(item(0, "k")).has_value());
    const Record claim = *away.client->head({"remote", "k"}).value();
    away.way.arm(FaultyWay::Fault::lose_answer, [&] { away.serve(); });
    const auto completed = away.append(completion(claim, "receipt"));
    REQUIRE_MESSAGE(completed.has_value(), completed.error().message);
    CHECK(away.inner->history({"remote", "k"})->size() == 2);

    away.way.arm(FaultyWay::Fault::lose_answer, [&] { away.serve(); });
    const auto unknown = away.append(item(0, "k2"));
    CHECK(unknown.error().code == Code::outcome_unknown);
    CHECK(unknown.error().head_sequence == away.inner->head({"remote", "k2"}).value()->sequence);

    away.way.arm(FaultyWay::Fault::lose_answer, [&] { away.serve(); });
    const Record head = *away.client->head({"remote", "k2"}).value();
    const std::vector<Append> batch = {completion(head, "receipt"), item(0, "k3")};
    for (const auto& result : away.client->append(batch, Batch::atomic)) {
        CHECK_MESSAGE(result.has_value(), result.error().message);
    }
    away.way.settle();
    CHECK(away.append(item(0, "k4")).has_value());
}

TEST_CASE("remote: behind a restart of the server what fails may have landed before") {
    std::optional<HookedStore> hooked;
    Away away;
    away.way.arm(FaultyWay::Fault::lose_answer, [&] {
        away.server.reset();
        hooked.emplace(*away.inner).fail_append = [](const Append&) { return Code::io; };
        away.server = Server::start(*hooked, {.unix_path = away.server_path}).value();
    });
    // The one conflicts with itself, the other one is refused.
    const Append lost = item(0, "k");
    REQUIRE(away.append(item(0, "other")).error().code == Code::outcome_unknown);
    const auto other = away.inner->head({"remote", "other"}).value();
    REQUIRE(other.has_value());
    away.way.arm(FaultyWay::Fault::lose_request, [&] {
        away.server = {};
        away.server = Server::start(*hooked, {.unix_path = away.server_path}).value();
    });
    CHECK(away.append(lost).error().code == Code::outcome_unknown);
    CHECK(!away.inner->head({"remote", "k"}).value().has_value());
    // And what nobody has lost is certain.
    CHECK(away.append(lost).error().code == Code::io);
}

TEST_CASE("remote: behind a restart of the server the heads of a batch are asked for together") {
    Away away;
    std::vector<Append> batch;
    for (int i = 0; i < 100; ++i) {
        batch.push_back(item(0, "k" + std::to_string(i)));
    }
    away.way.arm(FaultyWay::Fault::lose_answer, [&] { away.serve(); });
    const auto results = away.client->append(batch, Batch::each);
    away.way.settle();
    for (std::size_t i = 0; i < batch.size(); ++i) {
        CHECK(results[i].error().code == Code::outcome_unknown);
        const auto head = away.inner->head({"remote", batch[i].record.key}).value();
        REQUIRE(head.has_value());
        CHECK(results[i].error().head_sequence == head->sequence);
    }
    CHECK(away.server->metrics().requests < 10);
}

TEST_CASE("remote: what the store made of an append does not change when it comes again") {
    // Guards against a conflict with oneself: the store did it, and could not say so.
    const auto inner = make_memory_store();
    HookedStore hooked(*inner);
    hooked.fail_append = [&](const Append& append) {
        REQUIRE(inner->append({&append, 1}, Batch::each).front().has_value());
        return std::optional(Code::outcome_unknown);
    };
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const std::string way_path = (directory.path() / "way").string();
    const auto server = Server::start(hooked, {.unix_path = path}).value();
    FaultyWay way(way_path, path);
    const auto client = Away::open_at(way_path);
    for (const Batch mode : {Batch::each, Batch::atomic}) {
        const std::string name = mode == Batch::each ? "each" : "atomic";
        const std::vector<Append> batch = {item(0, name + "1"), item(0, name + "2")};
        way.arm(FaultyWay::Fault::lose_answer);
        for (const auto& result : client->append(batch, mode)) {
            CHECK_MESSAGE(result.error().code == Code::outcome_unknown, name);
        }
        CHECK(!way.armed());
    }
    server->stop();
    CHECK(hooked.appends == 2);
}

TEST_CASE("remote: what is read is asked again, and many threads share what is left") {
    Away away;
    std::vector<std::jthread> threads;
    std::atomic<int> failed = 0;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            Cache cache(*away.client);
            for (int i = 0; i < 30; ++i) {
                const std::string key = std::to_string(t) + "-" + std::to_string(i);
                auto claimed = cache.claim(key);
                const auto* claim = claimed ? std::get_if<Claimed>(&*claimed) : nullptr;
                failed += claim == nullptr || !cache.complete(claim->claim, key);
                const auto found = cache.lookup(key);
                const auto* done = found ? std::get_if<Completed>(&*found) : nullptr;
                failed += done == nullptr || done->receipt != key;
            }
        });
    }
    for (int i = 0; i < 5; ++i) {
        away.way.arm(FaultyWay::Fault::lose_answer);
        std::this_thread::sleep_for(3ms);
    }
    threads.clear();
    CHECK(failed == 0);
    CHECK(away.client->stats()->completed == 240);
}

TEST_CASE("remote: a server that does not answer in time costs one call its time, and no more") {
    Away away(100ms);
    away.way.arm(FaultyWay::Fault::hold_answer);
    CHECK(away.append(item(0, "k")).error().code == Code::outcome_unknown);
    CHECK(away.append(item(0, "other")).has_value());
    CHECK(away.client->head({"remote", "k"}).value().has_value());

    away.client = Away::open_at(away.server_path, 100ms);
    away.server.reset();
    CHECK(away.append(item(0, "x")).error().code == Code::unavailable);
    CHECK(away.client->head({"remote", "x"}).error().code == Code::unavailable);
    CHECK(away.client->sweep().error().code == Code::unavailable);
    away.serve();
    CHECK(away.append(item(0, "x")).has_value());
}

TEST_CASE("remote: another store at the same place is not taken for the one that was") {
    Away away;
    away.client = Away::open_at(away.server_path);
    REQUIRE(away.append(item(0, "k")).has_value());
    const auto another = make_memory_store();
    away.server.reset();
    away.server = Server::start(*another, {.unix_path = away.server_path}).value();
    // Also not by ways that are made only now.
    CHECK(away.client->stats().error().code == Code::failed);
    CHECK(away.client->sweep().error().code == Code::failed);
    const auto refused = away.append(item(0, "k2"));
    CHECK(refused.error().code == Code::failed);
    CHECK(refused.error().message.find("another store") != std::string::npos);
    CHECK(another->stats()->streams() == 0);
}

TEST_CASE("remote: heads of any size come, in as many replies as it takes") {
    Away away;
    away.client = Away::open_at(away.server_path);
    std::vector<StreamKey> streams;
    std::vector<std::string> keys;
    for (int i = 0; i < 30; ++i) {
        keys.push_back("k" + std::to_string(i));
    }
    for (const std::string& key : keys) {
        REQUIRE(away.append(item(0, key, std::string(1024 * 1024, 'r'))).has_value());
        streams.push_back({"remote", key});
        streams.push_back({"remote", "none"});
    }
    streams.push_back({"", "k1"});
    const auto heads = away.client->heads(streams);
    REQUIRE(heads.size() == 61);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        REQUIRE(heads[2 * i].has_value());
        CHECK(heads[2 * i].value()->key == keys[i]);
        CHECK(!heads[2 * i + 1].value().has_value());
    }
    CHECK(heads.back().error().code == Code::invalid_argument);
    const auto page = away.client->scan({});
    CHECK(page->heads.size() >= 16);
    CHECK(page->heads.size() < 30);
    CHECK(!page->cursor.empty());
}

TEST_CASE("remote: errors come across with their code and message") {
    const auto inner = make_memory_store();
    HookedStore hooked(*inner);
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto server = Server::start(hooked, {.unix_path = path}).value();
    const auto client = Away::open_at(path);
    for (const Code code : {Code::io, Code::out_of_space, Code::corruption, Code::read_only,
                            Code::failed, Code::outcome_unknown, Code::closed, Code::busy,
                            Code::unavailable, Code::invalid_argument}) {
        hooked.fail_append = [code](const Append&) { return std::optional(code); };
        const Append append = item(0, "k");
        CHECK(client->append({&append, 1}, Batch::each).front().error().code == code);
        CHECK(client->append({&append, 1}, Batch::atomic).front().error().code == code);
        hooked.before_sweep = [code](const SweepOptions&) -> Result<void> {
            return std::unexpected(Error{code, "as asked"});
        };
        const auto swept = client->sweep();
        CHECK(swept.error().code == code);
        CHECK(swept.error().message == "as asked");
    }
    hooked.fail_heads = true;
    CHECK(client->head({"remote", "k"}).error().code == Code::io);
}

TEST_CASE("remote: a client that waits for a server can be closed") {
    for (const bool silent : {false, true}) {
        Away away;
        away.client = Away::open_at(away.server_path);
        away.server.reset();
        std::optional<SilentServer> nobody;
        if (silent) {
            nobody.emplace(away.server_path);
        }
        Result<StoreStats> stats;
        std::jthread asking([&] { stats = away.client->stats(); });
        std::this_thread::sleep_for(30ms);
        CHECK(away.client->close().has_value());
        asking.join();
        CHECK(stats.error().code == Code::closed);
    }
}

TEST_CASE("remote: a sweep that stands behind another one can be left, and ends with its caller") {
    const auto inner = make_memory_store();
    HookedStore hooked(*inner);
    std::atomic<int> begun = 0;
    std::atomic<bool> held = true;
    hooked.before_sweep = [&](const SweepOptions&) {
        ++begun;
        while (held) {
            std::this_thread::sleep_for(1ms);
        }
        return Result<void>();
    };
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto server = Server::start(hooked, {.unix_path = path}).value();
    const auto first = Away::open_at(path);
    const auto second = Away::open_at(path);
    Result<SweepReport> swept;
    std::jthread sweeping([&] { swept = first->sweep(); });
    while (begun == 0) {
        std::this_thread::sleep_for(1ms);
    }

    std::stop_source stop;
    Result<SweepReport> stopped;
    std::jthread stopping([&] { stopped = second->sweep({.stop = stop.get_token()}); });
    stop.request_stop();
    stopping.join();
    CHECK(stopped.error().code == Code::busy);

    Result<SweepReport> closed;
    std::jthread closing([&] { closed = second->sweep(); });
    std::this_thread::sleep_for(30ms);
    CHECK(second->close().has_value());
    closing.join();
    CHECK(closed.error().code == Code::closed);

    held = false;
    sweeping.join();
    CHECK(swept.has_value());
    while (begun < 2) {  // what was left is done behind it
        std::this_thread::sleep_for(1ms);
    }
}

TEST_CASE("remote: a sweep ends in good order when the caller's own code throws") {
    const auto inner = make_memory_store();
    HookedStore hooked(*inner);
    std::atomic<bool> held = true;
    hooked.before_sweep = [&](const SweepOptions&) {
        while (held) {
            std::this_thread::sleep_for(1ms);
        }
        return Result<void>();
    };
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto server = Server::start(hooked, {.unix_path = path}).value();
    const auto client = Away::open_at(path);
    const SweepProgress fails = [](std::uint64_t, std::uint64_t) {
        throw std::runtime_error("the caller's");
    };
    CHECK_THROWS_AS(static_cast<void>(client->sweep({.progress = fails})), std::runtime_error);
    held = false;
    CHECK(client->sweep().has_value());
}

TEST_CASE("remote: one page of a scan reads so much of the store, and the next one goes on") {
    const auto inner = make_memory_store();
    HookedStore hooked(*inner);
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto server = Server::start(hooked, {.unix_path = path}).value();
    const auto client = Away::open_at(path);
    constexpr std::size_t kKeys = 200;
    for (std::size_t i = 0; i < kKeys; ++i) {
        const Append append = item(0, std::to_string(i), std::string(70'000, 'r'));
        REQUIRE(inner->append({&append, 1}, Batch::each).front().has_value());
    }
    std::size_t found = 0;
    ScanOptions options{.ns = "remote"};
    do {
        hooked.walks = 0;
        const auto page = client->scan(options);
        REQUIRE(page.has_value());
        CHECK(hooked.walks <= 10);
        found += page->heads.size();
        options.cursor = page->cursor;
    } while (!options.cursor.empty());
    CHECK(found == kKeys);
}

TEST_CASE("remote: a queue that is full is waited for") {
    const auto inner = make_memory_store();
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto server = Server::start(*inner, {.unix_path = path, .requests_max = 2}).value();
    const auto client = Away::open_at(path);
    std::vector<std::jthread> threads;
    std::atomic<int> failed = 0;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 50; ++i) {
                const Append append = item(0, std::to_string(t) + "-" + std::to_string(i));
                failed += !client->append({&append, 1}, Batch::each).front().has_value();
            }
        });
    }
    threads.clear();
    CHECK(failed == 0);
}

TEST_CASE("remote: a client that the server does not know any more logs in again") {
    const auto inner = make_memory_store();
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const std::string way_path = (directory.path() / "way").string();
    const auto server =
        Server::start(*inner, {.unix_path = path, .password = "the first password"}).value();
    FaultyWay way(way_path, path);
    const auto client = open_remote("unix:" + way_path, {.password = "the first password"}).value();
    const auto append = [&](std::string key) {
        const Append claim = item(0, std::move(key));
        return client->append({&claim, 1}, Batch::each).front();
    };
    way.arm(FaultyWay::Fault::log_out);
    CHECK(append("k").has_value());
    CHECK(!way.armed());
    way.arm(FaultyWay::Fault::log_out);
    CHECK(client->head({"remote", "k"}).value().has_value());
    CHECK(!way.armed());
    CHECK(server->replace_password("the second password").has_value());
    CHECK_FALSE(append("l").has_value());  // maybe unknown: the connection has ended
    CHECK(client->head({"remote", "k"}).error().code == Code::invalid_argument);
    CHECK(server->replace_password("the first password").has_value());
    CHECK(append("l").has_value());
}

TEST_CASE("remote: addresses and passwords") {
    const auto inner = make_memory_store();
    const auto server =
        Server::start(*inner, {.tcp = "127.0.0.1:0", .password = "se:cret @% of 19 b"}).value();
    const std::string at = "127.0.0.1:" + std::to_string(server->tcp_port());
    CHECK(open("tcp://:se%3Acret%20%40%25%20of%2019%20b@" + at).has_value());
    CHECK(open("tcp://default:se:cret%20@%25%20of%2019%20b@" + at).has_value());
    CHECK(open_remote("tcp://" + at, {.password = "se:cret @% of 19 b"}).has_value());
    for (const std::string& url :
         {"tcp://" + at, "tcp://default:wrong@" + at, "tcp://default:%4@" + at, "tcp://127.0.0.1"s,
          "tcp://:1"s, "tcp://"s, "unix:"s, "unix:" + std::string(200, 'x')}) {
        const auto refused = open(url);
        REQUIRE(!refused.has_value());
        CHECK_MESSAGE(refused.error().code == Code::invalid_argument, url);
        CHECK(refused.error().message.find("wrong@") == std::string::npos);
    }
    CHECK(open("unix:/nowhere/at/all").error().code == Code::unavailable);
    CHECK(open_remote("tcp://" + at, {.timeout = 1ms}).error().code == Code::invalid_argument);
}

}  // namespace
}  // namespace dedup::test
