// Several processes: one that is killed while it writes, and two that want the same store.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <set>
#include <string>

#include "dedup/cache.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

// Runs `work` in a child process that ends with its return value.
template <class Work>
pid_t in_child(Work work) {
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        _exit(work());
    }
    return pid;
}

int exit_code(pid_t pid) {
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Claims and completes keys, and tells each through the pipe once it is acknowledged.
int write_and_tell(const std::filesystem::path& path, int from, int pipe_fd) {
    OpenOptions options = small_segments();
    options.lock_timeout = std::chrono::seconds(5);
    auto store = open(path, options);
    if (!store) {
        return 1;
    }
    Cache cache(**store, {.ns = "test", .ttl = std::chrono::hours{24}});
    for (int i = from;; ++i) {
        std::vector<std::string> keys;
        std::vector<RememberRequest> requests;
        for (int j = 0; j < 10; ++j) {
            keys.push_back(std::to_string(i) + "." + std::to_string(j));
        }
        for (const std::string& key : keys) {
            requests.push_back({key, "receipt of " + key, {}});
        }
        for (const auto& result : cache.remember_many(requests)) {
            if (!result || !std::holds_alternative<New>(*result)) {
                return 2;
            }
        }
        if (write(pipe_fd, &i, sizeof i) != sizeof i) {
            return 3;
        }
    }
}

TEST_CASE("whatever was acknowledged before a kill -9 is there afterwards") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::set<int> acknowledged;
    std::minstd_rand random(42);
    const char* rounds_given = std::getenv("DEDUP_KILL_ROUNDS");
    const int rounds = rounds_given != nullptr ? std::atoi(rounds_given) : 25;
    for (int round = 0; round < rounds; ++round) {
        int fds[2];
        REQUIRE(pipe(fds) == 0);
        const pid_t writer = in_child([&] {
            close(fds[0]);
            return write_and_tell(path, round * 1'000'000, fds[1]);
        });
        close(fds[1]);
        usleep(static_cast<useconds_t>(5'000 + random() % 60'000));
        REQUIRE(kill(writer, SIGKILL) == 0);
        REQUIRE(exit_code(writer) == 128 + SIGKILL);
        for (int i = 0; read(fds[0], &i, sizeof i) == sizeof i;) {
            acknowledged.insert(i);
        }
        close(fds[0]);

        if (!std::filesystem::exists(path / "log")) {
            continue;  // killed before there was a store
        }
        auto store = open(path, small_segments());
        REQUIRE_MESSAGE(store, (store ? "" : store.error().message));
        int missing = 0;
        for (const int i : acknowledged) {
            for (int j = 0; j < 10; ++j) {
                const std::string key = std::to_string(i) + "." + std::to_string(j);
                missing += receipt_of(**store, key) != "receipt of " + key;
            }
        }
        CHECK(missing == 0);
    }
    CHECK(acknowledged.size() > 10);
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("a second writer is told which process holds the store, and gets it when that ends") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    int ready[2];
    int finish[2];
    REQUIRE(pipe(ready) == 0);
    REQUIRE(pipe(finish) == 0);
    const pid_t holder = in_child([&] {
        auto store = open(path);
        char byte = 0;
        if (!store || write(ready[1], &byte, 1) != 1 || read(finish[0], &byte, 1) != 1) {
            return 1;
        }
        return 0;
    });
    char byte = 0;
    REQUIRE(read(ready[0], &byte, 1) == 1);
    const Error error = open_error(path);
    CHECK(error.code == Code::busy);
    CHECK(error.message.find("process " + std::to_string(holder)) != std::string::npos);
    CHECK(receipt_of(*must_open(path, read_only()), "key") == "(absent)");
    REQUIRE(write(finish[1], &byte, 1) == 1);
    OpenOptions patient;
    patient.lock_timeout = std::chrono::seconds(30);
    must_append(*must_open(path, patient), "key");
    CHECK(exit_code(holder) == 0);
    for (const int fd : {ready[0], ready[1], finish[0], finish[1]}) {
        close(fd);
    }
}

TEST_CASE("of many processes that claim one key, exactly one gets it") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::vector<pid_t> children;
    for (int i = 0; i < 8; ++i) {
        children.push_back(in_child([&] {
            OpenOptions options;
            options.lock_timeout = std::chrono::seconds(30);
            auto store = open(path, options);
            if (!store) {
                return 2;
            }
            Cache cache(**store);
            const auto outcome = cache.claim("the key");
            if (!outcome) {
                return 3;
            }
            return std::holds_alternative<Claimed>(*outcome) ? 0 : 1;
        }));
    }
    int winners = 0;
    for (const pid_t child : children) {
        const int code = exit_code(child);
        CHECK(code <= 1);
        winners += code == 0;
    }
    CHECK(winners == 1);
}

TEST_CASE("one process cannot open a store for writing twice") {
    const TempDir dir;
    const auto store = must_open(dir.path() / "store");
    const Error error = open_error(dir.path() / "store");
    CHECK(error.code == Code::busy);
    CHECK(error.message.find(std::to_string(getpid())) != std::string::npos);
}

}  // namespace
}  // namespace dedup::test
