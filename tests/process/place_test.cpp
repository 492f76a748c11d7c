// A store stays where it was opened, whatever becomes of paths. If it is removed, moved or replaced
// under its writer, nothing more is acknowledged: what would be appended, nobody would find.
#include <functional>

#include "process/helpers.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

TEST_CASE("a relative path means the directory that was current at the opening") {
    const TempDir dir;
    fs::create_directories(dir.path() / "first");
    fs::create_directories(dir.path() / "second");
    constexpr int kKeys = 200;
    CHECK(exit_code(in_child([&] {
              fs::current_path(dir.path() / "first");
              auto store = open("store", segments_of_64_kib());
              fs::current_path(dir.path() / "second");
              if (!store) {
                  return 1;
              }
              Cache cache(**store, {.ttl = std::chrono::milliseconds{1}});
              const std::string receipt(5'000, 'r');
              for (int i = 0; i < kKeys; ++i) {
                  if (!remembers(cache, "k" + std::to_string(i), receipt)) {
                      return 2;
                  }
              }
              const auto swept = (*store)->sweep({.now_ms = system_now_ms() + 60'000});
              if (!swept || swept->segments_dropped == 0) {
                  return 3;
              }
              return (*store)->close() && verify("../first/store") ? 0 : 4;
          })) == 0);
    CHECK(fs::is_empty(dir.path() / "second"));
}

TEST_CASE("a symbolic link that is changed does not take an open store elsewhere") {
    const TempDir dir;
    fs::create_directories(dir.path() / "a");
    fs::create_directories(dir.path() / "b");
    fs::create_directory_symlink("a", dir.path() / "current");
    constexpr int kKeys = 50;
    {
        const auto store = opened(dir.path() / "current" / "store", segments_of_64_kib());
        fs::remove(dir.path() / "current");
        fs::create_directory_symlink("b", dir.path() / "current");
        Cache cache(*store);
        for (int i = 0; i < kKeys; ++i) {
            CHECK(remembers(cache, "k" + std::to_string(i), std::string(5'000, 'r')));
        }
    }
    CHECK(fs::is_empty(dir.path() / "b"));
    CHECK(missing(dir.path() / "a" / "store", "k", kKeys) == 0);
}

TEST_CASE("a store that is removed, moved or replaced acknowledges nothing more") {
    const auto segment = fs::path("log") / "0000000000000001.log";
    struct Accident {
        const char* name;
        std::function<void(const fs::path&)> happens;
    };
    const Accident accidents[] = {
        {"removed", [](const fs::path& store) { fs::remove_all(store); }},
        {"its log removed", [](const fs::path& store) { fs::remove_all(store / "log"); }},
        {"a segment removed", [&](const fs::path& store) { fs::remove(store / segment); }},
        {"a segment replaced",
         [&](const fs::path& store) {
             fs::copy_file(store / segment, store / "copy");
             fs::rename(store / "copy", store / segment);
         }},
        {"moved away", [](const fs::path& store) { fs::rename(store, store.string() + ".old"); }},
        {"replaced by an empty directory",
         [](const fs::path& store) {
             fs::rename(store, store.string() + ".old");
             fs::create_directory(store);
         }},
        {"replaced by another store",
         [](const fs::path& store) {
             fs::rename(store, store.string() + ".old");
             CHECK(open(store));
         }},
        {"replaced by its copy",
         [](const fs::path& store) {
             fs::copy(store, store.string() + ".copy", fs::copy_options::recursive);
             fs::rename(store, store.string() + ".old");
             fs::rename(store.string() + ".copy", store);
         }},
    };
    for (const Durability durability : {Durability::sync, Durability::async}) {
        for (const Accident& accident : accidents) {
            INFO(accident.name);
            const TempDir dir;
            const auto path = dir.path() / "store";
            OpenOptions options;
            options.durability = durability;
            options.flush_interval = std::chrono::minutes{1};
            const auto store = opened(path, options);
            Cache cache(*store);
            CHECK(remembers(cache, "before"));
            CHECK(store->flush());
            accident.happens(path);
            const auto after = cache.remember("after", "r");
            if (durability == Durability::sync) {
                REQUIRE_FALSE(after);
                CHECK(after.error().code == Code::outcome_unknown);
                CHECK(after.error().message.find("removed, moved or replaced") !=
                      std::string::npos);
                CHECK(after.error().message.find(path.string()) != std::string::npos);
            } else {
                CHECK_FALSE(store->flush());
            }
            const auto later = cache.remember("later", "r");
            REQUIRE_FALSE(later);
            CHECK(later.error().code == Code::failed);
            CHECK_FALSE(store->close());
        }
    }
}

}  // namespace
}  // namespace dedup::test
