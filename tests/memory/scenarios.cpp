#include "memory/scenarios.hpp"

#include <unistd.h>

#include <array>
#include <chrono>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/guard.hpp"
#include "dedup/sweeper.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

std::vector<std::string> keys(const std::string& prefix, int count) {
    std::vector<std::string> keys;
    for (int i = 0; i < count; ++i) {
        keys.push_back(prefix + std::to_string(i));
    }
    return keys;
}

// What the test itself needs memory for, before it runs out.
std::vector<std::string> own_keys(const std::string& prefix, int count) {
    const UnfailingScope own;
    return keys(prefix, count);
}

void nothing(Life& /*life*/) {}

void full(Life& life) {
    life.begin();
}

void killed(Life& life) {
    life.begin();
    expect(life.open(), "open");
    for (int i = 0; i < 6; ++i) {
        expect(life.append(keys("tail" + std::to_string(i) + ".", 10)), "append");
    }
}

void without_catalog(Life& life) {
    full(life);
    std::filesystem::remove_all(life.path() / "catalog");
}

// Ends within a sweep, behind its horizon.
void cut_in_a_sweep(Life& life) {
    full(life);
    expect(life.open(), "open");
    life.clock().set(kExpiredMs);
    SweepOptions options;
    options.compact = true;
    options.progress = [](std::uint64_t done, std::uint64_t /*total*/) {
        if (done != 0) {
            ::_exit(0);
        }
    };
    (void)life.sweep(options);
    expect(false, "the sweep has shown no progress");
}

void opened(Life& life) {
    expect(life.open(), "open");
}

void opened_when_expired(Life& life) {
    opened(life);
    life.clock().set(kExpiredMs);
}

void opened_async(Life& life) {
    life.options().durability = Durability::async;
    life.options().flush_interval = 1ms;
    opened(life);
}

void opened_full(Life& life) {
    life.options().capacity = {.keys_max = kFirstKeys, .evict_oldest = true};
    life.may_be_evicted();
    opened(life);
}

void opened_with_small_map(Life& life) {
    life.internals().catalog_map_bytes = 20 * 1024;  // the first seal does not fit
    opened(life);
}

void swept_before(Life& life) {
    life.first_keys_are_swept();
}

void open_it(Life& life) {
    (void)life.open();
}

void read_it(Life& life) {
    StreamStore& store = life.store();
    Cache cache(store, {.ns = "one"});
    (void)cache.lookup("first0");
    const std::array<StreamKey, 4> streams = {
        {{"one", "first0"}, {"two", "first2"}, {"three", "first4"}, {"one", "absent"}}};
    (void)store.heads(streams);
    (void)store.history({"two", "first2"});
    (void)store.scan({.heads_max = 20});
    (void)store.stats();
    (void)store.sweep_history();
    (void)store.sweep({.dry_run = true});
}

void read(Life& life) {
    try {
        read_it(life);
    } catch (const std::bad_alloc&) {
    }
}

// As another process would.
void read_only(Life& life) {
    try {
        OpenOptions options = life.options();
        options.read_only = true;
        const auto reader = open(life.path(), options);
        (void)life.append(own_keys("followed", 3));
        if (reader) {
            const auto stats = (*reader)->stats();
            (void)(*reader)->head({"one", "first0"});
            const UnfailingScope own;
            const auto head = (*reader)->head({"one", "absent"});
            expect(!head || !*head, "a reader has found what is not there");
        }
    } catch (const std::bad_alloc&) {
    }
}

void append_some(Life& life) {
    (void)life.append(own_keys("alone", 1));
    (void)life.append(own_keys("batch", 9));
    (void)life.append(own_keys("atomic", 9), Batch::atomic);
}

