// Batches that are stored part by part, and that move the position of the stream they come from.
// The invariant: the position is never beyond an event that is not done.
#include <doctest/doctest.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "guard/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

// Events 1, 2, ... of a stream, named e1, e2, ... with offsets 10, 20, ...
struct Events {
    explicit Events(std::size_t count) {
        for (std::size_t i = 1; i <= count; ++i) {
            names.push_back("e" + std::to_string(i));
        }
        for (std::size_t i = 0; i < count; ++i) {
            all.push_back({names[i], 10 * (i + 1)});
        }
    }
    std::vector<std::string> names;
    std::vector<StreamEvent> all;
};

StreamOutcome process(Guard& guard, Offsets& offsets, const Events& events, const Work& work,
                      std::size_t complete_every = 0) {
    return guard.process_stream(offsets, "p", "s", events.all, work,
                                {.complete_every = complete_every});
}

std::uint64_t position(StreamStore& store) {
    const auto found = must(Offsets(store).find("p", "s"));
    return found ? found->offset : 0;
}

// So many events are done from the first without a gap.
std::size_t done_in_order(Guard& guard, const Events& events) {
    std::size_t done = 0;
    while (done < events.all.size() && must(guard.is_processed(events.names[done]))) {
        ++done;
    }
    return done;
}

Handled echo(const Attempt& attempt) {
    return "r-" + attempt.event_id;
}

TEST_CASE("guard: a batch that is stored every so often repeats no more than that") {
    // Guards against a crash at the end of a batch of a thousand charges that repeats all of them.
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        const auto guard = guard_on(hooked);
        const Events events(10);
        const std::vector<std::string_view> ids(events.names.begin(), events.names.end());
        std::size_t run = 0;
        const auto outcomes =
            guard->process_batch(ids,
                                 [&](const Attempt& attempt) -> Handled {
                                     CHECK(done_in_order(*guard, events) == run / 4 * 4);
                                     ++run;
                                     return echo(attempt);
                                 },
                                 {.complete_every = 4});
        CHECK(run == 10);
        CHECK(hooked.appends == 1 + 3);
        CHECK(as<Success>(outcomes[9]).result == "r-e10");
    });
}

TEST_CASE("guard: another event under an id of a batch is told apart, and the others go on") {
    // Guards against a batch that gives an event the result of another one with its id.
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        as<Success>(guard->process_if_new("known", gives("before"), "one"));
        const std::vector<BatchEvent> events{{"known", "two"}, {"a", "f"}, {"a", "g"}, {"a", "f"},
                                             {"known", "one"}, {"known"},  {"b"},      {"", "f"},
                                             {"c", "h"}};
        std::vector<std::size_t> run;
        const auto outcomes = guard->process_batch(events, [&](const Attempt& attempt) -> Handled {
            run.push_back(attempt.index);
            return echo(attempt);
        });
        CHECK(run == std::vector<std::size_t>{1, 6, 8});
        const auto alone = as<Mismatch>(guard->process_if_new("known", gives("x"), "two"));
        const auto other = as<Mismatch>(outcomes[0]);
        CHECK(other.fingerprint == alone.fingerprint);
        CHECK(other.state == State::completed);
        CHECK(other.since_ms == alone.since_ms);
        as<Success>(outcomes[1]);
        CHECK(as<Mismatch>(outcomes[2]).fingerprint == "f");
        CHECK(as<Mismatch>(outcomes[2]).state == State::completed);
        CHECK(as<AlreadyProcessed>(outcomes[3]).result == "r-a");
        CHECK(as<AlreadyProcessed>(outcomes[4]).result == "before");
        CHECK(as<AlreadyProcessed>(outcomes[5]).result == "before");
        as<Success>(outcomes[6]);
        check_error(outcomes[7], Code::invalid_argument, "event id");
        as<Success>(outcomes[8]);
        as<Mismatch>(guard->process_if_new("c", gives("x"), "i"));  // it was stored
    });
}

TEST_CASE("guard: who waits gets no result of another event that has taken its id meanwhile") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Cache other(*store, {.ns = "events"});
        must_claim(other, "theirs", with_fingerprint("one"));
        const std::vector<BatchEvent> events{{"e", "one"}, {"e", "one"}, {"theirs", "one"}};
        const auto outcomes = guard->process_batch(events, [&](const Attempt&) -> Handled {
            for (const char* id : {"e", "theirs"}) {
                CHECK(must(other.release_current(id)));
                must(other.complete(must_claim(other, id, with_fingerprint("two")), "of two"));
            }
            return "of one";
        });
        check_error(outcomes[0], Code::stale_claim);
        CHECK(as<Mismatch>(outcomes[1]).fingerprint == "two");
        CHECK(as<Mismatch>(outcomes[2]).fingerprint == "two");
    });
}

