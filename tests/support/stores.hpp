// The stores that every test of the contract and of the protocol runs against.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dedup/log_store.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/postgres_store.hpp"
#include "dedup/store.hpp"
#include "support/manual_clock.hpp"
#include "support/postgres_server.hpp"
#include "support/served_store.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {

struct StoreSettings {
    Clock clock;
    Capacity capacity = {};
    bool read_only = false;  // durable stores only
    bool trust_clock = true;
};

using OpenStore = std::function<std::unique_ptr<StreamStore>(const std::filesystem::path& dir,
                                                             const StoreSettings& settings)>;

// A new store with what it lies in. Its time is that of `clock`, which starts at 1,000 ms.
class TestStore {
  public:
    TestStore(bool durable, bool heads_only, OpenStore open, const Capacity& capacity = {},
              bool trust_clock = true)
        : durable_(durable),
          heads_only_(heads_only),
          open_(std::move(open)),
          settings_{clock.clock(), capacity} {
        settings_.trust_clock = trust_clock;
        store_ = open_(dir_.path() / "store", settings_);
    }

    StreamStore& operator*() const { return *store_; }
    StreamStore* operator->() const { return store_.get(); }

    // Whether reopen() finds again what was appended.
    [[nodiscard]] bool durable() const { return durable_; }

    // Whether it keeps the versions that came before a head, and numbers records without gaps.
    [[nodiscard]] bool keeps_versions() const { return !heads_only_; }

    // Whether it is made of segments, which a sweep gives back behind what it removes.
    [[nodiscard]] bool has_segments() const { return durable_ && !heads_only_; }

    // Closes the store and opens it again, perhaps without its catalog. Precondition: durable().
    // References from operator* die.
    void reopen(bool without_catalog = false) {
        close();
        if (without_catalog) {
            std::filesystem::remove_all(path() / "catalog");
        }
        store_ = open_(path(), settings_);
    }

    // Closes the store, moves the one at `other` to its place, and opens that. Precondition:
    // has_segments(). References from operator* die.
    void replace_by(const std::filesystem::path& other) {
        close();
        std::filesystem::remove_all(path());
        std::filesystem::rename(other, path());
        store_ = open_(path(), settings_);
    }

    [[nodiscard]] std::filesystem::path path() const { return dir_.path() / "store"; }

    // Another one, open for reading beside the store. Precondition: durable().
    [[nodiscard]] std::unique_ptr<StreamStore> open_reader() const {
        StoreSettings settings = settings_;
        settings.read_only = true;
        return open_(dir_.path() / "store", settings);
    }

    ManualClock clock;

  private:
    void close() {
        const Result<void> closed = store_->close();
        if (!closed) {
            throw std::runtime_error(closed.error().message);
        }
        store_.reset();
    }

    TempDir dir_;
    bool durable_;
    bool heads_only_;
    OpenStore open_;
    StoreSettings settings_;
    std::unique_ptr<StreamStore> store_;
};

struct StoreFactory {
    std::string name;
    bool durable;
    OpenStore open;
    bool heads_only = false;

    // Most tests go through days in one step, and mean it.
    [[nodiscard]] TestStore make(const Capacity& capacity = {}, bool trust_clock = true) const {
        return {durable, heads_only, open, capacity, trust_clock};
    }
};

// Segments of the smallest size, so that the tests see sealed ones too.
inline std::unique_ptr<StreamStore> open_log_store(const std::filesystem::path& dir,
                                                   const StoreSettings& settings) {
    OpenOptions options;
    options.read_only = settings.read_only;
    options.clock = settings.clock;
    options.capacity = settings.capacity;
    options.trust_clock = settings.trust_clock;
    options.segment_bytes = 64 * 1024;
    auto store = open(dir, options);
    if (!store) {
        throw std::runtime_error(store.error().message);
    }
    return *std::move(store);
}

// A store in files behind a server of its own, or a reader of the one that serves it already.
inline std::unique_ptr<StreamStore> open_served_store(const std::filesystem::path& dir,
                                                      const StoreSettings& settings) {
    const std::string socket = dir.string() + ".sock";
    return settings.read_only
               ? std::make_unique<ServedStore>(nullptr, socket, settings.clock)
               : std::make_unique<ServedStore>(open_log_store(dir, settings), socket, nullptr);
}

// Each directory stands for a schema in the program's own server.
inline std::unique_ptr<StreamStore> open_postgres_store(const std::filesystem::path& dir,
                                                        const StoreSettings& settings) {
    static std::mutex mutex;
    static std::set<std::string> made;
    PostgresOptions options;
    options.read_only = settings.read_only;
    options.clock = settings.clock;
    options.capacity = settings.capacity;
    options.trust_clock = settings.trust_clock;
    options.schema = "t" + std::to_string(fnv1a_64(dir.string()));
    const std::string url = PostgresServer::shared().url();
    {
        const std::lock_guard lock(mutex);
        if (made.insert(options.schema).second) {
            if (const auto outcome = init_postgres(url, options); !outcome) {
                throw std::runtime_error(outcome.error().message);
            }
        }
    }
    auto store = open_postgres(url, options);
    if (!store) {
        throw std::runtime_error(store.error().message);
    }
    return *std::move(store);
}

// Whether the tests of all stores include PostgreSQL's: not if no server is installed, which is
// said once, or if DEDUP_WITHOUT_POSTGRES asks for that.
inline bool can_run_postgres() {
    static const bool can = [] {
        if (std::getenv("DEDUP_WITHOUT_POSTGRES") != nullptr) {
            return false;
        }
        const bool found = PostgresServer::programs().has_value();
        if (!found) {
            std::fputs(
                "no PostgreSQL server is installed, so its store is not tested: "
                "run tools/setup\n",
                stderr);
        }
        return found;
    }();
    return can;
}

inline std::vector<StoreFactory> store_factories() {
    std::vector<StoreFactory> factories = {
        {"memory", false,
         [](const auto&, const StoreSettings& settings) {
             return make_memory_store(settings.clock, kDefaultGrace, settings.capacity,
                                      settings.trust_clock);
         }},
        {"log", true, open_log_store},
        {"remote", true, open_served_store},
    };
    if (can_run_postgres()) {
        factories.push_back({"postgres", true, open_postgres_store, true});
    }
    return factories;
}

// Runs `test` once for each kind of store, as a subcase with the store's name; so that
// `--subcase=memory` on the command line runs one store's tests alone.
inline void on_each_factory(const std::function<void(const StoreFactory&)>& test) {
    for (const StoreFactory& factory : store_factories()) {
        SUBCASE(factory.name.c_str()) {
            test(factory);
        }
    }
}

// The same with a new store each.
inline void on_each_store(const std::function<void(TestStore&)>& test) {
    on_each_factory([&](const StoreFactory& factory) {
        TestStore store = factory.make();
        test(store);
    });
}

}  // namespace dedup::test
