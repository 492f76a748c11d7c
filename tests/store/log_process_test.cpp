// Several processes: one that is killed while it writes, and two that want the same store.

#include <doctest/doctest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <set>
#include <string>

#include "dedup/cache.hpp"
#include "support/child_process.hpp"
#include "support/environment.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

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
        std::vector<RememberRequest> requests;
        for (int j = 0; j < 10; ++j) {
            const std::string key = std::to_string(i) + "." + std::to_string(j);
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
    const auto rounds = static_cast<int>(number_from_environment("DEDUP_KILL_ROUNDS", 25));
    for (int round = 0; round < rounds; ++round) {
        int fds[2];
        REQUIRE(pipe(fds) == 0);
        const pid_t writer = in_child([&] {
            close(fds[0]);
            return write_and_tell(path, round * 1'000'000, fds[1]);
        });
        close(fds[1]);
        // Every other round ends wherever the writer is, perhaps before there is a store, which
        // takes long in a slow build; the rest once it has acknowledged something.
        int first = 0;
        if (round % 2 != 0 && read(fds[0], &first, sizeof first) == sizeof first) {
            acknowledged.insert(first);
        }
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

// Time passes by a second an iteration.
constexpr std::int64_t kStepMs = 1'000;
constexpr int kBriefSteps = 6;  // a brief key is gone by then: its ttl and the grace

std::int64_t time_of(int i) {
    return 1'700'000'000'000 + i * kStepMs;
}

OpenOptions sweeping_options(const std::shared_ptr<int>& now) {
    OpenOptions options = small_segments();
    options.lock_timeout = std::chrono::seconds(5);
    options.clock = [now] { return time_of(*now); };
    return options;
}

std::string name_of(const char* kind, int i, int j) {
    return kind + std::to_string(i) + "." + std::to_string(j);
}

// Remembers some keys for good and more for a short time, and sweeps now and then. Tells `i` once
// the keys of iteration i are acknowledged, and -i once a sweep at that time has been reported.
int sweep_and_tell(const std::filesystem::path& path, int from, int pipe_fd) {
    const auto now = std::make_shared<int>(from);
    auto store = open(path, sweeping_options(now));
    if (!store) {
        return 1;
    }
    Cache cache(**store, {.ns = "test", .ttl = std::chrono::hours{100'000}});
    const std::string text(900, 'r');
    for (int i = from;; *now = ++i) {
        std::vector<RememberRequest> requests;
        for (int j = 0; j < 10; ++j) {
            requests.push_back({name_of(j < 3 ? "kept-" : "brief-", i, j), text, {}});
            if (j >= 3) {
                requests.back().options.ttl =
                    std::chrono::milliseconds((kBriefSteps - 2) * kStepMs);
            }
        }
        for (const auto& result : cache.remember_many(requests)) {
            if (!result || !std::holds_alternative<New>(*result)) {
                return 2;
            }
        }
        if (write(pipe_fd, &i, sizeof i) != sizeof i) {
            return 3;
        }
        if (i % 8 == 0) {
            const int swept = -i;
            if (!(*store)->sweep() || write(pipe_fd, &swept, sizeof swept) != sizeof swept) {
                return 4;
            }
        }
    }
}

// How many of the keys are not as they should be after the last reported sweep.
int count_wrong(StreamStore& store, const std::set<int>& acknowledged, int swept) {
    int wrong = 0;
    for (const int i : acknowledged) {
        for (int j = 0; j < 10; ++j) {
            const auto head = store.head({"test", name_of(j < 3 ? "kept-" : "brief-", i, j)});
            const bool unexpired = i + 2 >= *acknowledged.rbegin();
            if (j < 3 || unexpired) {
                wrong += !head || !*head;
            } else if (i + kBriefSteps < swept) {
                wrong += !head || *head;
            }
        }
    }
    return wrong;
}

std::uint64_t count_heads(StreamStore& store) {
    std::uint64_t count = 0;
    ScanOptions options;
    do {
        const auto page = store.scan(options);
        REQUIRE(page);
        count += page->heads.size();
        options.cursor = page->cursor;
    } while (!options.cursor.empty());
    return count;
}

TEST_CASE("kill -9 while it sweeps: what was acknowledged is there, what was swept is not") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::set<int> acknowledged;
    int swept = 0;
    std::minstd_rand random(43);
    const auto rounds = static_cast<int>(number_from_environment("DEDUP_KILL_ROUNDS", 25));
    std::uint64_t segments_given_up = 0;
    for (int round = 1; round <= rounds; ++round) {
        int fds[2];
        REQUIRE(pipe(fds) == 0);
        const pid_t writer = in_child([&] {
            close(fds[0]);
            return sweep_and_tell(path, round * 100'000, fds[1]);
        });
        close(fds[1]);
        const auto hear = [&] {
            int i = 0;
            if (read(fds[0], &i, sizeof i) != sizeof i) {
                return false;
            }
            if (i > 0) {
                acknowledged.insert(i);
            }
            swept = std::max(swept, -i);
            return true;
        };
        // After so many words, however slow the machine is, and some time.
        for (auto words = random() % 120; words > 0 && hear(); --words) {
        }
        usleep(static_cast<useconds_t>(random() % 20'000));
        REQUIRE(kill(writer, SIGKILL) == 0);
        REQUIRE(exit_code(writer) == 128 + SIGKILL);
        while (hear()) {
        }
        close(fds[0]);
        if (acknowledged.empty()) {
            continue;
        }
        const auto now = std::make_shared<int>(*acknowledged.rbegin());
        const auto store = must_open(path, sweeping_options(now));
        CHECK(count_wrong(*store, acknowledged, swept) == 0);
        CHECK(store->stats()->streams() == count_heads(*store));
        const auto history = store->sweep_history();
        REQUIRE(history);
        for (const SweepReport& report : *history) {
            segments_given_up += report.segments_dropped + report.segments_compacted;
        }
    }
    CHECK(swept != 0);
    CHECK(segments_given_up > 0);
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

// Runs `work` as process 1 of a pid namespace of its own, which only root can make; 77 if this may
// not.
template <class Work>
pid_t in_child_with_pid_1(Work work) {
    return in_child([&] {
        if (unshare(CLONE_NEWPID) != 0) {
            return 77;
        }
        return exit_code(in_child(work));
    });
}

// As in two containers that share a volume.
TEST_CASE("a reader has the writer's pid, in another pid namespace") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    int began[2];
    int end[2];
    REQUIRE(pipe(began) == 0);
    REQUIRE(pipe(end) == 0);
    char byte = 0;
    const pid_t writer = in_child_with_pid_1([&] {
        auto store = open(path);
        must_append(**store, "key");
        (void)!write(began[1], "x", 1);
        (void)!read(end[0], &byte, 1);
        return store && (*store)->close() ? 0 : 1;
    });
    close(began[1]);
    (void)!read(began[0], &byte, 1);
    const int reader = exit_code(in_child_with_pid_1([&] {
        const auto store = open(path, {.read_only = true});
        return store && receipt_of(**store, "key") == "done" && (*store)->stats()->completed == 1
                   ? 0
                   : 1;
    }));
    (void)!write(end[1], "x", 1);
    const int wrote = exit_code(writer);
    close(began[0]);
    close(end[0]);
    close(end[1]);
    if (wrote == 77) {
        MESSAGE("not root: nothing to try");
        return;
    }
    CHECK(wrote == 0);
    CHECK(reader == 0);
}

}  // namespace
}  // namespace dedup::test
