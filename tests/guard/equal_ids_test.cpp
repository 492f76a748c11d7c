// Batches in which several events have one id: repetitions, and events that took another one's id.
// The invariant: a batch answers each event as process_if_new would, one after the other; and
// however many there are, they cost a round for each that runs, not one for each that does not.
#include <doctest/doctest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "guard/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

// Events under the id "e", with the fingerprints "f0", "f1", ... or all with "f0".
struct Namesakes {
    explicit Namesakes(std::size_t count, bool equal = false) {
        for (std::size_t i = 0; i < count; ++i) {
            fingerprints.push_back("f" + std::to_string(equal ? 0 : i));
        }
        for (const std::string& fingerprint : fingerprints) {
            all.push_back({"e", fingerprint});
        }
    }
    std::vector<std::string> fingerprints;
    std::vector<BatchEvent> all;
};

// What an outcome comes to, but for times.
std::string text_of(const Result<ProcessOutcome>& outcome) {
    if (!outcome) {
        return "error " + std::string(name(outcome.error().code));
    }
    if (const auto* success = outcome->success()) {
        return "success " + success->result;
    }
    if (const auto* done = outcome->already_processed()) {
        return "already " + done->result;
    }
    if (const auto* failed = outcome->failed()) {
        return "failed " + failed->failure.message;
    }
    if (const auto* other = outcome->mismatch()) {
        return "mismatch " + other->fingerprint +
               (other->state == State::completed ? " done " : " ") +
               std::to_string(other->conflicts);
    }
    return outcome->held() != nullptr ? "held" : "in flight";
}

TEST_CASE("guard: events of a batch that share an id cost no more appends than one of them") {
    // Guards against leases that run out before any work begins, while each namesake is answered
    // with a flush of its own.
    on_each_store([](TestStore& store) {
        for (const bool equal : {false, true}) {
            CAPTURE(equal);
            HookedStore hooked(*store);
            const auto guard = guard_on(hooked, {.ns = equal ? "equal" : "different"});
            const Namesakes events(200, equal);
            std::size_t runs = 0;
            const auto outcomes =
                guard->process_batch(events.all, [&](const Attempt& attempt) -> Handled {
                    ++runs;
                    CHECK(attempt.index == 0);
                    CHECK(hooked.appends == 1);
                    CHECK(hooked.items == 1);
                    return "r";
                });
            CHECK(runs == 1);
            as<Success>(outcomes[0]);
            for (std::size_t i = 1; i < outcomes.size(); ++i) {
                CHECK(text_of(outcomes[i]) == (equal ? "already r" : "mismatch f0 done 0"));
            }
            CHECK(hooked.appends == 2);
            CHECK(hooked.items == 2);
            CHECK(hooked.reads <= 4);
        }
    });
}

TEST_CASE("guard: a batch answers equal ids as one event after the other would be answered") {
    // Guards against a Mismatch with an event of the same batch that was not processed in the end.
    on_each_store([](TestStore& store) {
        const std::vector<BatchEvent> events{
            {"a", "bad"},  {"b", "good"}, {"a", "good"}, {"a", "bad"},  {"b", "bad"}, {"a"},
            {"c", "bad"},  {"c", "bad"},  {"c"},         {"d", "good"}, {"d"},        {"d", "good"},
            {"busy", "x"}, {"busy", "y"}, {"busy"},      {"old", "x"},  {"old"},      {"old", "y"}};
        std::vector<std::vector<std::string>> answers;
        std::vector<std::vector<std::size_t>> runs;
        for (const bool batch : {false, true}) {
            const std::string ns = batch ? "batch" : "alone";
            const auto guard = guard_on(*store, {.ns = ns});
            Cache other(*store, {.ns = ns});
            must_claim(other, "busy", with_fingerprint("x"));
            as<New>(other.remember("old", "known", with_fingerprint("x")));
            auto& run = runs.emplace_back();
            const auto work = [&](std::size_t index) -> Handled {
                run.push_back(index);
                if (events[index].fingerprint == "good") {
                    return "r" + std::to_string(index);
                }
                return std::unexpected(Failure{"no " + std::to_string(index)});
            };
            auto& texts = answers.emplace_back();
            if (batch) {
                for (const auto& outcome : guard->process_batch(
                         events, [&](const Attempt& attempt) { return work(attempt.index); })) {
                    texts.push_back(text_of(outcome));
                }
                continue;
            }
            for (std::size_t i = 0; i < events.size(); ++i) {
                texts.push_back(text_of(guard->process_if_new(
                    events[i].id, [&](const Attempt&) { return work(i); }, events[i].fingerprint)));
            }
        }
        CHECK(answers[0] == std::vector<std::string>{
                                "failed no 0", "success r1", "success r2", "mismatch good done 0",
                                "mismatch good done 0", "already r2", "failed no 6", "failed no 7",
                                "failed no 8", "success r9", "already r9", "already r9",
                                "in flight", "mismatch x 1", "in flight", "already known",
                                "already known", "mismatch x done 0"});
        CHECK(answers[1] == answers[0]);
        CHECK(runs[0] == std::vector<std::size_t>{0, 1, 2, 6, 7, 8, 9});
        std::ranges::sort(runs[1]);
        CHECK(runs[1] == runs[0]);
    });
}

