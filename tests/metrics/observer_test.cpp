// An observer is told of every change exactly once, when it is there to be read, on the thread of
// the call that made it.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/helpers.hpp"
#include "support/hooked_store.hpp"
#include "support/stores.hpp"

using namespace dedup;
using namespace dedup::test;

namespace {

struct Seen {
    Change change;
    Record record;
};

// "claimed k, completed k"
std::string text_of(const std::vector<Seen>& all) {
    std::string text;
    for (const auto& [change, record] : all) {
        text += (text.empty() ? "" : ", ") + std::string(name(change)) + " " + record.key;
    }
    return text;
}

}  // namespace

TEST_CASE("each change comes once, in order, with the record that is stored") {
    on_each_store([](TestStore& store) {
        std::vector<Seen> seen;
        Cache cache(*store, {.observer = [&](const Transition& transition) {
            CHECK_MESSAGE(head_of(*store, transition.record.key) == transition.record,
                          "it can be read when it is observed");
            seen.push_back({transition.change, transition.record});
        }});
        ClaimOptions options = with_lease(1s);
        options.owner = "worker";
        const Claim first = must_claim(cache, "k", options);
        CHECK(seen.back().record.claim_sequence == first.claim_sequence);
        CHECK(seen.back().record.owner == "worker");
        as<InFlight>(cache.claim("k"));
        store.clock.advance(2'000);
        Claim second = must_claim(cache, "k", options);
        CHECK(seen.back().record.attempt == 2);
        second = must(cache.renew(second, 10s));
        must(cache.complete(second, "r"));
        must(cache.complete(second, "r"));
        as<New>(cache.remember("n", "r"));
        as<Completed>(cache.remember("n", "r"));
        must_claim(cache, "gone");
        CHECK(must(cache.release_current("gone")));
        CHECK(!must(cache.release_current("gone")));
        check_error(cache.complete(first, "x"), Code::stale_claim);
        (void)cache.lookup("k");
        CHECK(text_of(seen) ==
              "claimed k, taken_over k, renewed k, completed k, remembered n, claimed gone, "
              "released gone");
    });
}

TEST_CASE("a mismatch and a failed append are no changes") {
    TestStore store = store_factories().front().make();
    HookedStore hooked(*store);
    std::vector<Change> seen;
    Cache cache(hooked,
                {.observer = [&](const Transition& change) { seen.push_back(change.change); }});
    must_claim(cache, "k", with_fingerprint("f"));
    as<Mismatch>(cache.claim("k", with_fingerprint("g")));
    hooked.fail_append = [](const Append&) { return std::optional(Code::outcome_unknown); };
    check_error(cache.claim("other"), Code::outcome_unknown);
    CHECK(seen == std::vector{Change::claimed});
}

TEST_CASE("what lost a race is observed in its place in the span") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        Cache other(*store);
        std::vector<Seen> seen;
        Cache cache(hooked, {.observer = [&](const Transition& transition) {
                        CHECK_MESSAGE(head_of(*store, transition.record.key) == transition.record,
                                      "it can be read when it is observed");
                        seen.push_back({transition.change, transition.record});
                    }});
        // Between the look and the append somebody claims and releases the first key, and takes
        // the third for good.
        hooked.before_append = [&, lost = false]() mutable {
            if (std::exchange(lost, true)) {
                return;
            }
            CHECK(must(other.release(must_claim(other, "a"))));
            must_claim(other, "c");
        };
        const std::vector<ClaimRequest> requests{{"a", {}}, {"b", {}}, {"c", {}}, {"d", {}}};
        const auto answers = cache.claim_many(requests);
        CHECK(as<Claimed>(answers[0]).claim.attempt == 2);
        as<InFlight>(answers[2]);
        CHECK(text_of(seen) == "claimed a, claimed b, claimed d");
        CHECK(seen[0].record.sequence > seen[2].record.sequence);  // it landed last
    });
}

TEST_CASE("an observer may use the store and the cache") {
    on_each_store([](TestStore& store) {
        std::vector<std::string> seen;
        Cache* self = nullptr;
        Cache cache(*store, {.observer = [&](const Transition& transition) {
            seen.push_back(transition.record.key);
            if (transition.record.key == "k") {
                as<New>(self->remember("from the observer", "r"));
                must(store->sweep());
            }
        }});
        self = &cache;
        must_claim(cache, "k");
        CHECK(seen == std::vector<std::string>{"k", "from the observer"});
    });
}

TEST_CASE("of racing threads each observes its own changes and nobody else's") {
    on_each_store([](TestStore& store) {
        constexpr int kThreads = 4;
        constexpr int kKeys = 50;
        std::mutex mutex;
        std::map<std::string, std::thread::id> winners;
        Cache cache(*store, {.observer = [&](const Transition& transition) {
            const std::lock_guard lock(mutex);
            const bool first =
                winners.emplace(transition.record.key, std::this_thread::get_id()).second;
            CHECK(first);
        }});
        {
            std::vector<std::jthread> threads;
            for (int thread = 0; thread < kThreads; ++thread) {
                threads.emplace_back([&] {
                    for (int i = 0; i < kKeys; ++i) {
                        const std::string key = "key " + std::to_string(i);
                        const auto outcome = cache.remember(key, "r");
                        const std::lock_guard lock(mutex);
                        if (std::holds_alternative<New>(outcome.value())) {
                            CHECK(winners.at(key) == std::this_thread::get_id());
                        }
                    }
                });
            }
        }
        CHECK(winners.size() == kKeys);
    });
}
