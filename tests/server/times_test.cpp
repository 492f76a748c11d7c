// How long commands take is counted by their name, the wait for others' claims aside, and told to
// whoever may know of the whole store.
#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <string>
#include <thread>

#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

struct TimesFixture {
    explicit TimesFixture(ServerOptions options = {}) {
        options.unix_path = path;
        auto started = Server::start(store, std::move(options));
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
    }
    [[nodiscard]] std::map<std::string, Histogram> times() const {
        std::map<std::string, Histogram> found;
        for (const auto& [command, ns] : server->metrics().commands) {
            found[command] = ns;
        }
        return found;
    }
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    ManualClock clock{1'000'000};
    std::unique_ptr<StreamStore> inner = make_memory_store(clock.clock());
    HookedStore store{*inner};
    std::unique_ptr<Server> server;
};

TEST_CASE("times: each command that the store is asked for counts once, with its flush") {
    TimesFixture fixture;
    fixture.store.before_append = [] { std::this_thread::sleep_for(20ms); };
    Client client(fixture.path);
    client.send(request({"DEDUP.CLAIM", "a"}) + request({"dedup.claim", "b"}) +
                request({"GET", "none"}) + request({"NONE"}) + request({"PING"}) +
                request({"MULTI"}) + request({"SET", "k", "v"}) + request({"EXEC"}) +
                request({"DEDUP.SCAN", "0"}));
    for (int i = 0; i < 9; ++i) {
        CHECK(client.reply() != "EOF");
    }
    const auto times = fixture.times();
    std::string names;
    for (const auto& [command, ns] : times) {
        names += command + "=" + std::to_string(ns.count()) + " ";
    }
    CHECK(names == "dedup.claim=2 dedup.scan=1 exec=1 get=1 ");
    const auto nanoseconds = [](auto duration) {
        return static_cast<std::uint64_t>(std::chrono::nanoseconds(duration).count());
    };
    CHECK(times.at("dedup.claim").sum >= nanoseconds(2 * 20ms));
    CHECK(times.at("exec").sum >= nanoseconds(20ms));
    CHECK(times.at("exec").sum < nanoseconds(1min));  // not since some other beginning

    const std::string text = prometheus_text(fixture.server->metrics());
    CHECK(text.find("dedup_server_command_duration_seconds_count{command=\"dedup.claim\"} 2\n") !=
          std::string::npos);
    const std::string info = client.ask({"INFO"});
    CHECK(info.find("cmdstat_dedup.claim:calls=2,usec=") != std::string::npos);
    CHECK(info.find("latency_percentiles_usec_dedup.claim:p50=") != std::string::npos);
}

TEST_CASE("times: the wait for somebody else's claim is nobody's fault") {
    TimesFixture fixture;
    Client client(fixture.path);
    CHECK(client.ask({"DEDUP.CLAIM", "k"}) != "EOF");
    CHECK(client.ask({"DEDUP.WAIT", "k", "2000"}) != "EOF");
    CHECK(fixture.times().at("dedup.wait").sum < std::uint64_t{1'900'000'000});
}

TEST_CASE("times: who may see a part of the store only is not told what others do") {
    const TempDir directory;
    const std::string users = (directory.path() / "users").string();
    std::ofstream file(users);
    for (const auto& [name, namespaces] : {std::pair{"all", "*"}, {"some", "a-*"}}) {
        file << *user_line({.name = name,
                            .secret = "a secret of some length",
                            .rights = "read,claim",
                            .namespaces = namespaces})
             << "\n";
    }
    file.close();
    ServerOptions options;
    options.users = users;
    TimesFixture fixture(std::move(options));
    const auto told = [&](std::string_view name) {
        Client client(fixture.path);
        CHECK(client.ask({"AUTH", name, "a secret of some length"}) == "OK");
        CHECK(client.ask({"DEDUP.CLAIM", "k", "NS", "a-1"}) != "EOF");
        return client.ask({"INFO"}).find("cmdstat_dedup.claim") != std::string::npos;
    };
    CHECK(told("all"));
    CHECK_FALSE(told("some"));
}

}  // namespace
}  // namespace dedup::test
