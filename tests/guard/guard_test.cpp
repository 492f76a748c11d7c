// A consumer that gets its events more than once: at least once from the broker, from several
// threads, before and after crashes. The function has to run once for each.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dedup/lease.hpp"
#include "guard/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

Work gives(std::string result) {
    return [result = std::move(result)](const Attempt&) -> Handled { return result; };
}

Work fails(std::string message, bool transient = false) {
    return [failure = Failure{std::move(message), transient}](const Attempt&) -> Handled {
        return std::unexpected(failure);
    };
}

// Retries whose pauses pass in the store's time only, and are noted.
Retry noted_retry(ManualClock& clock, std::vector<milliseconds>& pauses) {
    return {
        .pause_min = 50ms, .pause_max = 400ms, .deadline = 3s, .sleep = [&](milliseconds pause) {
            pauses.push_back(pause);
            clock.advance(pause.count());
        }};
}

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

TEST_CASE("guard: an exception frees the event and reaches the caller") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        const std::array<std::string_view, 3> events = {"a", "b", "c"};
        CHECK_THROWS_AS((void)guard->process_batch(events,
                                                   [](const Attempt& attempt) -> Handled {
                                                       if (attempt.event_id == "b") {
                                                           throw std::runtime_error("b");
                                                       }
                                                       return "r";
                                                   }),
                        std::runtime_error);
        CHECK(must(guard->is_processed("a")));  // its effect has taken place
        as<Success>(guard->process_if_new("b", gives("r")));
        as<Success>(guard->process_if_new("c", gives("r")));
    });
}

TEST_CASE("guard: an exception after a note holds the event, before one it frees it") {
    // Guards against work that runs twice because its handler threw after the effect.
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.owner = "w1"});
        const auto throws = [&](std::string_view event, bool notes) {
            CHECK_THROWS_AS(
                (void)guard->process_if_new(event,
                                            [&](const Attempt& attempt) -> Handled {
                                                if (notes) {
                                                    must(attempt.note("calls the bank"));
                                                }
                                                throw std::runtime_error("timeout");
                                            }),
                std::runtime_error);
        };
        throws("before", false);
        throws("after", true);
        as<Success>(guard->process_if_new("before", gives("r")));
        const Previous previous = as<Held>(guard->process_if_new("after", gives("r"))).previous;
        CHECK(previous.note == "calls the bank");
        CHECK(previous.reason == "timeout");
        CHECK(previous.owner == "w1");
        CHECK(previous.end == End::held);
        // A failure says that nothing was done, noted or not.
        as<Failed>(guard->process_if_new("failed", [](const Attempt& attempt) -> Handled {
            must(attempt.note("asks first"));
            return std::unexpected(Failure{"refused"});
        }));
        as<Success>(guard->process_if_new("failed", [](const Attempt& attempt) -> Handled {
            REQUIRE(attempt.previous != nullptr);
            CHECK(attempt.previous->note == "asks first");
            CHECK(attempt.previous->end == End::released);
            return "r";
        }));
    });
}

TEST_CASE("guard: what fails again and again is held in the end, with its last error") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.attempts_max = 2});
        as<Failed>(guard->process_if_new("e", fails("one")));
        as<Failed>(guard->process_if_new("e", fails("two")));
        const Previous previous = as<Held>(guard->process_if_new("e", gives("r"))).previous;
        CHECK(previous.reason == "two");
        CHECK(previous.attempt == 2);
    });
}

TEST_CASE("guard: what throws again and again is held, too, and asking does not free it") {
    // Guards against a poisoned event that runs for ever.
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(
            *store, {.attempts_max = 2,
                     .reconcile = [](auto, const Previous&) { return Finding::not_done(); }});
        const auto throws = [](const Attempt&) -> Handled { throw std::runtime_error("poison"); };
        for (int i = 0; i < 2; ++i) {
            CHECK_THROWS_WITH(static_cast<void>(guard->process_if_new("e", throws)), "poison");
        }
        for (int i = 0; i < 2; ++i) {
            const Previous previous = as<Held>(guard->process_if_new("e", gives("r"))).previous;
            CHECK(previous.reason == "poison");
        }
    });
}

