// How a program ends is its own affair. A store that is still open then, in a global variable or in
// use by other threads, does not make it crash or hang.
#include <thread>

#include "process/helpers.hpp"

namespace dedup::test {
namespace {

std::unique_ptr<StreamStore> global_store;

TEST_CASE("a store in a global variable is closed at exit, once") {
    const TempDir dir;
    for (const bool destroys_in_function : {false, true}) {
        const auto path = dir.path() / (destroys_in_function ? "function" : "global");
        CHECK(exit_code(in_exiting_child([&] {
                  OpenOptions options;
                  options.durability = Durability::async;
                  options.flush_interval = std::chrono::minutes{1};
                  StreamStore* store = nullptr;
                  if (destroys_in_function) {
                      static const auto local = *open(path, options);
                      store = local.get();
                  } else {
                      global_store = *open(path, options);
                      store = global_store.get();
                  }
                  Cache cache(*store);
                  return remembers(cache, "k0") ? 0 : 1;
              })) == 0);
        CHECK(missing(path, "k", 1) == 0);
        CHECK(verify(path)->problems.empty());
    }
}

TEST_CASE("exit while other threads append, with a store that is never closed") {
    const TempDir dir;
    for (int round = 0; round < 5; ++round) {
        const auto path = dir.path() / std::to_string(round);
        CHECK(exit_code(in_exiting_child([&] {
                  // Neither is ever destroyed, as of a main function that exit() is not returned
                  // to.
                  auto* const store = open(path, segments_of_64_kib())->release();
                  auto* const cache = new Cache(*store);
                  for (int t = 0; t < 3; ++t) {
                      std::thread([cache, t] {
                          for (int i = 0;; ++i) {
                              (void)cache->remember(std::to_string(t) + "-" + std::to_string(i),
                                                    std::string(1'000, 'r'));
                          }
                      }).detach();
                  }
                  while (!knows(*cache, "0-10")) {
                      usleep(1'000);
                  }
                  return 7;
              })) == 7);
        CHECK(open(path));
        CHECK(verify(path)->problems.empty());
    }
}

}  // namespace
}  // namespace dedup::test
