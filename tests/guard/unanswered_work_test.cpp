// Work that ends without a result: the function throws, or its process dies. What it noted before
// decides: the event is free, or held until somebody says whether the work had been done.
#include <doctest/doctest.h>

#include <array>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "guard/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

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
        auto again = guard_on(*store, {.owner = "dead", .reclaim_own = true});
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
        const auto asking = [&] {
            return guard_on(
                *store, {.owner = "dead",
                         .reclaim_own = true,
                         .reconcile = [](auto, const Previous&) { return Finding::not_done(); }});
        };
        again = asking();
        as<Success>(again->process_if_new("held", gives("r")));
        die_at(*store, "again", Unanswered::hold);
        store.clock.advance(1);
        again.reset();
        again = asking();
        as<Success>(again->process_if_new("again", gives("r")));
        // Not what the same life has in flight, in whichever of its guards.
        store.clock.advance(1);
        as<Success>(again->process_if_new("own", [&](const Attempt&) -> Handled {
            as<InFlight>(again->process_if_new("own", gives("stolen")));
            store.clock.advance(1);
            as<InFlight>(asking()->process_if_new("own", gives("stolen")));
            return "r";
        }));
        check_error(Guard::start(*store, {.reclaim_own = true}), Code::invalid_argument, "owner");
        check_error(Cache(*store).claim("k", {.reclaim_before_ms = 1}), Code::invalid_argument,
                    "owner");
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

TEST_CASE("guard: what was found to be done is done, although its result is too long to keep") {
    // Guards against an event that fails at every delivery.
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store, {.reconcile = [](auto, const Previous&) {
            return Finding::done(std::string(kReceiptBytesMax + 1, 'r'));
        }});
        die_at(*store, "e", Unanswered::hold);
        store.clock.advance(1'001);
        for (int i = 0; i < 2; ++i) {
            const auto done = as<AlreadyProcessed>(guard->process_if_new("e", fails("ran")));
            CHECK(!done.result_kept);
            CHECK(done.result.empty());
        }
    });
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

}  // namespace
}  // namespace dedup::test
