// Claims and waits without a thread: each answer comes once, when it is durable, on a thread of the
// library's.
#include <doctest/doctest.h>

#include <atomic>
#include <future>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/helpers.hpp"
#include "cache/inside.hpp"
#include "contract/waiters.hpp"
#include "dedup/async.hpp"
#include "support/hooked_store.hpp"
#include "support/stores.hpp"

namespace dedup::test {
namespace {

template <class T>
using Later = std::future<Result<T>>;

// A function for an answer, and where the answer will be.
template <class T>
std::pair<Answered<T>, Later<T>> later() {
    std::promise<Result<T>> promise;
    auto future = promise.get_future();
    return {[promise = std::move(promise)](Result<T> result) mutable {
                promise.set_value(std::move(result));
            },
            std::move(future)};
}

Later<ClaimOutcome> claim(AsyncCache& async, std::string key, ClaimOptions options = {}) {
    auto [answered, outcome] = later<ClaimOutcome>();
    must(async.claim_async(std::move(key), std::move(options), std::move(answered)));
    return std::move(outcome);
}

Later<LookupOutcome> wait(AsyncCache& async, std::string key, milliseconds timeout) {
    auto [answered, outcome] = later<LookupOutcome>();
    must(async.wait_async(std::move(key), timeout, std::move(answered)));
    return std::move(outcome);
}

TEST_CASE("async: claim, complete and release are answered as by the cache") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const auto async = must(AsyncCache::start(cache));
        const Claim mine = as<Claimed>(claim(*async, "k").get()).claim;
        as<InFlight>(claim(*async, "k").get());
        auto [completed, done] = later<void>();
        must(async->complete_async({mine, "r", {}}, std::move(completed)));
        must(done.get());
        CHECK(as<Completed>(claim(*async, "k").get()).receipt == "r");
        check_error(claim(*async, "").get(), Code::invalid_argument, "key");

        const Claim other = as<Claimed>(claim(*async, "other").get()).claim;
        auto [released, gone] = later<bool>();
        must(async->release_async(other, std::move(released)));
        CHECK(must(gone.get()));
    });
}

TEST_CASE("async: an answer comes on another thread, when it can be read") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const auto async = must(AsyncCache::start(cache, {.requests_max = 1}));
        std::promise<void> seen;
        must(async->claim_async("k", {}, [&](const Result<ClaimOutcome>& outcome) {
            const Claim claim = as<Claimed>(outcome).claim;
            CHECK(head_of(*store, "k").claim_sequence == claim.claim_sequence);
            // It may give more to do, in place of what was answered.
            must(async->complete_async({claim, "r", {}}, [&](const Result<void>& done) {
                must(done);
                seen.set_value();
            }));
        }));
        seen.get_future().get();
        as<Completed>(cache.lookup("k"));
    });
}

TEST_CASE("async: what is given while the disk is busy shares an append") {
    TestStore store = store_factories().front().make();
    HookedStore hooked(*store);
    Cache cache(hooked);
    const auto async = must(AsyncCache::start(cache, {.threads = 1}));
    std::promise<void> may_go;
    std::promise<void> is_there;
    bool first = true;
    hooked.before_append = [&] {
        if (std::exchange(first, false)) {
            is_there.set_value();
            may_go.get_future().get();
        }
    };
    std::vector<Later<ClaimOutcome>> outcomes;
    outcomes.push_back(claim(*async, "first"));
    is_there.get_future().get();
    for (int i = 0; i < 100; ++i) {
        outcomes.push_back(claim(*async, "k" + std::to_string(i)));
    }
    may_go.set_value();
    for (auto& outcome : outcomes) {
        as<Claimed>(outcome.get());
    }
    CHECK(hooked.appends == 2);
}

TEST_CASE("async: no more than so many requests at a time, and options in their ranges") {
    TestStore store = store_factories().front().make();
    HookedStore hooked(*store);
    Cache cache(hooked);
    check_error(AsyncCache::start(cache, {.threads = 0}), Code::invalid_argument, "threads");
    check_error(AsyncCache::start(cache, {.threads = 17}), Code::invalid_argument, "threads");
    check_error(AsyncCache::start(cache, {.requests_max = 0}), Code::invalid_argument,
                "requests_max");
    check_error(AsyncCache::start(cache, {.waits_max = 0}), Code::invalid_argument, "waits_max");
    check_error(AsyncCache::start(cache, {.waits_max = 1'000'001}), Code::invalid_argument,
                "waits_max");
    std::promise<void> may_go;
    const std::shared_future<void> go = may_go.get_future().share();
    hooked.before_append = [go] { go.wait(); };
    auto async = must(AsyncCache::start(cache, {.threads = 1, .requests_max = 2}));
    auto one = claim(*async, "one");
    auto two = claim(*async, "two");
    check_error(async->claim_async("three", {}, [](const auto&) { FAIL_CHECK("never"); }),
                Code::busy, "answered");
    may_go.set_value();
    async.reset();  // carries out what was given
    as<Claimed>(one.get());
    as<Claimed>(two.get());
}

