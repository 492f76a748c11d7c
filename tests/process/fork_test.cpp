// A process that is forked while a store is open has a copy of everything in it: locks that
// threads held which it does not have, files whose ends it does not know, a log that another
// process goes on writing. Invariant: nothing that it does with the copy succeeds, hangs, or
// changes anything of the parent's.
#include <fcntl.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "dedup/guard.hpp"
#include "dedup/sweeper.hpp"
#include "process/helpers.hpp"

namespace dedup::test {
namespace {

// Everything that a service has open.
struct Service {
    explicit Service(const std::filesystem::path& path, const OpenOptions& options = {})
        : store(opened(path, options)),
          cache(std::make_unique<Cache>(*store)),
          guard(*Guard::start(*store)),
          sweeper(*Sweeper::start(*store, {.interval = std::chrono::milliseconds{1}})) {}

    std::unique_ptr<StreamStore> store;
    std::unique_ptr<Cache> cache;
    std::unique_ptr<Guard> guard;
    std::unique_ptr<Sweeper> sweeper;
};

// Whether the call says that the store is another process's, which one, and what to do.
template <class T>
bool refused(const Result<T>& result, pid_t owner) {
    return !result && result.error().code == Code::closed &&
           result.error().message.find("process " + std::to_string(owner)) != std::string::npos &&
           result.error().message.find(std::to_string(getpid())) != std::string::npos &&
           result.error().message.find("open it again") != std::string::npos;
}

// How many of all calls are not refused.
int calls_that_work(Service& service, pid_t owner) {
    StreamStore& store = *service.store;
    Cache& cache = *service.cache;
    int work = 0;
    const auto check = [&](const auto& result) { work += !refused(result, owner); };
    const StreamKey stream{"default", "key"};
    const std::string_view keys[] = {"a", "b"};
    const Append item;
    check(cache.claim("key"));
    check(cache.remember("key", "receipt"));
    check(cache.lookup("key"));
    check(cache.lookup_many(keys)[1]);
    check(cache.complete({.ns = "default", .key = "key", .claim_sequence = 1}, "receipt"));
    check(
        cache.renew({.ns = "default", .key = "key", .claim_sequence = 1}, std::chrono::seconds{1}));
    check(cache.wait("key", std::chrono::seconds{1}));
    check(service.guard->process_if_new("event", [](const Attempt&) { return "result"; }));
    check(service.guard->is_processed("event"));
    check(service.sweeper->sweep_once());
    check(store.append({&item, 1})[0]);
    check(store.heads({&stream, 1})[0]);
    check(store.head(stream));
    check(store.history(stream));
    check(store.scan({}));
    check(store.sweep());
    check(store.sweep({.dry_run = true}));
    check(store.sweep_history());
    check(store.stats());
    check(store.flush());
    check(store.close());
    (void)store.metrics();
    service.sweeper->stop();
    return work;
}

TEST_CASE("in a forked child every call says whose the store is, and to open it again") {
    const TempDir dir;
    for (const bool read_only : {false, true}) {
        Service service(dir.path() / "store");
        const auto reader = opened(dir.path() / "store", {.read_only = true});
        const pid_t owner = getpid();
        CHECK(exit_code(in_child([&] {
                  alarm(kHangSeconds);
                  if (read_only) {
                      service.store->close().error();
                      return refused(reader->head({"default", "key"}), owner) &&
                                     refused(reader->stats(), owner) &&
                                     refused(reader->flush(), owner)
                                 ? 0
                                 : 1;
                  }
                  return calls_that_work(service, owner);
              })) == 0);
        CHECK(remembers(*service.cache, read_only ? "second" : "first"));
        CHECK(reader->head({"default", "first"}).value().has_value());
    }
}

TEST_CASE("however a child ends, the parent goes on, and nothing acknowledged is lost") {
    const TempDir dir;
    constexpr int kKeys = 50;
    int round = 0;
    for (const Durability durability : {Durability::sync, Durability::async}) {
        for (const std::function<void(int)>& end :
             {std::function<void(int)>([](int code) { std::exit(code); }),
              std::function<void(int)>([](int code) { _exit(code); })}) {
            for (const bool destroys : {true, false}) {
                const auto path = dir.path() / std::to_string(round++);
                OpenOptions options = segments_of_64_kib();
                options.durability = durability;
                {
                    auto service = std::make_unique<Service>(path, options);
                    const Signpost forked;
                    const pid_t child = in_child([&] {
                        alarm(kHangSeconds);
                        forked.await();  // the parent has gone on
                        if (destroys) {
                            service.reset();
                        }
                        end(3);
                        return 0;
                    });
                    const std::string receipt(5'000, 'r');
                    int acknowledged = 0;
                    for (int i = 0; i < kKeys; ++i) {
                        acknowledged +=
                            remembers(*service->cache, "k" + std::to_string(i), receipt);
                    }
                    CHECK(acknowledged == kKeys);
                    forked.give();
                    CHECK(exit_code(child) == 3);
                    CHECK(knows(*service->cache, "k0"));
                    CHECK(remembers(*service->cache, "later"));
                    CHECK(service->store->close());
                }
                CHECK(missing(path, "k", kKeys) == 0);
                CHECK(verify(path)->problems.empty());
            }
        }
    }
}

TEST_CASE("forks beside threads that append, read, wait and sweep") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    constexpr int kThreads = 3;
    std::atomic<int> acknowledged[kThreads] = {};
    {
        auto service = std::make_unique<Service>(path, segments_of_64_kib());
        std::atomic<bool> stop{false};
        std::vector<std::thread> threads;
        for (int t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                const std::string receipt(500, 'r');
                while (!stop) {
                    const std::string key =
                        std::to_string(t) + "-" + std::to_string(acknowledged[t]);
                    acknowledged[t] += remembers(*service->cache, key, receipt);
                    (void)service->cache->claim("in flight");
                    (void)service->cache->wait("in flight", std::chrono::milliseconds{1});
                }
            });
        }
        const pid_t owner = getpid();
        int bad = 0;
        for (int i = 0; i < 40; ++i) {
            const pid_t child = in_child([&] {
                alarm(kHangSeconds);
                const int work = calls_that_work(*service, owner);
                service.reset();
                // Also from the very beginning, with what the parent has in memory.
                const auto reader = open(path, {.read_only = true});
                const auto writer = open(path);
                return work == 0 && reader && !writer && writer.error().code == Code::busy ? 0 : 1;
            });
            bad += exit_code(child) != 0;
        }
        CHECK(bad == 0);
        stop = true;
        for (std::thread& thread : threads) {
            thread.join();
        }
    }
    for (int t = 0; t < kThreads; ++t) {
        CHECK(acknowledged[t] > 0);
        CHECK(missing(path, std::to_string(t) + "-", acknowledged[t]) == 0);
    }
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("a daemon that forked after opening is told at its first call, and opens it anew") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    const Shared<std::atomic<int>> result;
    const Signpost done;
    const pid_t starter = in_child([&] {
        auto service = std::make_unique<Service>(path);
        const pid_t owner = getpid();  // before the fork: it may end before its child looks
        if (!remembers(*service->cache, "k0") || fork() != 0) {
            _exit(0);  // as daemon() does
        }
        alarm(kHangSeconds);
        while (getppid() == owner) {
            usleep(1'000);
        }
        const auto first = service->cache->remember("k1", "r");
        const bool told = !first && first.error().code == Code::closed;
        service.reset();
        auto store = open(path);
        if (store) {
            Cache cache(**store);
            *result = told && remembers(cache, "k1") && (*store)->close() ? 1 : 2;
        }
        done.give();
        return 0;
    });
    CHECK(exit_code(starter) == 0);
    done.await();
    CHECK(*result == 1);
    CHECK(missing(path, "k", 2) == 0);
}

TEST_CASE("what a child opens itself is its own, and not its children's") {
    const TempDir dir;
    const auto parents = opened(dir.path() / "store");
    CHECK(exit_code(in_child([&] {
              alarm(kHangSeconds);
              auto mine = open(dir.path() / "mine");
              if (!mine) {
                  return 1;
              }
              Cache cache(**mine);
              const pid_t me = getpid();
              const int grandchild = exit_code(in_child([&] {
                  auto inherited = refused(cache.remember("k0", "r"), me);
                  mine->reset();
                  return inherited ? 0 : 1;
              }));
              return grandchild == 0 && remembers(cache, "k0") && (*mine)->close() ? 0 : 2;
          })) == 0);
    CHECK(missing(dir.path() / "mine", "k", 1) == 0);
}

TEST_CASE("a fork past the C library is noticed, too") {
    const TempDir dir;
    auto service = std::make_unique<Service>(dir.path() / "store");
    const pid_t owner = getpid();
    const pid_t child = _Fork();
    if (child == 0) {
        alarm(kHangSeconds);
        const int work = calls_that_work(*service, owner);
        service.reset();
        _exit(work);
    }
    CHECK(exit_code(child) == 0);
    CHECK(remembers(*service->cache, "key"));
}

TEST_CASE("a child that is forked in a callback comes back from it and gets an error") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    auto store = opened(path, segments_of_64_kib());
    pid_t child = -1;
    const auto fork_here = [&] { child = fork(); };
    const auto end_child = [&](bool refused_to_child) {
        if (child == 0) {
            store.reset();
            _exit(refused_to_child ? 0 : 1);
        }
        return exit_code(child);
    };
    alarm(kHangSeconds);

