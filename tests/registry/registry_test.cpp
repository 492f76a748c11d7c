// Exactly-once: the first event of a key is known, what was processed stays processed, offsets do
// not go back by accident, and completing and committing are one step.
#include "dedup/registry.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <expected>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cache/helpers.hpp"
#include "dedup/guard.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

constexpr std::int64_t kDay = 24 * 3'600'000;

OffsetCommit at(std::uint64_t offset, std::string_view event_id = "e") {
    return {.pipeline = "billing",
            .stream = "orders-0",
            .offset = offset,
            .event_id = std::string(event_id)};
}

TEST_CASE("registry: outcomes made by default let nobody go on") {
    CHECK(std::holds_alternative<Registry::Duplicate>(*Result<Registry::KeyOutcome>()));
    CHECK(std::holds_alternative<Behind>(*Result<CommitOutcome>()));
}

TEST_CASE("registry: an outcome can be asked what it is") {
    const Registry::KeyOutcome duplicate = Registry::Duplicate{.event_id = "e"};
    CHECK(duplicate.duplicate()->event_id == "e");
    CHECK(!duplicate.is_new());
    const Registry::KeyOutcome fresh = New{7};
    CHECK(fresh.is_new()->claim_sequence == 7);
    CHECK(!fresh.duplicate());
    const CommitOutcome behind = Behind{{7, "e", 1'000}};
    CHECK(behind.behind()->current.offset == 7);
    CHECK(!behind.committed());
    CHECK(CommitOutcome(Committed{}).committed());
    CHECK(!CommitOutcome(Committed{}).behind());
}

Position position(const Offsets& offsets, std::string_view stream = "orders-0") {
    const auto found = must(offsets.find("billing", stream));
    REQUIRE(found.has_value());
    return *found;
}

TEST_CASE("registry: a key's first event is known for 24 hours") {
    on_each_store([](TestStore& store) {
        Registry registry(*store);
        as<New>(registry.check_idempotency("k", "first"));
        const std::uint64_t records = records_in(*store);
        store.clock.set(5'000);
        const auto known = as<Registry::Duplicate>(registry.check_idempotency("k", "second"));
        CHECK(known.event_id == "first");
        CHECK(known.first_seen_ms == 1'000);
        CHECK(records_in(*store) == records);

        store.clock.set(1'000 + kDay + kDefaultGrace.count());
        CHECK(as<Registry::Duplicate>(registry.check_idempotency("k", "x")).event_id == "first");
        store.clock.advance(1);
        as<New>(registry.check_idempotency("k", "third"));
        check_error(registry.check_idempotency("", "e"), Code::invalid_argument, "key");
    });
}

TEST_CASE("registry: a key that a cache has claimed is a duplicate of that claim's event") {
    on_each_store([](TestStore& store) {
        Registry registry(*store);
        Cache cache(*store, {.ns = "registry.keys"});
        must_claim(cache, "k", {.event_id = "claimed"});
        CHECK(as<Registry::Duplicate>(registry.check_idempotency("k", "x")).event_id == "claimed");
    });
}

TEST_CASE("registry: what nobody answered is told, whether the key is held or free") {
    // Guards against a repetition that passes for done while its first event waits for a decision.
    on_each_store([](TestStore& store) {
        Registry registry(*store);
        Cache cache(*store, {.ns = "registry.keys"});
        for (const Unanswered unanswered : {Unanswered::hold, Unanswered::rerun}) {
            const std::string key = unanswered == Unanswered::hold ? "held" : "free";
            const Claim claim = must_claim(
                cache, key, {.event_id = "first", .lease = 1s, .unanswered = unanswered});
            must(cache.note(claim, "reference 8125"));
            CHECK(!as<Registry::Duplicate>(registry.check_idempotency(key, "x")).held);
        }
        const std::int64_t began_ms = store.clock.now_ms();
        store.clock.advance(1'001);
        const auto waits = as<Registry::Duplicate>(registry.check_idempotency("held", "second"));
        CHECK(waits.event_id == "first");
        CHECK(waits.first_seen_ms == began_ms);
        REQUIRE(waits.held);
        CHECK(waits.held->previous.note == "reference 8125");
        const auto fresh = as<New>(registry.check_idempotency("free", "second"));
        REQUIRE(fresh.previous);
        CHECK(fresh.previous->event_id == "first");
        CHECK(fresh.previous->note == "reference 8125");
        CHECK(fresh.previous->end == End::lease_ran_out);
        CHECK(!as<New>(registry.check_idempotency("fresh", "x")).previous);
    });
}

TEST_CASE("registry: a guard that moves its offsets notes each effect, and holds what is unknown") {
    // Guards against a charge that is repeated because the consumer died behind it.
    on_each_store([](TestStore& store) {
        Registry registry(*store);
        const auto guard = must(Guard::start(*store, {.unanswered = Unanswered::hold}));
        const std::array<StreamEvent, 3> events{{{"e-1", 1}, {"e-2", 2}, {"e-3", 3}}};
        const auto charge = [](const Attempt& attempt) -> std::string {
            if (attempt.event_id == "e-2") {
                throw std::runtime_error("timeout");
            }
            return "charged";
        };
        const auto consume = [&] {
            return guard->process_stream(
                registry.offsets(), "billing", "orders-0", events,
                [&](const Attempt& attempt) -> std::expected<std::string, Failure> {
                    if (!attempt.note("POST bank/payments, " + attempt.event_id)) {
                        return std::unexpected(Failure{"nothing was noted, so nothing was done"});
                    }
                    return charge(attempt);
                });
        };
        CHECK_THROWS_WITH(static_cast<void>(consume()), "timeout");
        const auto again = consume();
        CHECK(must(again.events[0]).already_processed()->result == "charged");
        const ProcessOutcome unknown = must(again.events[1]);
        REQUIRE(unknown.held());
        CHECK(unknown.held()->previous.note == "POST bank/payments, e-2");
        CHECK(must(again.events[2]).success() != nullptr);
        CHECK(position(registry.offsets()).offset == 1);
    });
}

TEST_CASE("registry: at most so many keys, the oldest go, offsets never") {
    on_each_factory([](const StoreFactory& factory) {
        TestStore store = factory.make({.keys_max = 200, .evict_oldest = true});
        Registry registry(*store);
        as<Committed>(registry.offsets().commit(at(7)));  // older than every key
        for (int i = 0; i < 1'000; ++i) {
            as<New>(registry.check_idempotency("k" + std::to_string(i), "e" + std::to_string(i)));
            CHECK(must(store->stats()).streams() <= 200);
        }
        CHECK(as<Registry::Duplicate>(registry.check_idempotency("k999", "x")).event_id == "e999");
        CHECK(position(registry.offsets()).offset == 7);
        as<New>(registry.check_idempotency("k0", "again"));
    });
}

TEST_CASE("registry: what was processed is known for each pipeline, and across restarts") {
    on_each_store([](TestStore& store) {
        {
            Registry registry(*store);
            CHECK_FALSE(must(registry.was_processed("billing", "e")));
            CHECK(must(registry.record_processing("billing", "e", "charged 7")));
            CHECK_FALSE(must(registry.record_processing("billing", "e", "charged 8")));
            as<New>(registry.check_idempotency("k", "first"));
            as<Committed>(registry.offsets().commit(at(41, "e-41")));
        }
        if (store.durable()) {
            store.reopen();
        }
        Registry registry(*store);
        CHECK(must(registry.was_processed("billing", "e")));
        CHECK(must(registry.receipt("billing", "e"))->details == "charged 7");
        CHECK_FALSE(must(registry.was_processed("shipping", "e")));
        // Two names are not one: "bill" + "inge" is another pair.
        CHECK_FALSE(must(registry.was_processed("bill", "inge")));
        CHECK(as<Registry::Duplicate>(registry.check_idempotency("k", "x")).event_id == "first");
        CHECK(position(registry.offsets()).offset == 41);
    });
}

TEST_CASE("registry: counts what there is, and not what has expired") {
    on_each_store([](TestStore& store) {
        Registry registry(*store);
        CHECK(must(registry.stats()).keys == 0);
        for (const char* name : {"a", "b", "c"}) {
            as<New>(registry.check_idempotency(name, "e"));
            CHECK(must(registry.record_processing("billing", name)));
            CHECK_FALSE(must(registry.record_processing("billing", name)));
        }
        CHECK(must(registry.record_processing("shipping", "a")));
        as<Committed>(registry.offsets().commit(at(1)));
        as<Committed>(registry.offsets().commit(at(2)));
        Cache other(*store);
        must_claim(other, "somebody else's");
        auto stats = must(registry.stats());
        CHECK(stats.keys == 3);
        CHECK(stats.receipts == 4);
        CHECK(stats.offsets == 1);
        store.clock.advance(2 * kDay);
        stats = must(registry.stats());
        CHECK(stats.keys == 0);
        CHECK(stats.receipts == 4);
        CHECK(stats.offsets == 1);
    });
}

TEST_CASE("registry: the idempotency key in an event's metadata") {
    CHECK(idempotency_key_in(R"({"source":"web","idempotency_key":"k-1"})") == "k-1");
    CHECK(idempotency_key_in(R"({"idempotency_key":7})") == "7");
    for (const std::string_view none :
         {R"({"a":{"idempotency_key":"k"}})", R"({"idempotency_key":""})",
          R"({"idempotency_key":null})", R"(["idempotency_key"])", "no json", ""}) {
        CHECK_FALSE(idempotency_key_in(none).has_value());
    }
    const std::string long_key(kKeyBytesMax + 1, 'x');
    CHECK_FALSE(idempotency_key_in(R"({"idempotency_key":")" + long_key + "\"}").has_value());
}

TEST_CASE("offsets: go forwards, stay when repeated, and go back only when told to") {
    on_each_store([](TestStore& store) {
        Offsets offsets(*store);
        CHECK_FALSE(must(offsets.find("billing", "orders-0")).has_value());
        as<Committed>(offsets.commit(at(10, "e-10")));
        store.clock.set(2'000);
        as<Committed>(offsets.commit(at(11, "e-11")));
        CHECK(position(offsets).offset == 11);
        CHECK(position(offsets).event_id == "e-11");
        CHECK(position(offsets).committed_at_ms == 2'000);

        const std::uint64_t records = records_in(*store);
        as<Committed>(offsets.commit(at(11, "another")));
        const auto behind = as<Behind>(offsets.commit(at(10)));
        CHECK(behind.current.offset == 11);
        CHECK(behind.current.event_id == "e-11");
        CHECK(records_in(*store) == records);

        OffsetCommit back = at(3, "e-3");
        back.may_go_back = true;
        as<Committed>(offsets.commit(back));
        CHECK(position(offsets).offset == 3);
        as<Committed>(offsets.commit(at(18'446'744'073'709'551'615U)));
        CHECK(position(offsets).offset == 18'446'744'073'709'551'615U);
    });
}

TEST_CASE("offsets: each pipeline and stream has its own, for ever") {
    on_each_store([](TestStore& store) {
        Offsets offsets(*store);
        as<Committed>(offsets.commit({.pipeline = "a", .stream = "bc", .offset = 1}));
        as<Committed>(offsets.commit({.pipeline = "ab", .stream = "c", .offset = 2}));
        as<Committed>(offsets.commit({.pipeline = "", .stream = "", .offset = 3}));
        store.clock.advance(1'000 * kDay);
        (void)must(store->sweep());
        CHECK(must(offsets.find("a", "bc"))->offset == 1);
        CHECK(must(offsets.find("ab", "c"))->offset == 2);
        CHECK(must(offsets.find("", ""))->offset == 3);
        const std::string long_name(kKeyBytesMax, 'x');
        check_error(offsets.commit({.pipeline = "p", .stream = long_name}), Code::invalid_argument,
                    "pipeline and stream");
        check_error(Offsets(*store, "").find("a", "b"), Code::invalid_argument, "namespace");
    });
}

TEST_CASE("offsets: a record that is none is an error, not an offset") {
    on_each_store([](TestStore& store) {
        Offsets offsets(*store, "default");
        Cache cache(*store);
        must_claim(cache, "1:p,1:s,", {.metadata = "12x"});
        check_error(offsets.find("p", "s"), Code::corruption, "no offset");
        check_error(offsets.commit({.pipeline = "p", .stream = "s", .offset = 1}), Code::corruption,
                    "no offset");
        must(cache.complete_current("1:p,1:s,", "12"));
        check_error(offsets.find("p", "s"), Code::corruption, "no offset");
    });
}

TEST_CASE("offsets: of commits from many threads the highest stays") {
    on_each_store([](TestStore& store) {
        Offsets offsets(*store);
        std::vector<std::thread> threads;
        for (std::uint64_t t = 0; t < 4; ++t) {
            threads.emplace_back([&offsets, t] {
                for (std::uint64_t i = 0; i < 50; ++i) {
                    (void)offsets.commit(at(4 * i + t));
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        CHECK(position(offsets).offset == 199);
    });
}

TEST_CASE("finish: receipt and offset in one append, or neither") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        Registry registry(hooked);
        as<Committed>(registry.finish(at(1, "e-1"), "details"));
        CHECK(hooked.appends == 1);
        CHECK(hooked.items == 2);
        CHECK(must(registry.receipt("billing", "e-1"))->details == "details");
        CHECK(position(registry.offsets()).offset == 1);

        as<Committed>(registry.finish(at(1, "e-1"), "other"));  // a redelivery
        CHECK(hooked.appends == 1);
        CHECK(must(registry.receipt("billing", "e-1"))->details == "details");

        CHECK(as<Behind>(registry.finish(at(0, "e-0"))).current.event_id == "e-1");
        CHECK_FALSE(must(registry.was_processed("billing", "e-0")));

        CHECK(must(registry.record_processing("billing", "e-2")));
        as<Committed>(registry.finish(at(2, "e-2")));  // only the offset was missing
        CHECK(position(registry.offsets()).offset == 2);
    });
}

TEST_CASE("complete and commit: a claim's receipt and the offset in one append, or neither") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        Cache cache(*store);
        Offsets offsets(hooked);
        const Claim claim = must_claim(cache, "e-1");
        as<Committed>(offsets.complete_and_commit(claim, "r", at(1)));
        CHECK(hooked.appends == 1);
        CHECK(as<Completed>(cache.lookup("e-1")).receipt == "r");
        CHECK(position(offsets).offset == 1);

        // A stale claim commits nothing.
        const Claim old = must_claim(cache, "e-2", with_lease(1s));
        store.clock.advance(1'001);
        const Claim current = must_claim(cache, "e-2", with_lease(1s));
        check_error(offsets.complete_and_commit(old, "late", at(2)), Code::stale_claim);
        CHECK(position(offsets).offset == 1);

        // An offset that is behind completes nothing.
        as<Behind>(offsets.complete_and_commit(current, "r", at(0)));
        as<InFlight>(cache.lookup("e-2"));

        // A batch of claims, even of several namespaces.
        Cache other(*store, {.ns = "other"});
        const Claim foreign = must_claim(other, "x");
        const std::array<Completion, 2> both = {{{current, "r2", {}}, {foreign, "r3", {}}}};
        as<Committed>(offsets.complete_and_commit(both, at(2)));
        CHECK(as<Completed>(cache.lookup("e-2")).receipt == "r2");
        CHECK(as<Completed>(other.lookup("x")).receipt == "r3");
        CHECK(position(offsets).offset == 2);
        CHECK(hooked.appends == 2);
    });
}

TEST_CASE("complete and commit: a lost race is settled by reading all of it again") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        Cache cache(*store);
        Offsets offsets(hooked);
        Offsets rival(*store);
        const Claim claim = must_claim(cache, "e");
        int times = 1;
        hooked.before_append = [&] {
            if (times-- > 0) {
                as<Committed>(rival.commit(at(5, "rival")));
            }
        };
        as<Committed>(offsets.complete_and_commit(claim, "r", at(6, "mine")));
        CHECK(hooked.appends == 2);
        CHECK(position(offsets).event_id == "mine");

        const Claim second = must_claim(cache, "f");
        times = 1;
        hooked.before_append = [&] {
            if (times-- > 0) {
                as<Committed>(rival.commit(at(9, "rival")));
            }
        };
        CHECK(as<Behind>(offsets.complete_and_commit(second, "r", at(7))).current.offset == 9);
        as<InFlight>(cache.lookup("f"));
    });
}

}  // namespace
}  // namespace dedup::test