TEST_CASE("async: a request without a function for its answer is refused") {
    // Guards against a process that ends on a thread of the library's.
    TestStore store = store_factories().front().make();
    Cache cache(*store);
    const Claim claim = must_claim(cache, "k");
    const auto async = must(AsyncCache::start(cache));
    check_error(async->claim_async("c", {}, {}), Code::invalid_argument, "empty");
    check_error(async->complete_async({claim, "r", {}}, {}), Code::invalid_argument, "empty");
    check_error(async->release_async(claim, {}), Code::invalid_argument, "empty");
    check_error(async->wait_async("k", 1ms, {}), Code::invalid_argument, "empty");
}

TEST_CASE("async: a wait ends with the decision, through whichever cache") {
    // Guards against a waiter that sleeps through the decision. If it did, this would not end.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        Cache another(*store);
        Cache elsewhere(*store, {.ns = "elsewhere"});
        const auto async = must(AsyncCache::start(cache));
        as<Absent>(wait(*async, "none", 1h).get());
        check_error(wait(*async, "", 1h).get(), Code::invalid_argument, "key");
        std::vector<Claim> claims;
        std::vector<Later<LookupOutcome>> waits;
        for (int i = 0; i < 50; ++i) {
            const std::string key = "k" + std::to_string(i);
            claims.push_back(must_claim(cache, key));
            must_claim(elsewhere, key);
            waits.push_back(wait(*async, key, milliseconds::max()));
        }
        as<InFlight>(wait(*async, "k7", 0ms).get());
        for (std::size_t i = 0; i < claims.size(); ++i) {
            must(elsewhere.complete_current(claims[i].key, "x"));
            must(another.complete(claims[i], "r" + std::to_string(i)));
        }
        for (std::size_t i = 0; i < waits.size(); ++i) {
            CHECK(as<Completed>(waits[i].get()).receipt == "r" + std::to_string(i));
        }
        must_claim(cache, "leased", with_lease(1s));
        auto leased = wait(*async, "leased", 1h);
        store.clock.advance(1'001);
        as<InFlight>(leased.get());
    });
}

TEST_CASE("async: nothing but the decision ends a wait, and so the wake is not lost") {
    // Guards against a wake that only a look covers up.
    on_each_store([](TestStore& store) {
        CacheInside::waiters(*store).look_never();
        Cache cache(*store);
        Cache another(*store);
        const auto async = must(AsyncCache::start(cache));
        for (int i = 0; i < 20; ++i) {
            const Claim claim = must_claim(cache, "k" + std::to_string(i));
            auto one = wait(*async, claim.key, 1h);
            Result<LookupOutcome> found = Absent{};
            std::jthread two([&] { found = another.wait(claim.key, 1h); });
            must((i % 2 == 0 ? cache : another).complete(claim, "r"));
            as<Completed>(one.get());
            two.join();
            as<Completed>(std::move(found));
        }
    });
}

TEST_CASE("async: at the end waits are answered as things are") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        must_claim(cache, "k");
        auto async = must(AsyncCache::start(cache));
        auto waiting = wait(*async, "k", 1h);
        auto claimed = claim(*async, "other");
        async.reset();
        as<InFlight>(waiting.get());
        as<Claimed>(claimed.get());
    });
}

TEST_CASE("async: no more than so many waits at a time") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim claim = must_claim(cache, "k");
        const auto async = must(AsyncCache::start(cache, {.waits_max = 2}));
        auto one = wait(*async, "k", 1h);
        std::promise<void> again;
        must(async->wait_async("k", 1h, [&](const Result<LookupOutcome>&) {
            // In place of what was answered.
            must(async->wait_async("k", 1h, [&](const auto&) { again.set_value(); }));
        }));
        check_error(async->wait_async("k", 1h, [](const auto&) { FAIL_CHECK("never"); }),
                    Code::busy, "waits_max");
        must(cache.complete(claim, "r"));
        as<Completed>(one.get());
        again.get_future().get();
    });
}

// Asks each of the four for something that must be refused.
void check_closed(AsyncCache& async) {
    const auto never = [](const auto&) { FAIL_CHECK("never"); };
    check_error(async.claim_async("late", {}, never), Code::closed, "destroyed");
    check_error(async.complete_async({}, never), Code::closed, "destroyed");
    check_error(async.release_async({}, never), Code::closed, "destroyed");
    check_error(async.wait_async("late", 1h, never), Code::closed, "destroyed");
}

TEST_CASE("async: an answer at the end can ask for nothing more") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        must_claim(cache, "k");
        auto async = must(AsyncCache::start(cache));
        int answered = 0;
        for (int i = 0; i < 3; ++i) {
            must(async->wait_async("k", 1h, [&, raw = async.get()](const auto& outcome) {
                as<InFlight>(outcome);
                check_closed(*raw);
                ++answered;
            }));
        }
        async.reset();
        CHECK(answered == 3);
        as<Absent>(cache.lookup("late"));
    });
}

