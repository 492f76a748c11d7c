// A consumer that gets its events more than once: at least once from the broker, from several
// threads, before and after crashes. The function has to run once for each.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "guard/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

TEST_CASE("guard: the function runs once, later deliveries get its result") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        CHECK_FALSE(must(guard->is_processed("e")));
        Attempt seen;
        CHECK(as<Success>(guard->process_if_new("e", [&](const Attempt& attempt) -> Handled {
                  seen = attempt;
                  CHECK_FALSE(must(guard->is_processed("e")));  // in flight is not processed
                  return "result";
              })).result == "result");
        CHECK(seen.event_id == "e");
        CHECK(seen.number == 1);
        CHECK(seen.fence == head_of(*store, "e", "events").claim_sequence);
        CHECK(must(guard->is_processed("e")));

        store.clock.set(5'000);
        const auto again = as<AlreadyProcessed>(guard->process_if_new("e", gives("other")));
        CHECK(again.result == "result");
        CHECK(again.processed_at_ms == 1'000);
    });
}

TEST_CASE("guard: a result too long to keep is given once, and the work is not repeated") {
    // Guards against a charge with every delivery, since none of them could be recorded.
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        const std::string longest(kReceiptBytesMax, 'r');
        const auto kept = as<Success>(guard->process_if_new("longest", gives(longest)));
        CHECK(kept.result_kept);
        CHECK(kept.result == longest);
        const auto replayed = as<AlreadyProcessed>(guard->process_if_new("longest", gives("")));
        CHECK(replayed.result_kept);
        CHECK(replayed.result == longest);

        const std::vector<std::string_view> events{"before", "long", "after"};
        const auto outcomes = guard->process_batch(events, [&](const Attempt& attempt) -> Handled {
            return attempt.event_id == "long" ? longest + "r" : attempt.event_id;
        });
        CHECK(as<Success>(outcomes[0]).result == "before");
        CHECK(as<Success>(outcomes[2]).result == "after");
        const auto given = as<Success>(outcomes[1]);
        CHECK_FALSE(given.result_kept);
        CHECK(given.result.size() == kReceiptBytesMax + 1);

        store.clock.advance(3'600'000);  // whatever lease there was
        CHECK(must(guard->is_processed("long")));
        const auto later = as<AlreadyProcessed>(guard->process_if_new("long", gives("again")));
        CHECK_FALSE(later.result_kept);
        CHECK(later.result.empty());
        CHECK(later.metadata.empty());
        CHECK(head_of(*store, "long", "events").metadata == kResultNotKept);
        // Nobody else can say so of an event that had no result.
        check_error(guard->mark_processed("other", kResultNotKept), Code::invalid_argument,
                    "metadata");
    });
}

TEST_CASE("guard: outcomes made by default say that nothing was done") {
    CHECK(std::holds_alternative<InFlight>(*Result<ProcessOutcome>()));
}

TEST_CASE("guard: an outcome can be asked what it is") {
    const ProcessOutcome success = Success{.result = "r"};
    CHECK(success.success() == &std::get<Success>(success));
    CHECK((!success.in_flight() && !success.already_processed() && !success.failed() &&
           !success.held() && !success.mismatch()));
    CHECK(ProcessOutcome().in_flight() != nullptr);
    CHECK(ProcessOutcome(AlreadyProcessed()).already_processed() != nullptr);
    CHECK(ProcessOutcome(Failed{{"no"}, 2}).failed()->retries == 2);
    CHECK(ProcessOutcome(Held()).held() != nullptr);
    CHECK(ProcessOutcome(Mismatch{.fingerprint = "f"}).mismatch()->fingerprint == "f");
    CHECK(!ProcessOutcome(Mismatch{}).success());
}

TEST_CASE("guard: a restart forgets nothing") {
    on_each_store([](TestStore& store) {
        if (!store.durable()) {
            return;
        }
        as<Success>(guard_on(*store)->process_if_new("e", gives("r")));
        store.reopen();
        CHECK(as<AlreadyProcessed>(guard_on(*store)->process_if_new("e", gives("x"))).result ==
              "r");
    });
}