    auto guard = *Guard::start(*store);
    auto processed = guard->process_if_new("event", [&](const Attempt&) {
        fork_here();
        return "result";
    });
    CHECK(end_child(!processed) == 0);
    CHECK(processed);

    Cache cache(*store, {.observer = [&](const Transition&) { fork_here(); }});
    const auto claimed = cache.claim("observed");
    CHECK(end_child(!cache.lookup("observed")) == 0);
    CHECK(claimed);
    alarm(0);
    guard.reset();
    CHECK(store->close());
    CHECK(verify(path)->problems.empty());
}

// The child has the sweep's thread and none of the others, of which some hold locks just then.
TEST_CASE("a child that is forked in the progress of a sweep comes back, and gets an error") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    auto store = opened(path, segments_of_64_kib());
    Cache cache(*store);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; !stop; ++i) {
                (void)store->stats();
                (void)cache.remember(std::to_string(t) + "-" + std::to_string(i),
                                     std::string(1'000, 'r'), {.ttl = std::chrono::hours{1}});
            }
        });
    }
    int bad = 0;
    for (int i = 0; i < 40; ++i) {
        pid_t child = -1;
        SweepOptions options;
        options.progress = [&](std::uint64_t, std::uint64_t) {
            if (child < 0) {
                child = fork();
                if (child == 0) {
                    alarm(kHangSeconds);
                }
            }
        };
        const auto swept = store->sweep(options);
        if (child == 0) {
            _exit(!swept && swept.error().code == Code::closed ? 0 : 1);
        }
        bad += !swept || child < 0 || exit_code(child) != 0;
    }
    CHECK(bad == 0);
    stop = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(store->close());
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("a child that is forked in the progress of a repair leaves the new store to its parent") {
    const TempDir dir;
    const auto damaged = dir.path() / "damaged";
    const auto mended = dir.path() / "mended";
    {
        const auto store = opened(damaged);
        Cache cache(*store);
        CHECK(remembers(cache, "k0"));
        CHECK(remembers(cache, "k1"));
    }
    pid_t child = -1;
    const auto repaired = repair(damaged, mended, [&](std::uint64_t, std::uint64_t) {
        if (child < 0) {
            child = fork();
            alarm(child == 0 ? kHangSeconds : 0);
            if (child > 0) {
                CHECK(exit_code(child) == 0);
            }
        }
    });
    if (child == 0) {
        _exit(!repaired && repaired.error().code == Code::closed ? 0 : 1);
    }
    CHECK(repaired);
    CHECK(missing(mended, "k", 2) == 0);
}

