// A forked child has a copy of the store: locks that threads of the parent hold, conditions that
// they wait for, and the sockets. Invariant: it can destroy that copy, and every call on it gives
// closed; neither hangs, nor says anything to the parent's server.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "postgres/helpers.hpp"
#include "support/child_process.hpp"

namespace dedup::test {
namespace {

// A child that hangs is ended by a signal after so long.
constexpr unsigned kHangSeconds = 60;

// Which sessions the stores of this process have at the server, and when each was last used.
std::string sessions(const Schema& schema) {
    return schema.sql(
        "SELECT string_agg(pid || ' ' || query_start, ', ' ORDER BY pid) FROM pg_stat_activity "
        "WHERE application_name = 'dedup'");
}

TEST_CASE("forks: in a child every call gives closed, and the parent's sessions stay") {
    NEEDS_POSTGRES();
    Schema schema;
    ManualClock clock;
    schema.options.clock = clock.clock();
    auto store = schema.open();
    Cache cache(*store);
    REQUIRE(cache.remember("parent", "r").has_value());
    const std::string before = sessions(schema);
    const auto misuse = [&] {
        alarm(kHangSeconds);
        clock.advance(100L * 24 * 3'600'000);  // a jump, which the server would be asked about
        const bool told = cache.remember("child", "r").error().code == Code::closed &&
                          cache.lookup("parent").error().code == Code::closed &&
                          store->sweep().error().code == Code::closed &&
                          store->stats().error().code == Code::closed &&
                          store->close().error().code == Code::closed;
        store.reset();
        return told ? 0 : 1;
    };
    CHECK(exit_code(in_child(misuse)) == 0);
    const pid_t past_the_library = ::_Fork();  // its sockets are open
    if (past_the_library == 0) {
        ::_exit(misuse());
    }
    CHECK(exit_code(past_the_library) == 0);
    CHECK(sessions(schema) == before);
    CHECK(cache.remember("parent again", "r").has_value());
    CHECK(sessions(schema).substr(0, before.find(' ')) == before.substr(0, before.find(' ')));
}

TEST_CASE("forks: beside threads that append, read, and wait for one of few connections") {
    NEEDS_POSTGRES();
    const Schema schema;
    auto store = schema.open("&connections=2");
    constexpr int kThreads = 6;
    std::atomic<int> acknowledged[kThreads] = {};
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            Cache cache(*store);
            while (!stop) {
                const std::string key = std::to_string(t) + "-" + std::to_string(acknowledged[t]);
                REQUIRE(cache.remember(key, "r").has_value());
                ++acknowledged[t];
                REQUIRE(cache.lookup(key).has_value());
            }
        });
    }
    int bad = 0;
    for (int i = 0; i < 40 && bad == 0; ++i) {
        bad += exit_code(in_child([&] {
                   alarm(kHangSeconds);
                   store.reset();
                   return 0;
               })) != 0;
    }
    CHECK(bad == 0);
    stop = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    Cache cache(*store);
    for (int t = 0; t < kThreads; ++t) {
        CHECK(acknowledged[t] > 0);
        for (int i = 0; i < acknowledged[t]; ++i) {
            const auto known = cache.lookup(std::to_string(t) + "-" + std::to_string(i));
            REQUIRE(known.has_value());
            CHECK(std::holds_alternative<Completed>(*known));
        }
    }
}

TEST_CASE("forks: a child that is forked in the progress of a sweep comes back, and gets closed") {
    NEEDS_POSTGRES();
    const Schema schema;
    auto store = schema.open();
    std::atomic<bool> stop = false;
    std::thread other([&] {
        while (!stop) {
            REQUIRE(store->stats().has_value());
        }
    });
    for (int i = 0; i < 10; ++i) {
        pid_t child = -1;
        const auto swept = store->sweep({.progress = [&](std::uint64_t, std::uint64_t) {
            if (child < 0) {
                child = ::fork();
                alarm(child == 0 ? kHangSeconds : 0);
            }
        }});
        if (child == 0) {
            const bool told = !swept && swept.error().code == Code::closed;
            store.reset();
            ::_exit(told ? 0 : 1);
        }
        CHECK(swept.has_value());
        REQUIRE(child > 0);
        CHECK(exit_code(child) == 0);
    }
    stop = true;
    other.join();
}

}  // namespace
}  // namespace dedup::test