TEST_CASE("guard: of ten consumers of one event one runs the function, nine get its result") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.wait = 60s});
        for (int round = 0; round < 20; ++round) {
            const std::string event = "event-" + std::to_string(round);
            std::atomic<int> runs = 0;
            std::atomic<int> successes = 0;
            std::atomic<int> replays = 0;
            std::vector<std::thread> consumers;
            for (int i = 0; i < 10; ++i) {
                consumers.emplace_back([&, i] {
                    const auto outcome =
                        guard->process_if_new(event, [&, i](const Attempt&) -> Handled {
                            ++runs;
                            return "by " + std::to_string(i);
                        });
                    if (!outcome) {
                        return;
                    }
                    if (std::holds_alternative<Success>(*outcome)) {
                        ++successes;
                    } else if (const auto* done = std::get_if<AlreadyProcessed>(&*outcome)) {
                        replays += done->result.starts_with("by ") ? 1 : 0;
                    }
                });
            }
            for (std::thread& consumer : consumers) {
                consumer.join();
            }
            CHECK(runs == 1);
            CHECK(successes == 1);
            CHECK(replays == 9);
        }
    });
}

TEST_CASE("guard: who does not wait is told who has the event") {
    on_each_store([](TestStore& store) {
        const auto one = guard_on(*store, {.owner = "one"});
        const auto two = guard_on(*store, {.owner = "two"});
        as<Success>(one->process_if_new("e", [&](const Attempt&) -> Handled {
            CHECK(as<InFlight>(two->process_if_new("e", gives("x"))).owner == "one");
            return "r";
        }));
    });
}

TEST_CASE("guard: a failed function leaves the event free, for those who wait for it, too") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.wait = 60s});
        CHECK(as<Failed>(guard->process_if_new("e", fails("no"))).failure.message == "no");
        CHECK_FALSE(must(guard->is_processed("e")));

        std::thread waiting;
        std::uint32_t number = 0;
        Result<ProcessOutcome> waited;
        as<Failed>(guard->process_if_new("e", [&](const Attempt& attempt) -> Handled {
            CHECK(attempt.number == 2);
            waiting = std::thread([&] {
                waited = guard->process_if_new("e", [&](const Attempt& later) -> Handled {
                    number = later.number;
                    return "third time";
                });
            });
            return std::unexpected(Failure{"again"});
        }));
        waiting.join();
        CHECK(as<Success>(waited).result == "third time");
        CHECK(number == 3);
    });
}

TEST_CASE("guard: another event under the same id is told apart by its fingerprint") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        as<Success>(guard->process_if_new("e", gives("r"), "content"));
        as<AlreadyProcessed>(guard->process_if_new("e", fails("must not run"), "content"));
        as<AlreadyProcessed>(guard->process_if_new("e", fails("must not run")));
        CHECK(
            as<Mismatch>(guard->process_if_new("e", fails("must not run"), "other")).fingerprint ==
            "content");
    });
}

TEST_CASE("guard: transient failures are tried again, with growing random pauses") {
    on_each_store([](TestStore& store) {
        std::vector<milliseconds> pauses;
        const auto guard = guard_on(*store, {.retry = noted_retry(store.clock, pauses)});
        std::uint32_t runs = 0;
        as<Success>(guard->process_if_new("e", [&](const Attempt& attempt) -> Handled {
            CHECK(attempt.retries == runs);
            if (++runs < 6) {
                return std::unexpected(Failure{"busy", true});
            }
            return "r";
        }));
        REQUIRE(pauses.size() == 5);
        const std::array<milliseconds, 5> bounds = {50ms, 100ms, 200ms, 400ms, 400ms};
        for (std::size_t i = 0; i < pauses.size(); ++i) {
            CHECK(pauses[i] >= 1ms);
            CHECK(pauses[i] <= bounds[i]);
        }
    });
}

