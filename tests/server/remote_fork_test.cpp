// A forked child has a copy of the client: its locks, its sockets, and none of its threads.
// Invariant: it can destroy that copy, and every call on it gives closed; neither hangs, nor says
// anything to the parent's server.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "dedup/memory_store.hpp"
#include "server/away.hpp"
#include "support/child_process.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

// A child that hangs is ended by a signal after so long.
constexpr unsigned kHangSeconds = 60;

TEST_CASE("remote: a forked child is told that the connection is its parent's") {
    Away away;
    REQUIRE(away.append(item(0, "k")).has_value());
    CHECK(exit_code(in_child([&] {
              alarm(kHangSeconds);
              const auto refused = away.client->head({"remote", "k"});
              const bool good = !refused && refused.error().code == Code::closed &&
                                away.append(item(0, "x")).error().code == Code::closed &&
                                away.client->stats().error().code == Code::closed;
              away.client.reset();
              return good ? 0 : 1;
          })) == 0);
    CHECK(away.append(item(0, "y")).has_value());
}

// Forks up to 40 children that destroy their copy of the client. How many did not end well; it ends
// with the first.
int bad_children(Away& away) {
    int bad = 0;
    for (int i = 0; i < 40 && bad == 0; ++i) {
        bad += exit_code(in_child([&] {
                   alarm(kHangSeconds);
                   away.client.reset();
                   return 0;
               })) != 0;
    }
    return bad;
}

TEST_CASE("remote: forks beside threads that append and read, and that wait for the server") {
    Away away;
    std::atomic<bool> stop = false;
    std::atomic<int> failed = 0;
    const auto run = [&](int thread) {
        for (int i = 0; !stop; ++i) {
            const Append append = item(0, std::to_string(thread) + "-" + std::to_string(i));
            failed += !away.client->append({&append, 1}, Batch::each).front().has_value();
            failed += !away.client->head({"remote", append.record.key}).has_value();
        }
    };
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back(run, t);
    }
    CHECK(bad_children(away) == 0);
    away.server.reset();
    CHECK(bad_children(away) == 0);
    away.serve();
    stop = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(failed == 0);
}

TEST_CASE("remote: a child that is forked in the progress of a sweep comes back, and gets closed") {
    // Guards against a child that ends the parent's connection, and waits for the thread that waits
    // for the server.
    const auto inner = make_memory_store();
    HookedStore hooked(*inner);
    std::atomic<bool> held = true;
    hooked.before_sweep = [&](const SweepOptions&) {
        while (held) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return Result<void>();
    };
    TempDir directory;
    const std::string path = (directory.path() / "s").string();
    const auto server = Server::start(hooked, {.unix_path = path}).value();
    auto client = Away::open_at(path);
    for (const bool at_the_end : {false, true}) {
        CAPTURE(at_the_end);
        held = !at_the_end;
        pid_t child = -1;
        const auto swept = client->sweep({.progress = [&](std::uint64_t, std::uint64_t) {
            if (child < 0) {
                child = ::_Fork();  // past the C library, which closes nothing then
                alarm(child == 0 ? kHangSeconds : 0);
                held = false;
            }
        }});
        if (child == 0) {
            const bool told = !swept && swept.error().code == Code::closed;
            client.reset();
            ::_exit(told ? 0 : 1);
        }
        CHECK(swept.has_value());
        REQUIRE(child > 0);
        CHECK(exit_code(child) == 0);
    }
}

}  // namespace
}  // namespace dedup::test
