// What the tests of processes share: stores, keys, and children that say what they found.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>

#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"
#include "support/child_process.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {

// A child that hangs is ended by a signal after so long.
constexpr unsigned kHangSeconds = 60;

inline std::unique_ptr<StreamStore> opened(const std::filesystem::path& path,
                                           const OpenOptions& options = {}) {
    auto store = open(path, options);
    REQUIRE_MESSAGE(store, (store ? "" : store.error().message));
    return *std::move(store);
}

inline OpenOptions segments_of_64_kib() {
    OpenOptions options;
    options.segment_bytes = 65'536;
    return options;
}

inline bool remembers(Cache& cache, const std::string& key, std::string_view receipt = "done") {
    const auto outcome = cache.remember(key, receipt);
    return outcome && std::holds_alternative<New>(*outcome);
}

inline bool knows(Cache& cache, const std::string& key) {
    const auto outcome = cache.lookup(key);
    return outcome && std::holds_alternative<Completed>(*outcome);
}

// How many of the keys "<prefix>0", "<prefix>1" ... a store that is opened anew does not know.
inline int missing(const std::filesystem::path& path, const std::string& prefix, int count) {
    const auto store = opened(path);
    Cache cache(*store);
    int absent = 0;
    for (int i = 0; i < count; ++i) {
        absent += !knows(cache, prefix + std::to_string(i));
    }
    return absent;
}

// Runs `work` in a child that returns from it with exit(): static objects are destroyed.
template <class Work>
pid_t in_exiting_child(Work work) {
    return in_child([&] {
        alarm(kHangSeconds);
        std::exit(work());
        return 0;
    });
}

// A byte that one process waits for and another gives.
class Signpost {
  public:
    Signpost() { REQUIRE(pipe2(ends_, 0) == 0); }
    ~Signpost() {
        close(ends_[0]);
        close(ends_[1]);
    }
    Signpost(const Signpost&) = delete;
    Signpost& operator=(const Signpost&) = delete;

    void give() const { (void)!write(ends_[1], "x", 1); }
    void await() const {
        char byte = 0;
        (void)!read(ends_[0], &byte, 1);
    }

  private:
    int ends_[2] = {-1, -1};
};

}  // namespace dedup::test