TEST_CASE("guard: retries end at the deadline, and permanent failures have none") {
    on_each_store([](TestStore& store) {
        std::vector<milliseconds> pauses;
        const auto guard =
            guard_on(*store, {.lease = 60s, .retry = noted_retry(store.clock, pauses)});
        CHECK(as<Failed>(guard->process_if_new("e", fails("permanent"))).retries == 0);
        CHECK(pauses.empty());

        const std::int64_t start = store.clock.now_ms();
        const auto failed = as<Failed>(guard->process_if_new("e", fails("transient", true)));
        CHECK(failed.retries == pauses.size());
        CHECK(failed.retries >= 7);  // 3 s in pauses of at most 400 ms
        CHECK(store.clock.now_ms() - start <= 3'000);
        CHECK(store.clock.now_ms() - start > 3'000 - 400);
        as<Success>(guard->process_if_new("e", gives("r")));
    });
}

TEST_CASE("guard: a store that is unavailable is tried again; other errors are not") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        std::vector<milliseconds> pauses;
        const auto guard = guard_on(hooked, {.retry = noted_retry(store.clock, pauses)});
        int failures = 4;  // two at the claim, two at the completion
        hooked.fail_append = [&](const Append& item) -> std::optional<Code> {
            const bool claim = !item.record.receipt;
            return failures > (claim ? 2 : 0) ? (--failures, std::optional(Code::unavailable))
                                              : std::nullopt;
        };
        int runs = 0;
        as<Success>(guard->process_if_new("e", [&](const Attempt&) -> Handled {
            ++runs;
            return "r";
        }));
        CHECK(runs == 1);
        CHECK(pauses.size() == 4);

        hooked.fail_append = [](const Append&) { return std::optional(Code::out_of_space); };
        check_error(guard->process_if_new("f", gives("r")), Code::out_of_space);
        CHECK(pauses.size() == 4);
    });
}

TEST_CASE("guard: an event id that is none is an error of its own, and nothing runs") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        const std::string long_id(kKeyBytesMax + 1, 'x');
        const std::array<std::string_view, 3> events = {"", "good", long_id};
        int runs = 0;
        const auto outcomes = guard->process_batch(events, [&](const Attempt& attempt) -> Handled {
            ++runs;
            CHECK(attempt.index == 1);
            return "r";
        });
        check_error(outcomes[0], Code::invalid_argument, "event id");
        as<Success>(outcomes[1]);
        check_error(outcomes[2], Code::invalid_argument, "event id");
        CHECK(runs == 1);
        check_error(guard->is_processed(""), Code::invalid_argument, "event id");
        check_error(guard->mark_processed(long_id), Code::invalid_argument, "event id");
    });
}

TEST_CASE("guard: options out of range") {
    on_each_store([](TestStore& store) {
        check_error(Guard::start(*store, {.ns = ""}), Code::invalid_argument, "namespace");
        check_error(Guard::start(*store, {.retention = 0ms}), Code::invalid_argument, "ttl");
        check_error(Guard::start(*store, {.lease = 2ms}), Code::invalid_argument, "lease");
        check_error(Guard::start(*store, {.retry = {.pause_min = 0ms}}), Code::invalid_argument,
                    "retry");
    });
}

TEST_CASE("guard: a batch costs one append for the claims and one for the completions") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        const auto guard = guard_on(hooked);
        std::vector<std::string> names;
        for (int i = 0; i < 500; ++i) {
            names.push_back("event-" + std::to_string(i));
        }
        const std::vector<std::string_view> events(names.begin(), names.end());
        std::vector<std::size_t> order;
        const auto outcomes = guard->process_batch(events, [&](const Attempt& attempt) -> Handled {
            CHECK(attempt.event_id == events[attempt.index]);
            order.push_back(attempt.index);
            return "r" + std::to_string(attempt.index);
        });
        CHECK(hooked.appends == 2);
        CHECK(hooked.items == 1'000);
        CHECK(std::ranges::is_sorted(order));
        REQUIRE(order.size() == 500);
        CHECK(as<Success>(outcomes[499]).result == "r499");

        const auto again = guard->process_batch(events, fails("must not run"));
        CHECK(hooked.appends == 2);  // a duplicate costs none
        CHECK(as<AlreadyProcessed>(again[499]).result == "r499");
    });
}