// Leaves an event as a consumer does that dies at work.
Claim die_at(StreamStore& store, std::string_view event, Unanswered unanswered) {
    Cache dead(store, {.ns = "events", .unanswered = unanswered});
    const Claim claim = must_claim(dead, event, {.owner = "dead", .lease = 1s});
    must(dead.note(claim, "reference 8125"));
    return claim;
}

TEST_CASE("guard: who died is asked after before the work runs again") {
    // Guards against an effect that is repeated although somebody could have been asked.
    on_each_store([](TestStore& store) {
        std::vector<std::string> asked;
        Finding finding;
        const auto guard =
            guard_on(*store, {.owner = "w", .reconcile = [&](auto key, const Previous& previous) {
                                  CHECK(previous.owner == "dead");
                                  CHECK(previous.note == "reference 8125");
                                  asked.emplace_back(key);
                                  return finding;
                              }});
        as<Success>(guard->process_if_new("new", gives("r")));
        CHECK(asked.empty());
        for (const Unanswered policy : {Unanswered::rerun, Unanswered::hold}) {
            CAPTURE(static_cast<int>(policy));
            const std::string n = std::to_string(static_cast<int>(policy));
            const Claim done = die_at(*store, "done" + n, policy);
            die_at(*store, "not done" + n, policy);
            die_at(*store, "unknown" + n, policy);
            store.clock.advance(1'001);

            finding = Finding::done("paid");
            const auto found =
                as<AlreadyProcessed>(guard->process_if_new("done" + n, fails("must not run")));
            CHECK(found.result == "paid");
            finding = Finding::unknown("pending");
            Previous previous =
                as<Held>(guard->process_if_new("unknown" + n, fails("must not run"))).previous;
            CHECK(previous.reason == "pending");
            CHECK(previous.note == "reference 8125");
            finding = Finding::not_done();
            std::size_t runs = 0;
            const auto works = [&](const Attempt& attempt) -> Handled {
                ++runs;
                CHECK(attempt.number == 2);
                REQUIRE(attempt.previous != nullptr);
                CHECK(attempt.previous->note == "reference 8125");
                return "r";
            };
            as<Success>(guard->process_if_new("not done" + n, works));
            CHECK(runs == 1);
            CHECK(asked == std::vector<std::string>{"done" + n, "unknown" + n, "not done" + n});
            // What nobody knew then may be known now.
            finding = Finding::done("paid late");
            if (policy == Unanswered::hold) {
                CHECK(
                    as<AlreadyProcessed>(guard->process_if_new("unknown" + n, fails(""))).result ==
                    "paid late");
            }
            asked.clear();
            CHECK(as<AlreadyProcessed>(guard->process_if_new("done" + n, fails(""))).result ==
                  "paid");
            CHECK(asked.empty());
            check_error(Cache(*store, {.ns = "events"}).complete(done, "other"),
                        policy == Unanswered::hold ? Code::receipt_mismatch : Code::stale_claim);
        }
    });
}

TEST_CASE("guard: an event of a batch that failed is asked after by the next one") {
    // Guards against a release that makes what nobody was asked about look as if it were settled.
    on_each_store([](TestStore& store) {
        std::vector<std::string> steps;
        const auto guard = guard_on(*store, {.reconcile = [&](auto key, const Previous& previous) {
            steps.push_back("ask " + std::string(key));
            CHECK(previous.note == "reference 8125");
            return Finding::done("paid");
        }});
        die_at(*store, "died", Unanswered::rerun);
        die_at(*store, "held", Unanswered::hold);
        store.clock.advance(1'001);
        const std::array<std::string_view, 3> batch{"held", "new", "died"};
        CHECK_THROWS(static_cast<void>(
            guard->process_batch(batch, [](const Attempt&) -> Handled { throw 1; })));
        CHECK(steps.empty());
        // What is held is asked after when no claim of the batch is open that a lease could end.
        const auto works = [&](const Attempt& attempt) -> Handled {
            steps.push_back("work " + std::string(attempt.event_id));
            return "r";
        };
        const auto outcomes = guard->process_batch(batch, works);
        CHECK(as<AlreadyProcessed>(outcomes[0]).result == "paid");
        as<Success>(outcomes[1]);
        CHECK(as<AlreadyProcessed>(outcomes[2]).result == "paid");
        CHECK(steps == std::vector<std::string>{"work new", "ask held", "ask died"});
    });
}

TEST_CASE("guard: who starts again under its own name has its own events at once, and no others") {
    // Guards against a restart that waits for the leases of its own former life.
    on_each_store([](TestStore& store) {
        die_at(*store, "e", Unanswered::rerun);
        die_at(*store, "held", Unanswered::hold);
        store.clock.advance(10);  // within the lease
        const auto other = guard_on(*store, {.owner = "other", .reclaim_own = true});
        as<InFlight>(other->process_if_new("e", gives("r")));
        const auto again = guard_on(*store, {.owner = "dead", .reclaim_own = true});
        as<Success>(again->process_if_new("e", [&](const Attempt& attempt) -> Handled {
            REQUIRE(attempt.previous != nullptr);
            CHECK(attempt.previous->end == End::restarted);
            CHECK(attempt.previous->note == "reference 8125");
            CHECK(attempt.previous->ended_ms == (*store).now_ms());
            return "r";
        }));
        CHECK(as<Held>(again->process_if_new("held", gives("r"))).previous.end == End::restarted);
        // Anybody sees that it is held now, and may ask after it at once.
        CHECK(as<InFlight>(Cache(*store, {.ns = "events"}).lookup("held")).held);
        const auto asks = guard_on(
            *store, {.owner = "dead", .reclaim_own = true, .reconcile = [](auto, const Previous&) {
                         return Finding::not_done();
                     }});
        as<Success>(asks->process_if_new("held", gives("r")));
        die_at(*store, "again", Unanswered::hold);
        store.clock.advance(1);
        const auto third = guard_on(
            *store, {.owner = "dead", .reclaim_own = true, .reconcile = [](auto, const Previous&) {
                         return Finding::not_done();
                     }});
        as<Success>(third->process_if_new("again", gives("r")));
        // Not what the same life has in flight.
        store.clock.advance(1);
        as<Success>(again->process_if_new("own", [&](const Attempt&) -> Handled {
            as<InFlight>(again->process_if_new("own", gives("stolen")));
            return "r";
        }));
        check_error(Guard::start(*store, {.reclaim_own = true}), Code::invalid_argument, "owner");
        check_error(Cache(*store).claim("k", {.reclaim_before_ms = 1}), Code::invalid_argument,
                    "owner");
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

// A process that works on events until it dies: from a random append on, which may still land, the
// store does not answer it any more.
class Mortal {
  public:
    Mortal(StreamStore& store, GuardOptions options, std::size_t appends_to_live, bool last_lands)
        : hooked_(store) {
        hooked_.fail_append = [this, &store, last_lands,
                               left = appends_to_live](const Append& item) mutable {
            if (!dead_ && left-- == 0) {
                dead_ = true;
                if (last_lands) {
                    (void)store.append({&item, 1}, Batch::each);
                }
            }
            hooked_.fail_heads = dead_;
            return dead_ ? std::optional(Code::closed) : std::nullopt;
        };
        guard_ = guard_on(hooked_, std::move(options));
    }
    [[nodiscard]] bool dead() const { return dead_; }
    Guard& guard() { return *guard_; }

  private:
    HookedStore hooked_;
    bool dead_ = false;
    std::unique_ptr<Guard> guard_;
};

TEST_CASE("guard: a bank that loses answers charges once, although a thousand of its clients die") {
    // Guards against the one case that a lease alone cannot tell: dead before the effect, or after.
    TestStore store = store_factories().front().make();
    std::mt19937 random(5);
    const auto pick = [&](std::size_t below) { return random() % below; };
    std::map<std::string, int, std::less<>> charges;
    const GuardOptions options{
        .retention = kForever, .lease = 1h, .reconcile = [&](auto key, const Previous&) {
            return charges.contains(key) ? Finding::done("paid") : Finding::not_done();
        }};
    const auto pay = [&](const Attempt& attempt) -> Handled {
        if (!attempt.note("charges " + attempt.event_id)) {
            return std::unexpected(Failure{"cannot say so first"});
        }
        if (pick(5) == 0) {
            throw std::runtime_error("the bank cannot be reached");
        }
        ++charges[attempt.event_id];
        if (pick(5) == 0) {
            throw std::runtime_error("the bank's answer is lost");
        }
        return "paid";
    };
    const auto watcher = guard_on(*store, options);
    auto process = std::make_unique<Mortal>(*store, options, pick(6), pick(2) == 0);
    std::size_t deaths = 0;
    std::size_t event = 0;
    for (int delivery = 0; delivery < 100'000 && deaths < 1'000; ++delivery) {
        const std::string id = std::to_string(event);
        try {
            (void)process->guard().process_if_new(id, pay);
        } catch (const std::runtime_error&) {
        }
        if (process->dead()) {
            ++deaths;
            store.clock.advance(3'600'001);
            process = std::make_unique<Mortal>(*store, options, pick(6), pick(2) == 0);
        }
        event += must(watcher->is_processed(id)) ? 1U : 0U;  // else it is delivered again
    }
    CHECK(deaths == 1'000);  // and no event was stuck
    CHECK(event > 300);
    for (std::size_t i = 0; i < event; ++i) {
        CHECK_MESSAGE(charges[std::to_string(i)] == 1, i);
    }
    MESSAGE(event << " events");
}

TEST_CASE("guard: asking that fails leaves the event held") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.reconcile = [](auto, const Previous&) -> Finding {
            throw std::runtime_error("no bank");
        }});
        die_at(*store, "e", Unanswered::hold);
        store.clock.advance(1'001);
        const Previous previous = as<Held>(guard->process_if_new("e", gives("r"))).previous;
        CHECK(previous.reason == "asking failed: no bank");
        as<Held>(guard->process_if_new("e", gives("r")));
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

TEST_CASE("guard: a dead consumer's events are free when the lease has run out") {
    on_each_store([](TestStore& store) {
        Cache dead(*store, {.ns = "events"});
        const Claim claim = must_claim(dead, "e", with_lease(30s));
        const auto guard = guard_on(*store);
        as<InFlight>(guard->process_if_new("e", gives("r")));
        store.clock.advance(30'001);
        as<Success>(guard->process_if_new("e", [](const Attempt& attempt) -> Handled {
            CHECK(attempt.number == 2);
            return "r";
        }));
        check_error(dead.complete(claim, "from the grave"), Code::stale_claim);
    });
}

TEST_CASE("guard: a heartbeat keeps long work's lease, of every event of a batch") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.lease = 300ms});
        const auto rival = guard_on(*store, {.ns = "events", .owner = "rival"});
        const std::array<std::string_view, 2> events = {"a", "b"};
        const auto lease_until = [&](std::string_view event) {
            return head_of(*store, event, "events").lease_until_ms;
        };
        const auto outcomes = guard->process_batch(events, [&](const Attempt&) -> Handled {
            for (int i = 0; i < 3; ++i) {
                // More than the lease has passed when this has come round.
                store.clock.advance(200);
                for (const std::string_view event : events) {
                    const std::int64_t renewed_ms = store.clock.now_ms() + 300;
                    for (int polls = 0; polls < 30'000 && lease_until(event) < renewed_ms;
                         ++polls) {
                        std::this_thread::sleep_for(1ms);
                    }
                    REQUIRE(lease_until(event) >= renewed_ms);
                    as<InFlight>(rival->process_if_new(event, gives("stolen")));
                }
            }
            return "r";
        });
        as<Success>(outcomes[0]);
        as<Success>(outcomes[1]);
    });
}

TEST_CASE("guard: a consumer that lost its lease is told so, and changes nothing") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        hooked.fail_append = [](const Append& item) {  // the heartbeat's renewals never land
            const bool renewal = !item.record.receipt && item.record.claim_sequence != 0;
            return renewal ? std::optional(Code::io) : std::nullopt;
        };
        const auto slow = guard_on(hooked, {.lease = 300ms});
        const auto fast = guard_on(*store);
        check_error(slow->process_if_new("e",
                                         [&](const Attempt&) -> Handled {
                                             store.clock.advance(301);
                                             as<Success>(fast->process_if_new("e", gives("fast")));
                                             return "slow";
                                         }),
                    Code::stale_claim);
        CHECK(as<AlreadyProcessed>(fast->process_if_new("e", gives("x"))).result == "fast");
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
        CHECK(guard->process_batch({}, gives("")).empty());
    });
}

