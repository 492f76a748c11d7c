// A process at its limit of threads. Whatever wants one of its own says that there is none, in an
// error, and leaves nothing behind; a program goes on.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <functional>
#include <future>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dedup/async.hpp"
#include "dedup/dedup.h"
#include "dedup/guard.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/remote_store.hpp"
#include "dedup/server.hpp"
#include "dedup/sweeper.hpp"
#include "process/helpers.hpp"

namespace {

// How many more threads there may be; below 0: any number.
std::atomic<int> threads_left{-1};

bool take_thread() {
    int left = threads_left;
    while (left > 0 && !threads_left.compare_exchange_weak(left, left - 1)) {
    }
    return left != 0;
}

}  // namespace

// In the place of the system's, for the C++ library, too.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*run)(void*), void* argument) noexcept {
    using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
    return take_thread() ? create(thread, attributes, run, argument) : EAGAIN;
}

namespace dedup::test {
namespace {

// Lets so many more threads be made while it lives.
class ThreadLimit {
  public:
    explicit ThreadLimit(int left) { threads_left = left; }
    ~ThreadLimit() { threads_left = -1; }
    ThreadLimit(const ThreadLimit&) = delete;
    ThreadLimit& operator=(const ThreadLimit&) = delete;
};

// A store in memory, served, and a client of it.
struct Served {
    TempDir dir;
    std::string address = "unix:" + (dir.path() / "s.sock").string();
    std::unique_ptr<StreamStore> memory = make_memory_store();
    std::unique_ptr<Server> server =
        *Server::start(*memory, {.unix_path = address.substr(sizeof "unix:" - 1)});
    std::unique_ptr<StreamStore> client = *open_remote(address);
};

template <class T>
bool has_no_thread(const Result<T>& result) {
    return !result && result.error().code == Code::io && result.error().os_error == EAGAIN &&
           result.error().message.find("thread") != std::string::npos;
}

TEST_CASE("a sweep of a served store says that there is no thread, and the next one may have one") {
    const Served served;
    {
        const ThreadLimit none(0);
        CHECK(has_no_thread(served.client->sweep()));
    }
    CHECK(served.client->sweep().has_value());
}

TEST_CASE("a sweeper outlives a sweep that has no thread") {
    // Guards against an exception that ends the process.
    const Served served;
    std::promise<bool> refused;
    std::promise<bool> swept;
    std::atomic<int> sweeps{0};
    SweeperOptions options;
    options.interval = std::chrono::milliseconds{1};
    options.observer = [&](const Result<SweepReport>& outcome) {
        if (++sweeps == 1) {
            refused.set_value(has_no_thread(outcome));
            threads_left = -1;
        } else if (sweeps == 2) {
            swept.set_value(outcome.has_value());
        }
    };
    const ThreadLimit one(1);
    const auto sweeper = Sweeper::start(*served.client, options);
    REQUIRE(sweeper.has_value());
    CHECK(refused.get_future().get());
    CHECK(swept.get_future().get());
    (*sweeper)->stop();
}

TEST_CASE("through the interface for C it has a code and a text") {
    const Served served;
    dedup_error error{};
    error.size = sizeof error;
    dedup_store* store = nullptr;
    REQUIRE(dedup_open(served.address.c_str(), nullptr, &store, &error) == DEDUP_OK);
    {
        const ThreadLimit none(0);
        CHECK(dedup_sweep(store, nullptr, nullptr, &error) == DEDUP_IO);
        CHECK(error.os_error == EAGAIN);
        CHECK(std::string(error.message).find("thread") != std::string::npos);
    }
    CHECK(dedup_sweep(store, nullptr, nullptr, &error) == DEDUP_OK);
    dedup_store_free(store);
}

TEST_CASE("what a callback throws into a call for C is told") {
    dedup_error error{};
    error.size = sizeof error;
    dedup_store* store = nullptr;
    REQUIRE(dedup_open_memory(nullptr, &store, &error) == DEDUP_OK);
    dedup_sweep_options options{};
    options.size = sizeof options;
    options.progress = [](void*, std::uint64_t, std::uint64_t) -> int {
        throw std::runtime_error("thrown by the program");
    };
    CHECK(dedup_sweep(store, &options, nullptr, &error) == DEDUP_OUTCOME_UNKNOWN);
    CHECK(std::string(error.message) == "thrown by the program");
    dedup_store_free(store);
}

using Start = std::function<Result<void>()>;

// Has `start` fail for want of its first thread, its second and so on. Returns how many it has.
int threads_of(const Start& start) {
    for (int threads = 0; threads < 20; ++threads) {
        const ThreadLimit limit(threads);
        const Result<void> started = start();
        if (started) {
            return threads;
        }
        INFO(threads);
        CHECK_MESSAGE(has_no_thread(started), started.error().message);
    }
    return -1;
}

// Starts it and ends it again.
template <class T>
Result<void> done(const Result<T>& started) {
    return started ? Result<void>() : std::unexpected(started.error());
}

TEST_CASE("whatever has threads says that there are none, and can be started later") {
    const TempDir dir;
    const auto memory = make_memory_store();
    Cache cache(*memory);
    OpenOptions async;
    async.durability = Durability::async;
    const ServerOptions server{.unix_path = (dir.path() / "server.sock").string(),
                               .http = "127.0.0.1:0"};
    CHECK(threads_of([&] { return done(open(dir.path() / "store", async)); }) == 2);
    CHECK(threads_of([&] { return done(Sweeper::start(*memory)); }) == 1);
    CHECK(threads_of([&] { return done(Guard::start(*memory)); }) == 1);
    CHECK(threads_of([&] { return done(AsyncCache::start(cache)); }) > 1);
    CHECK(threads_of([&] { return done(Server::start(*memory, server)); }) > 4);
}

// Whether a forked child still has descriptors that are opened before it is made.
bool child_has_descriptors() {
    std::array<int, 32> mine{};
    for (int& fd : mine) {
        fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        REQUIRE(fd >= 0);
    }
    const int closed = exit_code(in_child([&] {
        return static_cast<int>(
            std::ranges::count_if(mine, [](int fd) { return ::fcntl(fd, F_GETFD) < 0; }));
    }));
    for (const int fd : mine) {
        ::close(fd);
    }
    return closed == 0;
}

TEST_CASE("a server that has no threads closes nothing of others in forked children") {
    // Guards against descriptors that are listed to be closed there, and somebody else's by then.
    const TempDir dir;
    const auto memory = make_memory_store();
    const ServerOptions server{.unix_path = (dir.path() / "server.sock").string(),
                               .http = "127.0.0.1:0"};
    const Start start = [&] { return done(Server::start(*memory, server)); };
    const int all = threads_of(start);
    for (int threads = 0; threads < all; ++threads) {
        INFO(threads);
        const ThreadLimit limit(threads);
        CHECK(has_no_thread(start()));
        CHECK(child_has_descriptors());
    }
}

}  // namespace
}  // namespace dedup::test