TEST_CASE("async: what is accepted while the end comes is answered once") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        must_claim(cache, "k");
        auto async = must(AsyncCache::start(cache, {.requests_max = 50, .waits_max = 50}));
        std::atomic<int> accepted = 0;
        std::atomic<int> answered = 0;
        // Asks until it is refused; `asked` is set once it has asked for something.
        const auto ask = [&](AsyncCache& of, std::promise<void>& asked) {
            const auto count = [&](const auto&) { ++answered; };
            bool first = true;
            for (bool claims = true, waits = true; claims || waits; std::this_thread::yield()) {
                const auto claimed = of.claim_async("k", {}, count);
                const auto waited = of.wait_async("k", 1h, count);
                accepted += (claimed ? 1 : 0) + (waited ? 1 : 0);
                if (std::exchange(first, false)) {
                    asked.set_value();
                }
                claims = claimed || claimed.error().code == Code::busy;
                waits = waited || waited.error().code == Code::busy;
            }
        };
        std::promise<void> request_asks;
        std::promise<void> wait_asks;
        must(async->claim_async("x", {},
                                [&, raw = async.get()](const auto&) { ask(*raw, request_asks); }));
        must(async->wait_async("none", 1h,
                               [&, raw = async.get()](const auto&) { ask(*raw, wait_asks); }));
        request_asks.get_future().get();
        wait_asks.get_future().get();
        async.reset();
        CHECK(accepted == answered);
        CHECK(accepted >= 2);
    });
}

TEST_CASE("async: waits that are due are looked up together") {
    // Guards against waits on a server that is down that hold each other up, one by one.
    const auto inner = make_memory_store();
    HookedStore store(*inner);
    Cache cache(store);
    auto async = must(AsyncCache::start(cache));
    std::promise<void> asks;
    std::vector<Later<LookupOutcome>> waits;
    const auto add_waits = [&] {
        for (int i = 0; i < 500; ++i) {
            waits.push_back(wait(*async, "k" + std::to_string(i), 1h));
        }
    };
    const auto check_waits = [&](std::size_t reads_before) {
        for (auto& outcome : waits) {
            check_error(outcome.get(), Code::io);
        }
        CHECK(store.reads == reads_before + 1);
        waits.clear();
    };
    std::promise<void> may_go;
    must(async->wait_async("none", 1h, [&](const auto&) {
        asks.set_value();
        may_go.get_future().get();
    }));
    asks.get_future().get();
    store.fail_heads = true;
    const std::size_t reads = store.reads;
    add_waits();
    may_go.set_value();
    check_waits(reads);

    // And at the end.
    asks = {};
    must(async->wait_async("none", 1h, [&, raw = async.get()](const auto&) {
        asks.set_value();
        for (Result<void> given; given || given.error().code == Code::busy;) {
            given = raw->release_async({}, [](const auto&) {});
        }
    }));
    asks.get_future().get();
    const std::size_t reads_at_end = store.reads;
    add_waits();
    async.reset();
    check_waits(reads_at_end);
}

TEST_CASE("async: where memory runs out a wait goes on, or its outcome is unknown") {
    std::atomic<int> failures = 0;
    const auto store = make_memory_store([&]() -> std::int64_t {
        if (failures > 0) {
            --failures;
            throw std::bad_alloc();
        }
        return 1'000;
    });
    Cache cache(*store);
    const Claim claim = must_claim(cache, "k");
    const auto async = must(AsyncCache::start(cache));
    failures = 1;
    check_error(wait(*async, "k", 0ms).get(), Code::outcome_unknown);
    failures = 3;
    auto waiting = wait(*async, "k", 1h);
    while (failures > 0) {
        std::this_thread::yield();
    }
    must(cache.complete(claim, "r"));
    CHECK(as<Completed>(waiting.get()).receipt == "r");
}

TEST_CASE("async: a sleeper is told of its places that were decided, once, and of no others") {
    // Guards against a pass over all that wait whenever one of them is decided.
    struct Op {
        CacheOptions cache;
        std::string key;
    };
    Waiters waiters;
    Waiters::Sleeper sleeper(waiters);
    const auto wake = [&](const std::string& key) {
        waiters.wake(std::vector<Op>{{{}, key}}, std::vector<Result<void>>{{}});
    };
    const auto decided = [&] {
        std::vector<const Waiters::Place*> places;
        sleeper.take_decided([&](const Waiters::Place& place) { places.push_back(&place); });
        return places;
    };
    using Places = std::vector<const Waiters::Place*>;
    const std::string ns = CacheOptions{}.ns;
    const Waiters::Place a(sleeper, {ns, "a"});
    {
        const Waiters::Place b(sleeper, {ns, "b"});
        CHECK(decided().empty());
        wake("b");
        wake("b");
        CHECK(decided() == Places{&b});
        CHECK(decided().empty());
        wake("a");
        wake("b");
    }
    CHECK(decided() == Places{&a});
}

}  // namespace
}  // namespace dedup::test