TEST_CASE("guard: a batch's events succeed, fail and repeat each for itself") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        as<Success>(guard->process_if_new("old", gives("before")));
        const std::array<std::string_view, 5> events = {"a", "old", "bad", "a", "bad"};
        int bad_runs = 0;
        const auto outcomes = guard->process_batch(events, [&](const Attempt& attempt) -> Handled {
            if (attempt.event_id == "bad") {
                ++bad_runs;
                return std::unexpected(Failure{"bad"});
            }
            CHECK(attempt.index == 0);
            return "r";
        });
        CHECK(as<Success>(outcomes[0]).result == "r");
        CHECK(as<AlreadyProcessed>(outcomes[1]).result == "before");
        as<Failed>(outcomes[2]);
        CHECK(as<AlreadyProcessed>(outcomes[3]).result == "r");
        as<Failed>(outcomes[4]);
        CHECK(bad_runs == 2);  // each is a delivery of its own
        CHECK(guard->process_batch(std::span<const BatchEvent>(), gives("")).empty());
    });
}

TEST_CASE("guard: an event can be marked as processed, with metadata, even while in flight") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        CHECK(must(guard->mark_processed("e", "skipped by hand")));
        CHECK_FALSE(must(guard->mark_processed("e", "other")));
        CHECK(as<AlreadyProcessed>(guard->process_if_new("e", gives("x"))).metadata ==
              "skipped by hand");

        // What waits for a decision is decided by resolve(), which says who and why.
        Cache cache(*store, {.ns = "events"});
        const Claim held = must_claim(cache, "held");
        must(cache.note(held, "reference 42"));
        must(cache.hold(held, "timeout"));
        check_error(guard->mark_processed("held", "by hand"), Code::stale_claim, "resolve it");
        must_claim(cache, "noted", {.metadata = "reference 43"});
        CHECK(must(guard->mark_processed("noted")));
        CHECK(as<AlreadyProcessed>(guard->process_if_new("noted", gives("x"))).metadata ==
              "reference 43");

        // What is running is told that its result is not the one that stands.
        check_error(guard->process_if_new("f",
                                          [&](const Attempt&) -> Handled {
                                              CHECK(must(guard->mark_processed("f", "by hand")));
                                              return "r";
                                          }),
                    Code::receipt_mismatch);
        CHECK(as<AlreadyProcessed>(guard->process_if_new("f", gives("x"))).metadata == "by hand");
    });
}

TEST_CASE(
    "guard: of many that mark one event in flight as processed, one is told that it was new") {
    on_each_store([](TestStore& store) {
        constexpr int kMarking = 4;
        constexpr std::size_t kEvents = 100;
        const auto guard = guard_on(*store);
        Cache cache(*store, {.ns = GuardOptions{}.ns});
        std::vector<std::string> events;
        for (std::size_t i = 0; i < kEvents; ++i) {
            events.push_back("e" + std::to_string(i));
            must_claim(cache, events.back());
        }
        std::array<std::atomic<int>, kEvents> first = {};
        std::barrier together(kMarking);
        std::vector<std::thread> marking;
        for (int thread = 0; thread < kMarking; ++thread) {
            marking.emplace_back([&] {
                for (std::size_t i = 0; i < kEvents; ++i) {
                    together.arrive_and_wait();
                    first.at(i) += must(guard->mark_processed(events.at(i))) ? 1 : 0;
                }
            });
        }
        for (std::thread& thread : marking) {
            thread.join();
        }
        CHECK(std::ranges::all_of(first, [](int times) { return times == 1; }));
    });
}

TEST_CASE("guard: events are kept for seven days, and a clean-up says how many went") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        as<Success>(guard->process_if_new("a", gives("r")));
        CHECK(must(guard->mark_processed("b")));
        Cache other(*store, {.ttl = 1s});
        must_claim(other, "not the guard's");
        constexpr std::int64_t kWeek = 7 * 24 * 3'600'000;
        store.clock.advance(kWeek);
        CHECK(must(guard->is_processed("a")));
        CHECK(must(guard->cleanup_old_events()) == 0);
        as<Success>(guard->process_if_new("c", gives("r")));
        store.clock.advance(kDefaultGrace.count() + 1);
        CHECK_FALSE(must(guard->is_processed("a")));
        CHECK(must(guard->cleanup_old_events()) == 2);
        CHECK(must(guard->cleanup_old_events()) == 0);
        CHECK(must(guard->is_processed("c")));
    });
}

}  // namespace
}  // namespace dedup::test
