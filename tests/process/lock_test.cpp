// The lock of a store belongs to the process that took it, as long as that has the store open: not
// longer because a child lives, not shorter because somebody removes a file. And who is kept out is
// told by whom.
#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <thread>

#include "process/helpers.hpp"

extern char** environ;

namespace dedup::test {
namespace {

Error refusal(const std::filesystem::path& path) {
    const auto store = open(path);
    REQUIRE_FALSE(store);
    CHECK(store.error().code == Code::busy);
    return store.error();
}

bool says(const Error& error, const std::string& text) {
    return error.message.find(text) != std::string::npos;
}

TEST_CASE("close gives the lock up although a child lives") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    for (const bool past_the_library : {false, true}) {
        auto store = opened(path);
        const Signpost end;
        const pid_t child = past_the_library ? _Fork() : fork();
        if (child == 0) {
            end.await();
            _exit(0);
        }
        CHECK(store->close());
        CHECK(open(path));
        end.give();
        CHECK(exit_code(child) == 0);
    }
}

TEST_CASE("programs that are started meanwhile do not keep a lock") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::atomic<bool> stop{false};
    std::thread spawner([&] {
        char name[] = "true";
        char* arguments[] = {name, nullptr};
        while (!stop) {
            pid_t pid = 0;
            if (posix_spawnp(&pid, name, nullptr, nullptr, arguments, environ) == 0) {
                (void)exit_code(pid);
            }
        }
    });
    int refused = 0;
    for (int i = 0; i < 40; ++i) {
        const auto store = open(path);
        refused += !store;
    }
    stop = true;
    spawner.join();
    CHECK(refused == 0);
}

TEST_CASE("a writer that was killed is gone, although a child of it lives") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    for (const bool past_the_library : {false, true}) {
        const Shared<std::atomic<pid_t>> child;
        const Signpost forked_off;  // the child has left `fork`, which gives its lock up
        const Signpost end;
        const pid_t writer = in_child([&] {
            const auto store = open(path);
            const pid_t forked = past_the_library ? _Fork() : fork();
            if (forked == 0) {
                forked_off.give();
                end.await();
                _exit(0);
            }
            *child = forked;
            forked_off.await();
            raise(SIGKILL);
            return 0;
        });
        CHECK(exit_code(writer) == 128 + SIGKILL);
        if (past_the_library) {
            // Nobody could close the lock in the child. So say what is the matter.
            const Error error = refusal(path);
            INFO(error.message);
            CHECK(says(error, "the writer is gone"));
            CHECK(says(error, "process " + std::to_string(writer) + " has ended"));
            CHECK(says(error, std::to_string(*child)));
        } else {
            CHECK(open(path));
        }
        end.give();
        for (int i = 0; i < 10'000 && kill(*child, 0) == 0 && past_the_library; ++i) {
            usleep(1'000);
        }
    }
    OpenOptions patient;
    patient.lock_timeout = std::chrono::seconds{30};
    CHECK(open(path, patient));
}

TEST_CASE("a store is not opened twice because its lock file was removed") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto store = opened(path);
    for (const bool replaced : {false, true}) {
        std::filesystem::remove(path / "LOCK");
        if (replaced) {
            std::ofstream(path / "LOCK") << "1\n";
        }
        const Error error = refusal(path);
        INFO(error.message);
        CHECK(says(error, "process " + std::to_string(getpid())));
    }
    std::filesystem::create_directory_symlink(path, dir.path() / "link");
    (void)refusal(dir.path() / "link");
    Cache cache(*store);
    CHECK(remembers(cache, "key"));
}

TEST_CASE("a repair is kept out by a writer, whatever lies in the place of the lock file") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto store = opened(path);
    const auto lock = path / "LOCK";
    const auto victim = dir.path() / "victim";
    std::ofstream(victim) << "1\n";
    for (const std::function<void()>& put : std::initializer_list<std::function<void()>>{
             [] {}, [&] { CHECK(mkfifo(lock.c_str(), 0600) == 0); },
             [&] { std::filesystem::create_symlink(victim, lock); }}) {
        std::filesystem::remove(lock);
        put();
        alarm(kHangSeconds);
        const auto repaired = repair(path, dir.path() / "mended");
        alarm(0);
        REQUIRE_FALSE(repaired);
        CHECK(repaired.error().code == Code::busy);
        CHECK(says(repaired.error(), "process " + std::to_string(getpid())));
    }
}

TEST_CASE("whoever is kept out is told by which process, also if that is no writer") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    {
        const auto store = opened(path);
        const Error error = refusal(path);
        INFO(error.message);
        CHECK(says(error, "process " + std::to_string(getpid()) + ", which is this one"));
        CHECK(says(error, " since 20"));
        const Shared<std::atomic<bool>> told;
        const pid_t owner = getpid();
        CHECK(exit_code(in_child([&] {
                  const auto other = open(path);
                  return other || !says(other.error(), "process " + std::to_string(owner) + " (") ||
                                 says(other.error(), "this one")
                             ? 1
                             : 0;
              })) == 0);
    }
    for (const char* what : {"LOCK", "."}) {
        const Signpost locked;
        const Signpost end;
        const pid_t stranger = in_child([&] {
            const int fd = ::open((path / what).c_str(), O_RDONLY);
            const int rc = flock(fd, LOCK_EX);
            locked.give();
            end.await();
            return rc;
        });
        locked.await();
        const Error error = refusal(path);
        INFO(error.message);
        CHECK(says(error, "locked by process " + std::to_string(stranger)));
        end.give();
        CHECK(exit_code(stranger) == 0);
    }
    CHECK(open(path));
}

}  // namespace
}  // namespace dedup::test
