// The library's threads live in somebody else's program: they have names, take no signals, and
// callers that are cancelled leave nobody waiting.
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <fstream>
#include <map>
#include <thread>
#include <vector>

#include "dedup/guard.hpp"
#include "dedup/sweeper.hpp"
#include "process/helpers.hpp"

namespace dedup::test {
namespace {

// The threads of this process by name, with the signals that they block.
std::map<std::string, std::uint64_t> blocked_by_name() {
    std::map<std::string, std::uint64_t> blocked;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::getline(std::ifstream(task.path() / "comm") >> std::ws, name);
        std::ifstream status(task.path() / "status");
        for (std::string line; std::getline(status, line);) {
            if (line.starts_with("SigBlk:")) {
                blocked[name] = std::stoull(line.substr(7), nullptr, 16);
            }
        }
    }
    return blocked;
}

TEST_CASE("threads of the library have names and take no signals of the program") {
    const TempDir dir;
    OpenOptions options;
    options.durability = Durability::async;
    const auto store = opened(dir.path() / "store", options);
    const auto guard = *Guard::start(*store);
    const auto sweeper = *Sweeper::start(*store);
    // A thread names itself once it runs.
    const char* names[] = {"dedup-sealer", "dedup-flusher", "dedup-sweeper", "dedup-heartbeat"};
    auto threads = blocked_by_name();
    for (int i = 0; i < 10'000; ++i) {
        bool all = true;
        for (const char* name : names) {
            all = all && threads.contains(name);
        }
        if (all) {
            break;
        }
        usleep(1'000);
        threads = blocked_by_name();
    }
    for (const char* name : names) {
        INFO(name);
        REQUIRE(threads.contains(name));
        for (const int number : {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGCHLD, SIGPROF, SIGRTMAX}) {
            CHECK((threads[name] >> static_cast<unsigned>(number - 1) & 1U) == 1);
        }
        CHECK((threads[name] >> static_cast<unsigned>(SIGSEGV - 1) & 1U) == 0);
    }
    sigset_t mine;
    pthread_sigmask(SIG_SETMASK, nullptr, &mine);
    CHECK(sigismember(&mine, SIGTERM) == 0);
}

struct Caller {
    Cache* cache;
    void (*call)(Cache& cache, const std::string& name);
    std::string name;
    std::atomic<long> calls{0};
    pthread_t thread{};

    static void* run(void* self) {
        auto& caller = *static_cast<Caller*>(self);
        while (true) {
            caller.call(*caller.cache, caller.name + std::to_string(caller.calls));
            ++caller.calls;
        }
    }
};

// Whether all others go on after some threads were cancelled in the midst of `call`.
void cancel_some(const OpenOptions& options, void (*call)(Cache&, const std::string&)) {
    const TempDir dir;
    const auto store = opened(dir.path() / "store", options);
    Cache cache(*store);
    std::vector<std::unique_ptr<Caller>> callers;
    for (int i = 0; i < 5; ++i) {
        callers.push_back(std::make_unique<Caller>());
        callers.back()->cache = &cache;
        callers.back()->call = call;
        callers.back()->name = std::to_string(i) + "-";
        REQUIRE(pthread_create(&callers.back()->thread, nullptr, Caller::run,
                               callers.back().get()) == 0);
    }
    alarm(kHangSeconds);
    const auto go_on = [&](std::size_t from) {
        for (std::size_t i = from; i < callers.size(); ++i) {
            const long before = callers[i]->calls;
            while (callers[i]->calls < before + 3) {
                usleep(100);
            }
        }
    };
    for (std::size_t i = 0; i < callers.size(); ++i) {
        go_on(i);
        REQUIRE(pthread_cancel(callers[i]->thread) == 0);
        void* result = nullptr;
        REQUIRE(pthread_join(callers[i]->thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED);
    }
    CHECK(remembers(cache, "after"));
    CHECK(store->stats());
    CHECK(store->close());
    alarm(0);
    for (const auto& caller : callers) {
        int lost = 0;
        const auto again = opened(dir.path() / "store");
        Cache found(*again);
        for (long i = 0; i < caller->calls; ++i) {
            const auto outcome = found.lookup(caller->name + std::to_string(i));
            lost += !outcome || std::holds_alternative<Absent>(*outcome);
        }
        CHECK(lost == 0);
    }
}

TEST_CASE("a thread that is cancelled while it appends, waits or sweeps holds up nobody") {
    OpenOptions async;
    async.durability = Durability::async;
    for (const OpenOptions& options : {OpenOptions{}, async, segments_of_64_kib()}) {
        cancel_some(options, [](Cache& cache, const std::string& key) {
            (void)cache.claim(key, {.metadata = std::string(1'000, 'm')});
        });
    }
    cancel_some({}, [](Cache& cache, const std::string& key) {
        (void)cache.claim(key);
        (void)cache.wait(key, std::chrono::milliseconds{2});
    });
}

}  // namespace
}  // namespace dedup::test
