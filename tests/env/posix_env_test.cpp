// The system's calls as they are allowed to behave: interrupted by signals, and doing a part of
// what they were asked for. Nothing of that may reach the store, but for a flush that failed, which
// must never be tried again: the second one might succeed although the data is lost.
//
// This program defines the calls itself, in front of the C library's.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <string>

#include "env/env.hpp"
#include "support/temp_dir.hpp"

namespace {

// What the calls below do: every other one is interrupted, the rest do at most `bytes_max`.
struct Mood {
    bool interrupts = false;
    std::size_t bytes_max = SIZE_MAX;
    std::size_t bytes_until_full = SIZE_MAX;
    int flush_error = 0;
    int calls = 0;
    int flushes = 0;
};
Mood mood;

bool interrupted() {
    errno = EINTR;
    return mood.calls++ % 2 == 0 && mood.interrupts;
}

}  // namespace

extern "C" {

ssize_t pread(int fd, void* into, size_t bytes, off_t offset) {
    return interrupted()
               ? -1
               : ::syscall(SYS_pread64, fd, into, std::min(bytes, mood.bytes_max), offset);
}

ssize_t pwrite(int fd, const void* from, size_t bytes, off_t offset) {
    if (interrupted()) {
        return -1;
    }
    bytes = std::min({bytes, mood.bytes_max, mood.bytes_until_full});
    if (bytes == 0) {
        errno = ENOSPC;
        return -1;
    }
    mood.bytes_until_full -= bytes;
    return ::syscall(SYS_pwrite64, fd, from, bytes, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
    return interrupted() ? -1 : static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, bytes));
}

int ftruncate(int fd, off_t bytes) noexcept {
    return interrupted() ? -1 : static_cast<int>(::syscall(SYS_ftruncate, fd, bytes));
}

int fdatasync(int fd) {
    ++mood.flushes;
    if (mood.flush_error != 0) {
        errno = mood.flush_error;
        return -1;
    }
    return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

}  // extern "C"

namespace dedup::test {
namespace {

std::string sample(std::size_t bytes) {
    std::string text(bytes, '\0');
    for (std::size_t i = 0; i < bytes; ++i) {
        text[i] = static_cast<char>(i * 7 + i / 251);
    }
    return text;
}

TEST_CASE("calls that are interrupted or do a part are taken to their end") {
    const TempDir dir;
    const std::string written = sample(10'000);
    for (const bool interrupts : {false, true}) {
        for (const std::size_t bytes_max : {1UL, 7UL, 512UL, 9'999UL}) {
            mood = {.interrupts = interrupts, .bytes_max = bytes_max};
            const auto file = posix_env().open(dir.path() / "file", OpenMode::create);
            REQUIRE(file);
            REQUIRE((*file)->write(3, written));
            std::string read(20'000, 'x');
            const auto got = (*file)->read(3, read);
            CHECK(got == written.size());
            CHECK(read.substr(0, written.size()) == written);
            REQUIRE((*file)->truncate(5'000));
            REQUIRE((*file)->reserve(6'000));
            CHECK((*file)->size() == 6'000U);
            CHECK(mood.calls >= static_cast<int>(written.size() / bytes_max));
        }
    }
    mood = {};
}

TEST_CASE("a disk that is full halfway through a write is out_of_space") {
    const TempDir dir;
    mood = {.interrupts = true, .bytes_max = 100, .bytes_until_full = 250};
    const auto file = posix_env().open(dir.path() / "file", OpenMode::create);
    const auto done = (*file)->write(0, sample(1'000));
    mood = {};
    REQUIRE_FALSE(done);
    CHECK(done.error().code == Code::out_of_space);
    CHECK(done.error().message.find((dir.path() / "file").string()) != std::string::npos);
    CHECK((*file)->size() == 250U);
}

TEST_CASE("a flush that fails is not tried again, not even if a signal interrupted it") {
    const TempDir dir;
    const auto file = posix_env().open(dir.path() / "file", OpenMode::create);
    for (const int os_error : {EIO, EINTR, ENOSPC}) {
        mood = {.flush_error = os_error};
        const auto done = (*file)->sync();
        CHECK(mood.flushes == 1);
        mood = {};
        REQUIRE_FALSE(done);
        CHECK(done.error().os_error == os_error);
    }
}

TEST_CASE("who gives a lock back touches its file: so those who wait know that nobody is stuck") {
    const TempDir dir;
    const auto path = dir.path() / "LOCK";
    auto lock = posix_env().lock(path, {});
    REQUIRE(lock);
    const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours{1};
    std::filesystem::last_write_time(path, long_ago);
    lock->reset();
    CHECK(std::filesystem::last_write_time(path) > long_ago + std::chrono::minutes{30});
}

}  // namespace
}  // namespace dedup::test