void append_segments(Life& life) {
    for (int i = 0; i < 3; ++i) {
        (void)life.append(own_keys("much" + std::to_string(i) + ".", 70), Batch::each, 1'000);
    }
    (void)life.append(own_keys("much.atomic", 70), Batch::atomic, 1'000);
}

// Records so small that the segment's index in memory has to grow.
void append_tiny(Life& life) {
    (void)life.append(own_keys("t", 1'500), Batch::atomic, 0);
    (void)life.append(own_keys("u", 1'500), Batch::each, 0);
}

void append_from_threads(Life& life) {
    std::array<std::thread, 4> callers;
    {
        const UnfailingScope own;
        for (std::size_t t = 0; t < callers.size(); ++t) {
            callers[t] = std::thread([&life, t] {
                for (int i = 0; i < 5; ++i) {
                    std::vector<std::string> mine;
                    {
                        const UnfailingScope keys_are_own;
                        mine = keys("t" + std::to_string(t) + "." + std::to_string(i) + ".", 4);
                    }
                    (void)life.append(std::move(mine), i % 2 == 0 ? Batch::each : Batch::atomic);
                }
            });
        }
    }
    for (std::thread& caller : callers) {
        caller.join();
    }
}

void append_and_flush(Life& life) {
    (void)life.append(own_keys("async", 3));
    (void)life.store().flush();
    std::this_thread::sleep_for(2ms);
    (void)life.append(own_keys("async.atomic", 3), Batch::atomic);
    std::this_thread::sleep_for(2ms);
    life.close();
}

void sweep(Life& life) {
    (void)life.sweep();
}

void compact(Life& life) {
    SweepOptions options;
    options.compact = true;
    (void)life.sweep(options);
}

void sweep_beside_appends(Life& life) {
    std::thread caller;
    {
        const UnfailingScope own;
        caller = std::thread([&life] { append_segments(life); });
    }
    compact(life);
    caller.join();
}

void evict(Life& life) {
    (void)life.append(own_keys("room", 3));
    (void)life.append(own_keys("room.atomic", 3), Batch::atomic);
}

// While the sealer has work.
void close(Life& life) {
    {
        const UnfailingScope own;
        (void)life.append(keys("full", 70), Batch::each, 1'000);
        (void)life.append(keys("fuller", 70), Batch::each, 1'000);
    }
    life.close();
}

void sweeper(Life& life) {
    std::atomic<int> seen{0};
    auto sweeper = [&] {
        const UnfailingScope own;
        SweeperOptions options;
        options.interval = 1ms;
        options.observer = [&](const Result<SweepReport>& outcome) {
            if (outcome) {
                life.first_keys_are_swept();
                ++seen;
            }
        };
        return Sweeper::start(life.store(), std::move(options));
    }();
    expect(sweeper.has_value(), "no sweeper");
    const auto until = std::chrono::steady_clock::now() + 100ms;
    while (seen < 2 && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(1ms);
    }
    (*sweeper)->stop();
}

void guard(Life& life) {
    auto guard = [&] {
        const UnfailingScope own;
        return Guard::start(life.store(),
                            {.ns = "guard", .lease = 3ms, .retry = {.deadline = 0ms}});
    }();
    expect(guard.has_value(), "no guard");
    try {
        (void)(*guard)->process_if_new("event", [](const Attempt&) {
            std::this_thread::sleep_for(5ms);
            return std::string("done");
        });
    } catch (const std::bad_alloc&) {
    }
}

// Through the layer that most programs use.
void claim(Life& life) {
    bool completed = false;
    try {
        Cache cache(life.store(), {.ns = "claims"});
        const auto outcome = cache.claim("key", {.owner = "somebody", .lease = 30s});
        if (outcome && std::holds_alternative<Claimed>(*outcome)) {
            const auto done = cache.complete(std::get<Claimed>(*outcome).claim, "receipt");
            completed = done.has_value();
        }
    } catch (const std::bad_alloc&) {
    }
    const UnfailingScope own;
    const auto found = Cache(life.store(), {.ns = "claims"}).lookup("key");
    expect(!completed || (found && std::holds_alternative<Completed>(*found)),
           "a completion that was acknowledged is not there");
}

constexpr std::array kScenarios = {
    Scenario{"open a new store", Whose::mine, nothing, nothing, open_it},
    Scenario{"open", Whose::all, full, nothing, open_it},
    Scenario{"open after a crash", Whose::all, killed, nothing, open_it},
    Scenario{"open without catalog", Whose::mine, without_catalog, nothing, open_it},
    Scenario{"open after a sweep was cut", Whose::mine, cut_in_a_sweep, swept_before, open_it},
    Scenario{"append", Whose::mine, full, opened, append_some},
    Scenario{"append segments", Whose::all, full, opened, append_segments},
    Scenario{"append to a full index", Whose::mine, full, opened, append_tiny},
    Scenario{"append from threads", Whose::all, full, opened, append_from_threads},
    Scenario{"append asynchronously", Whose::all, full, opened_async, append_and_flush},
    Scenario{"seal", Whose::others, full, opened, append_segments},
    Scenario{"seal into a map that is full", Whose::all, full, opened_with_small_map,
             append_segments},
    Scenario{"sweep", Whose::mine, full, opened_when_expired, sweep},
    Scenario{"compact", Whose::mine, full, opened_when_expired, compact},
    Scenario{"sweep beside appends", Whose::all, full, opened_when_expired, sweep_beside_appends},
    Scenario{"evict", Whose::mine, full, opened_full, evict},
    Scenario{"close", Whose::all, full, opened, close},
    Scenario{"sweeper", Whose::others, full, opened_when_expired, sweeper},
    Scenario{"read", Whose::mine, full, opened, read},
    Scenario{"read beside a writer", Whose::mine, full, opened, read_only},
    Scenario{"guard", Whose::others, full, opened, guard},
    Scenario{"guard's caller", Whose::mine, full, opened, guard},
    Scenario{"claim", Whose::mine, full, opened, claim},
};

}  // namespace

std::span<const Scenario> scenarios() {
    return kScenarios;
}

}  // namespace dedup::test