TEST_CASE("guard: the position of a stream stays before an event that has another one's id") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Offsets offsets(*store);
        as<Success>(guard->process_if_new("b", gives("r"), "one"));
        std::vector<StreamEvent> events{{"a", 10, "f"}, {"b", 20, "two"}, {"c", 30}};
        auto outcome = guard->process_stream(offsets, "p", "s", events, echo);
        as<Success>(outcome.events[0]);
        as<Mismatch>(outcome.events[1]);
        as<Success>(outcome.events[2]);
        CHECK(outcome.reached == 10);
        CHECK(position(*store) == 10);
        events[1].fingerprint = "one";
        outcome = guard->process_stream(offsets, "p", "s", events, echo);
        as<AlreadyProcessed>(outcome.events[1]);
        CHECK(position(*store) == 30);
    });
}

TEST_CASE("guard: work may be a function that can only be moved, and one that gives nothing") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        int runs = 0;
        std::move_only_function<Handled(const Attempt&)> once =
            [owned = std::make_unique<std::string>("r")](const Attempt&) -> Handled {
            return std::move(*owned);
        };
        CHECK(as<Success>(guard->process_if_new("moved", once)).result == "r");
        const auto nothing = [&](const Attempt&) { ++runs; };
        CHECK(as<Success>(guard->process_if_new("nothing", nothing)).result.empty());
        as<AlreadyProcessed>(guard->process_if_new("nothing", nothing));
        CHECK(runs == 1);
        CHECK(as<Success>(guard->process_if_new("function", echo)).result == "r-function");
    });
}

TEST_CASE("guard: an exception keeps what was stored before it, and frees the rest") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Offsets offsets(*store);
        const Events events(8);
        CHECK_THROWS_WITH(static_cast<void>(process(
                              *guard, offsets, events,
                              [](const Attempt& attempt) -> Handled {
                                  if (attempt.index == 5) {
                                      throw std::runtime_error("dies");
                                  }
                                  return echo(attempt);
                              },
                              3)),
                          "dies");
        CHECK(done_in_order(*guard, events) == 5);
        CHECK(position(*store) == 50);
        const auto again = process(*guard, offsets, events, echo);
        CHECK(std::holds_alternative<AlreadyProcessed>(*again.events[4]));
        as<Success>(again.events[5]);
        CHECK(again.reached == 80);
    });
}

TEST_CASE("guard: completions and position are one append, for each part of a batch") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        const auto guard = guard_on(hooked);
        Offsets offsets(hooked);
        const Events events(6);
        const auto outcome = process(*guard, offsets, events, echo, 2);
        CHECK(hooked.appends == 1 + 3);
        CHECK(hooked.items == 6 + 3 * 3);
        CHECK(outcome.reached == 60);
        CHECK(std::holds_alternative<Committed>(*outcome.commit));
        const auto found = must(offsets.find("p", "s"));
        REQUIRE(found);
        CHECK(found->offset == 60);
        CHECK(found->event_id == "e6");

        // Delivered again, with two more: the position follows, and nothing runs twice.
        const Events more(8);
        const auto next = process(*guard, offsets, more, [](const Attempt& attempt) -> Handled {
            CHECK(attempt.index >= 6);
            return echo(attempt);
        });
        CHECK(next.reached == 80);
        CHECK(process(*guard, offsets, more, echo).reached == 80);
        CHECK(hooked.appends == 4 + 2);  // repetitions cost none
    });
}

TEST_CASE("guard: the position stays before what is not done, whatever is done behind it") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Offsets offsets(*store);
        const Events events(5);
        const auto fails_at = [](std::size_t index) {
            return [index](const Attempt& attempt) -> Handled {
                return attempt.index == index ? std::unexpected(Failure{"no"}) : echo(attempt);
            };
        };
        auto outcome = process(*guard, offsets, events, fails_at(0));
        CHECK(!outcome.reached);
        CHECK(std::holds_alternative<Behind>(*outcome.commit));
        CHECK(position(*store) == 0);
        as<Success>(outcome.events[4]);

        const Events more(9);
        outcome = process(*guard, offsets, more, fails_at(7), 2);
        CHECK(outcome.reached == 70);
        CHECK(position(*store) == 70);
        as<Failed>(outcome.events[7]);
        as<Success>(outcome.events[8]);

        // In flight elsewhere: the same.
        Cache elsewhere(*store, {.ns = "events"});
        const Events last(11);
        must_claim(elsewhere, "e10");
        outcome = process(*guard, offsets, last, echo);
        CHECK(outcome.reached == 90);
        as<InFlight>(outcome.events[9]);
        as<Success>(outcome.events[10]);
    });
}

