// Descriptors are the program's: its standard ones never become files of a store, programs that
// it starts inherit none of a store, and a store takes few.
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <cerrno>
#include <map>

#include "process/helpers.hpp"

namespace dedup::test {
namespace {

// The open descriptors whose file is below `directory`, with their flags.
std::map<int, int> files_below(const std::filesystem::path& directory) {
    std::map<int, int> found;
    DIR* fds = opendir("/proc/self/fd");
    while (const dirent* entry = readdir(fds)) {
        std::error_code error;
        const auto file = std::filesystem::read_symlink(
            std::filesystem::path("/proc/self/fd") / entry->d_name, error);
        if (!error && file.string().starts_with(directory.string())) {
            const int fd = std::atoi(entry->d_name);
            found[fd] = fcntl(fd, F_GETFD);
        }
    }
    closedir(fds);
    return found;
}

// Remembers keys with receipts of 5,000 bytes: 13 a segment.
int remember_large(Cache& cache, int from, int to) {
    const std::string receipt(5'000, 'r');
    for (int i = from; i < to; ++i) {
        if (!remembers(cache, "k" + std::to_string(i), receipt)) {
            return i - from;
        }
    }
    return to - from;
}

TEST_CASE("standard descriptors never become files of a store, whenever they were closed") {
    const TempDir dir;
    for (const bool before : {true, false}) {
        const auto path = dir.path() / (before ? "before" : "after");
        constexpr int kKeys = 100;
        CHECK(exit_code(in_child([&] {
                  const auto close_all = [] {
                      for (int fd = 0; fd <= 2; ++fd) {
                          close(fd);
                      }
                  };
                  if (before) {
                      close_all();
                  }
                  auto store = open(path, segments_of_64_kib());
                  if (!store) {
                      return 1;
                  }
                  if (!before) {
                      close_all();
                  }
                  Cache cache(**store);
                  for (int i = 0; i < kKeys; ++i) {
                      (void)!write(1, "output\n", 7);
                      (void)!write(2, "output\n", 7);
                      if (remember_large(cache, i, i + 1) != 1) {
                          return 2;
                      }
                      const auto files = files_below(path);
                      if (files.empty() || files.begin()->first <= 2) {
                          return 3;
                      }
                  }
                  return (*store)->sweep() && (*store)->close() ? 0 : 4;
              })) == 0);
        CHECK(missing(path, "k", kKeys) == 0);
        CHECK(verify(path)->problems.empty());
    }
}

TEST_CASE("programs that are started inherit no file of a store") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto store = opened(path, segments_of_64_kib());
    Cache cache(*store);
    CHECK(remember_large(cache, 0, 40) == 40);
    const auto reader = opened(path, {.read_only = true});
    const auto files = files_below(path);
    CHECK(files.size() >= 4);
    for (const auto& [fd, flags] : files) {
        INFO(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)));
        CHECK((flags & FD_CLOEXEC) != 0);
    }
}

TEST_CASE("a store of 400 segments is written, read and verified with 256 descriptors") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    constexpr int kKeys = 400 * 13;
    CHECK(exit_code(in_child([&] {
              const rlimit few{256, 256};
              setrlimit(RLIMIT_NOFILE, &few);
              for (int round = 0; round < 2; ++round) {
                  OpenOptions options = segments_of_64_kib();
                  options.durability = Durability::async;
                  const auto store = open(path, options);
                  if (!store) {
                      return 1;
                  }
                  Cache cache(**store);
                  if (round == 0 && remember_large(cache, 0, kKeys) != kKeys) {
                      return 2;
                  }
                  const auto reader = open(path, {.read_only = true});
                  const auto stats = (*store)->stats();
                  if (!reader || !stats ||
                      stats->segments_sealed + stats->segments_unsealed < 400) {
                      return 3;
                  }
                  Cache seen(**reader);
                  for (const int i : {0, kKeys / 2, kKeys - 1}) {
                      if (!knows(cache, "k" + std::to_string(i)) ||
                          !knows(seen, "k" + std::to_string(i))) {
                          return 4;
                      }
                  }
              }
              return verify(path)->problems.empty() ? 0 : 5;
          })) == 0);
}

TEST_CASE("a lack of descriptors fails calls, and not the store") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    constexpr int kBefore = 20;
    constexpr int kKeys = 200;
    // The child says how many descriptors it may have besides those it has open.
    for (const int spare : {0, 1, 2, 3, 4}) {
        INFO(spare);
        const auto at = path.string() + std::to_string(spare);
        CHECK(exit_code(in_child([&] {
                  auto store = open(at, segments_of_64_kib());
                  if (!store) {
                      return 1;
                  }
                  Cache cache(**store);
                  rlimit usual{};
                  getrlimit(RLIMIT_NOFILE, &usual);
                  const int next = dup(0);
                  close(next);
                  const rlimit few{static_cast<rlim_t>(next + spare), usual.rlim_max};
                  if (remember_large(cache, 0, kBefore) != kBefore) {
                      return 2;
                  }
                  setrlimit(RLIMIT_NOFILE, &few);
                  int done = kBefore;
                  while (done < kKeys && remember_large(cache, done, done + 1) == 1) {
                      ++done;
                  }
                  const auto refused = cache.remember("k" + std::to_string(done), "r");
                  if (done < kKeys && (refused || refused.error().os_error != EMFILE)) {
                      return 3;
                  }
                  (void)(*store)->sweep({.now_ms = system_now_ms() + 1'000});
                  setrlimit(RLIMIT_NOFILE, &usual);
                  if (remember_large(cache, done, kKeys) != kKeys - done) {
                      return 4;
                  }
                  return (*store)->sweep() && (*store)->close() ? 0 : 5;
              })) == 0);
        CHECK(missing(at, "k", kKeys) == 0);
        CHECK(verify(at)->problems.empty());
    }
}

}  // namespace
}  // namespace dedup::test