TEST_CASE("guard: a batch holds one claim of an id at a time, and each that fails runs alone") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        const auto guard = guard_on(hooked);
        const Namesakes events(20);
        std::vector<std::size_t> run;
        const auto outcomes =
            guard->process_batch(events.all, [&](const Attempt& attempt) -> Handled {
                run.push_back(attempt.index);
                CHECK(head_of(*store, "e", "events").fingerprint ==
                      events.fingerprints[attempt.index]);
                if (run.size() == 5) {
                    return "r";
                }
                return std::unexpected(Failure{"no"});
            });
        CHECK(run == std::vector<std::size_t>{0, 1, 2, 3, 4});
        as<Failed>(outcomes[3]);
        as<Success>(outcomes[4]);
        CHECK(text_of(outcomes[5]) == "mismatch f4 done 0");
        CHECK(text_of(outcomes[19]) == "mismatch f4 done 0");
        CHECK(hooked.appends == 5 + 5);
    });
}

TEST_CASE("guard: a batch of other events under an id in flight elsewhere counts them together") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        const auto guard = guard_on(hooked);
        Cache elsewhere(*store, {.ns = "events"});
        must_claim(elsewhere, "e", with_fingerprint("theirs"));
        const Namesakes events(100);
        const auto outcomes = guard->process_batch(events.all, fails("must not run"));
        for (std::size_t i = 0; i < outcomes.size(); ++i) {
            CHECK(text_of(outcomes[i]) == "mismatch theirs " + std::to_string(i + 1));
        }
        CHECK(hooked.appends == 2);
        CHECK(head_of(*store, "e", "events").conflict.count == 100);
    });
}

TEST_CASE("guard: an exception leaves none of a batch's equal ids claimed") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        const Namesakes events(3);
        CHECK_THROWS_WITH(
            static_cast<void>(guard->process_batch(
                events.all, [](const Attempt&) -> Handled { throw std::runtime_error("dies"); })),
            "dies");
        CHECK(must(store->stats()).in_flight == 0);
        as<Success>(guard->process_if_new("e", gives("r"), "f2"));
    });
}

TEST_CASE("guard: the position stays before an event whose id the next one took when it failed") {
    on_each_store([](TestStore& store) {
        const auto guard = guard_on(*store);
        Offsets offsets(*store);
        const std::vector<StreamEvent> events{
            {"a", 1}, {"e", 2, "f"}, {"e", 3, "g"}, {"e", 4, "g"}};
        const auto outcome =
            guard->process_stream(offsets, "p", "s", events, [](const Attempt& attempt) -> Handled {
                return attempt.index == 1 ? Handled(std::unexpected(Failure{"no"})) : "r";
            });
        CHECK(text_of(outcome.events[1]) == "failed no");
        CHECK(text_of(outcome.events[2]) == "success r");
        CHECK(text_of(outcome.events[3]) == "already r");
        CHECK(outcome.reached == 1);
        const auto again = guard->process_stream(offsets, "p", "s", events, fails("must not run"));
        CHECK(text_of(again.events[1]) == "mismatch g done 0");
        CHECK(again.reached == 1);
    });
}

}  // namespace
}  // namespace dedup::test