TEST_CASE("guard: an event that was taken over keeps the position, and the others are stored") {
    // Guards against a whole batch that is refused, since one of its claims was lost, and repeated.
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Offsets offsets(*store);
        Cache other(*store, {.ns = "events"});
        const Events events(4);
        const auto outcome =
            process(*guard, offsets, events, [&](const Attempt& attempt) -> Handled {
                if (attempt.index == 2) {  // it was too slow, and somebody else has the event
                    CHECK(must(other.release_current(attempt.event_id)));
                    must_claim(other, attempt.event_id);
                }
                return echo(attempt);
            });
        as<Success>(outcome.events[1]);
        check_error(outcome.events[2], Code::stale_claim);
        as<Success>(outcome.events[3]);
        CHECK(outcome.reached == 20);
        CHECK(position(*store) == 20);
    });
}

TEST_CASE("guard: a position that is further on stays, and the events are done nevertheless") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Offsets offsets(*store);
        as<Committed>(offsets.commit({.pipeline = "p", .stream = "s", .offset = 1'000}));
        const Events events(3);
        const auto outcome = process(*guard, offsets, events, echo, 2);
        for (const auto& event : outcome.events) {
            as<Success>(event);
        }
        CHECK(!outcome.reached);
        CHECK(as<Behind>(outcome.commit).current.offset == 1'000);
        CHECK(position(*store) == 1'000);
    });
}

TEST_CASE("guard: equal ids in a batch of a stream run once, and the position passes both") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Offsets offsets(*store);
        const std::vector<StreamEvent> events{{"a", 1}, {"b", 2}, {"a", 3}};
        int runs = 0;
        const auto outcome =
            guard->process_stream(offsets, "p", "s", events, [&](const Attempt& attempt) {
                ++runs;
                return echo(attempt);
            });
        CHECK(runs == 2);
        as<AlreadyProcessed>(outcome.events[2]);
        CHECK(outcome.reached == 3);
    });
}

TEST_CASE("guard: what a position cannot follow is refused before anything runs") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        const Work never = [](const Attempt&) -> Handled {
            FAIL_CHECK("must not run");
            return "";
        };
        const auto refused = [&](const StreamOutcome& outcome, std::string_view word) {
            check_error(outcome.events[0], Code::invalid_argument, word);
            check_error(outcome.commit, Code::invalid_argument, word);
            CHECK(!outcome.reached);
        };
        HookedStore another(*store);
        Offsets elsewhere(another);
        const Events events(2);
        refused(process(*guard, elsewhere, events, never), "another store");
        Offsets offsets(*store);
        const std::vector<StreamEvent> equal{{"a", 1}, {"b", 1}};
        refused(guard->process_stream(offsets, "p", "s", equal, never), "order");
        const std::string longest(kKeyBytesMax, 'x');
        refused(guard->process_stream(offsets, longest, "s", events.all, never), "pipeline");
    });
}

TEST_CASE("guard: no failed append leaves the position beyond an event that is not done") {
    // Every append of a run fails in turn, once as a whole and then item by item, and the run is
    // repeated until all is done.
    on_each_store([](TestStore& store) {
        for (int failing = 0; failing < 12; ++failing) {
            CAPTURE(failing);
            HookedStore hooked(*store);
            const std::string ns = "events-" + std::to_string(failing);
            Offsets offsets(hooked, "offsets-" + std::to_string(failing));
            const Events events(6);
            int items = 0;
            const auto at_most_done = [&](Guard& guard) {
                const auto found = must(offsets.find("p", "s"));
                const std::size_t reached = found ? found->offset / 10 : 0;
                CHECK(reached <= done_in_order(guard, events));
                return reached;
            };
            hooked.fail_append = [&](const Append&) -> std::optional<Code> {
                return items++ == failing ? std::optional(Code::out_of_space) : std::nullopt;
            };
            std::size_t reached = 0;
            for (int round = 0; round < 4 && reached < 6; ++round) {
                const auto guard = guard_on(hooked, {.ns = ns});
                const auto outcome = process(*guard, offsets, events, echo, 2);
                reached = at_most_done(*guard);
                CHECK(outcome.reached.value_or(0) / 10 <= reached);
                store.clock.advance(30'001);  // the leases of what could not be completed
            }
            CHECK(reached == 6);
        }
    });
}

}  // namespace
}  // namespace dedup::test