TEST_CASE("guard: an event can be marked as processed, with metadata, even while in flight") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        CHECK(must(guard->mark_processed("e", "skipped by hand")));
        CHECK_FALSE(must(guard->mark_processed("e", "other")));
        CHECK(as<AlreadyProcessed>(guard->process_if_new("e", gives("x"))).metadata ==
              "skipped by hand");

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

TEST_CASE("lease: gives its key back at the end of its scope, but holds what it has noted") {
    // Guards against a key that stays claimed behind a return, and against one that is free
    // although its effect may have begun.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const auto leases = must(Leases::start(cache, 1h));
        const auto claim = [&](std::string_view key) {
            return as<Lease>(leases->claim(key, {.owner = "w"}));
        };
        { const Lease lease = claim("left"); }
        CHECK(claim("left").claim().attempt == 2);
        {
            Lease lease = claim("noted");
            must(lease.note("calls the bank"));
            as<InFlight>(leases->claim("noted"));
        }
        CHECK(as<Held>(leases->claim("noted")).previous.note == "calls the bank");
        {
            Lease lease = claim("done");
            Lease moved = std::move(lease);
            must(moved.complete("r"));
            check_error(moved.complete("r"), Code::stale_claim, "ended already");
            check_error(moved.release(), Code::stale_claim);
            check_error(lease.note("moved from"), Code::stale_claim);
        }
        CHECK(as<Completed>(leases->claim("done")).receipt == "r");
        {
            Lease lease = claim("too long");
            check_error(lease.complete(std::string(kReceiptBytesMax + 1, 'r')),
                        Code::invalid_argument);
            // Its work is done, so it must not be free.
        }
        as<Held>(leases->claim("too long"));
        const Claim kept = claim("kept").leave();
        as<InFlight>(leases->claim("kept"));
        CHECK(must(leases->keep(kept).release()));
        Lease lost = claim("lost");
        CHECK(must(cache.release_current("lost")));
        Lease other = claim("lost");
        check_error(lost.complete("r"), Code::stale_claim, "replaced");
        lost = std::move(other);
        must(lost.complete("of the other"));
        check_error(Leases::start(cache, 2ms), Code::invalid_argument, "at least 3");
    });
}

TEST_CASE("lease: is renewed while it lives") {
    TestStore store = store_factories().front().make();
    Cache cache(*store);
    const auto leases = must(Leases::start(cache, 30ms));
    const auto until_ms = [&] { return as<InFlight>(cache.lookup("k")).lease_until_ms; };
    const Lease lease = as<Lease>(leases->claim("k"));
    const std::int64_t before_ms = until_ms();
    store.clock.advance(20);
    while (until_ms() == before_ms) {
        std::this_thread::yield();
    }
    CHECK(until_ms() == before_ms + 20);
}

}  // namespace
}  // namespace dedup::test