// Whether opening is refused because process `writer` has the store.
bool refused_by(const Result<std::unique_ptr<StreamStore>>& store, pid_t writer) {
    return !store && store.error().code == Code::busy &&
           store.error().message.find("process " + std::to_string(writer) + " ") !=
               std::string::npos;
}

// What a server does that opens its store before it forks its workers (gunicorn --preload): they
// are told; and when the parent has closed it, each opens it itself, of which one succeeds.
TEST_CASE("the workers of a server that opened the store before it forked them") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    constexpr int kWorkers = 3;
    auto service = std::make_unique<Service>(path);
    const pid_t server = getpid();
    const Shared<std::atomic<pid_t>> writer;
    const Signpost closed;
    const Signpost tried;
    const Signpost end;
    const auto work = [&] {
        if (calls_that_work(*service, server) != 0 || !refused_by(open(path), server)) {
            return 1;
        }
        tried.give();
        closed.await();
        const auto mine = open(path);
        if (mine) {
            *writer = getpid();
        }
        tried.give();
        end.await();
        if (!mine) {
            return refused_by(mine, *writer) ? 0 : 2;
        }
        Cache cache(**mine);
        return knows(cache, "k0") && remembers(cache, "k1") && (*mine)->close() ? 0 : 3;
    };
    std::vector<pid_t> workers;
    const auto all = [&](const Signpost& signpost, void (Signpost::*pass)() const) {
        for (int i = 0; i < kWorkers; ++i) {
            (signpost.*pass)();
        }
    };
    for (int i = 0; i < kWorkers; ++i) {
        workers.push_back(in_exiting_child(work));
    }
    all(tried, &Signpost::await);
    CHECK(remembers(*service->cache, "k0"));
    service.reset();
    all(closed, &Signpost::give);
    all(tried, &Signpost::await);
    all(end, &Signpost::give);
    for (const pid_t worker : workers) {
        CHECK(exit_code(worker) == 0);
    }
    CHECK(*writer != 0);
    CHECK(missing(path, "k", 2) == 0);
    CHECK(verify(path)->problems.empty());
}

}  // namespace
}  // namespace dedup::test
