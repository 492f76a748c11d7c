// The checker itself: it must accept what concurrent callers may see, and nothing else.
#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "races/linearizable.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

// Histories of the key "k" in namespace "n", at time 1,000 unless said otherwise.
class Histories {
  public:
    void add(std::uint64_t invoked, std::uint64_t returned, Operation operation) {
        operation.invoked = invoked;
        operation.returned = returned;
        if (operation.times_ms.empty()) {
            operation.times_ms = {now_ms};
        }
        operations_.push_back(std::move(operation));
    }

    [[nodiscard]] std::string verdict() const {
        return why_not_linearizable(KeyModel("n", "k", 10'000), operations_);
    }
    [[nodiscard]] bool possible() const { return verdict().empty(); }
    [[nodiscard]] Histories without_last() const {
        Histories fewer = *this;
        fewer.operations_.pop_back();
        return fewer;
    }

    std::int64_t now_ms = 1'000;

  private:
    std::vector<Operation> operations_;
};

Operation operation(std::string what, std::function<std::string(KeyModel&, std::int64_t)> apply,
                    std::string outcome) {
    Operation made;
    made.what = std::move(what);
    made.apply = std::move(apply);
    made.outcome = std::move(outcome);
    return made;
}

Operation claim(std::uint64_t fence, std::string outcome, int lease_ms = 0) {
    ClaimOptions options;
    if (lease_ms != 0) {
        options.lease = milliseconds{lease_ms};
    }
    return operation(
        "claim",
        [=](KeyModel& key, std::int64_t now_ms) { return key.claim(now_ms, options, fence); },
        std::move(outcome));
}

// As those of this file are found that nobody has answered.
InFlight in_flight(std::uint64_t fence, std::int64_t lease_until_ms = 0) {
    return {.owner = {},
            .since_ms = 1'000,
            .lease_until_ms = lease_until_ms,
            .expires_at_ms = 11'000,
            .claim_sequence = fence,
            .attempt = 1,
            .event_id = {},
            .metadata = {}};
}
// What the second claim is told of the first, which began at 1,000.
Previous before(End end, std::int64_t ended_ms) {
    Previous previous;
    previous.began_ms = 1'000;
    previous.ended_ms = ended_ms;
    previous.claim_sequence = 7;
    previous.end = end;
    return previous;
}

// That a claim was won, and that it was refused.
Operation wins(std::uint64_t fence) {
    return claim(fence, show(Claimed{Claim{"n", "k", fence, 11'000, 1}}));
}
Operation wins_after_release(std::uint64_t fence) {
    return claim(fence,
                 show(Claimed{Claim{"n", "k", fence, 11'000, 2}, before(End::released, 1'000)}));
}
Operation loses_to(std::uint64_t fence) {
    return claim(0, show(in_flight(fence)));
}
Operation wins_lease(std::uint64_t fence, std::int64_t until_ms) {
    return claim(fence, show(Claimed{Claim{"n", "k", fence, until_ms, 1}}), 100);
}
Operation takes_over(std::uint64_t fence, std::int64_t until_ms) {
    return claim(
        fence,
        show(Claimed{Claim{"n", "k", fence, until_ms, 2}, before(End::lease_ran_out, 1'100)}), 100);
}
Operation complete(std::uint64_t fence, std::string receipt, std::string outcome) {
    return operation(
        "complete",
        [=](KeyModel& key, std::int64_t now_ms) { return key.complete(now_ms, fence, receipt); },
        std::move(outcome));
}
Operation release(std::uint64_t fence, std::string outcome) {
    return operation(
        "release", [=](KeyModel& key, std::int64_t now_ms) { return key.release(now_ms, fence); },
        std::move(outcome));
}
Operation renew(std::uint64_t fence, std::string outcome) {
    return operation(
        "renew",
        [=](KeyModel& key, std::int64_t now_ms) {
            return key.renew(now_ms, fence, milliseconds{100});
        },
        std::move(outcome));
}
Operation note(std::uint64_t fence, std::string outcome) {
    return operation(
        "note", [=](KeyModel& key, std::int64_t now_ms) { return key.note(now_ms, fence, "n"); },
        std::move(outcome));
}
Operation hold(std::uint64_t fence, std::string outcome) {
    return operation(
        "hold", [=](KeyModel& key, std::int64_t now_ms) { return key.hold(now_ms, fence, "lost"); },
        std::move(outcome));
}
Operation resolve(std::uint64_t fence, std::optional<std::string> receipt, std::string outcome) {
    const Resolution resolution{.receipt = std::move(receipt), .reason = "looked"};
    return operation(
        "resolve",
        [=](KeyModel& key, std::int64_t now_ms) { return key.resolve(now_ms, fence, resolution); },
        std::move(outcome));
}
Operation look(std::string outcome) {
    return operation(
        "look", [](KeyModel& key, std::int64_t now_ms) { return key.lookup(now_ms); },
        std::move(outcome));
}
Operation finds_completed(const std::string& receipt, std::uint64_t fence) {
    return look(show(Completed{.receipt = receipt,
                               .completed_at_ms = 1'000,
                               .claim_sequence = fence,
                               .event_id = {},
                               .metadata = {},
                               .attempt = 1,
                               .expires_at_ms = 11'000}));
}
Operation finds_in_flight(std::uint64_t fence) {
    return look(show(in_flight(fence)));
}
const std::string kSweptInFlight(name(State::in_flight));
Operation sweep(std::string outcome) {
    return operation(
        "sweep", [](KeyModel& key, std::int64_t now_ms) { return key.sweep(now_ms); },
        std::move(outcome));
}

TEST_CASE("checker: what cannot be is refused") {
    Histories bad;
    SUBCASE("two winners") {
        bad.add(1, 4, wins(7));
        bad.add(2, 3, wins(8));
    }
    SUBCASE("a lost completion") {
        bad.add(1, 2, wins(7));
        bad.add(3, 4, complete(7, "r", "ok"));
        bad.add(5, 6, finds_in_flight(7));
    }
    SUBCASE("an old receipt") {
        bad.add(1, 2, wins(7));
        bad.add(3, 6, complete(7, "one", "ok"));
        bad.add(4, 5, complete(7, "two", "ok"));
    }
    SUBCASE("a receipt that changes") {
        bad.add(1, 2, wins(7));
        bad.add(3, 8, complete(7, "one", "ok"));
        bad.add(4, 9, complete(7, "two", "receipt_mismatch"));
        bad.add(5, 6, finds_completed("one", 7));
        bad.add(10, 11, finds_completed("two", 7));
    }
    SUBCASE("a completion that was seen and then not") {
        bad.add(1, 2, wins(7));
        bad.add(3, 8, complete(7, "r", "ok"));
        bad.add(4, 5, finds_completed("r", 7));
        bad.add(6, 7, finds_in_flight(7));
    }
    SUBCASE("a fence that came back to life") {
        bad.add(1, 2, wins(7));
        bad.add(3, 4, release(7, "released"));
        bad.add(5, 6, wins_after_release(8));
        bad.add(7, 8, complete(7, "r", "ok"));
    }
    SUBCASE("a fence that was renewed after a takeover") {
        bad.add(1, 2, wins_lease(7, 1'100));
        bad.now_ms = 1'101;
        bad.add(3, 4, takes_over(8, 1'201));
        bad.add(5, 6, renew(7, "claimed n k fence 7 deadline 1201 attempt 1"));
    }
    SUBCASE("a takeover while the lease ran") {
        bad.add(1, 2, wins_lease(7, 1'100));
        bad.now_ms = 1'100;
        bad.add(3, 4, takes_over(8, 1'200));
    }
    SUBCASE("a resurrected key after a release") {
        bad.add(1, 2, wins(7));
        bad.add(3, 4, release(7, "released"));
        bad.add(5, 6, finds_in_flight(7));
    }
    SUBCASE("a release that undoes a completion") {
        bad.add(1, 2, wins(7));
        bad.add(3, 4, complete(7, "r", "ok"));
        bad.add(5, 8, release(7, "nothing to release"));
        bad.add(6, 7, look("absent"));
    }
    SUBCASE("two releases of one claim") {
        bad.add(1, 2, wins(7));
        bad.add(3, 6, release(7, "released"));
        bad.add(4, 5, release(0, "released"));
    }
    SUBCASE("a fence lower than one before") {
        bad.add(1, 2, wins(7));
        bad.add(3, 4, release(7, "released"));
        bad.add(5, 6, wins_after_release(6));
    }
    SUBCASE("a loser that came before the winner") {
        bad.add(3, 4, wins(7));
        bad.add(1, 2, loses_to(7));
    }
    SUBCASE("a swept key that comes back") {
        bad.add(1, 2, wins(7));
        bad.now_ms = 12'001;
        bad.add(3, 4, sweep(kSweptInFlight));
        bad.now_ms = 1'000;
        bad.add(5, 6, finds_in_flight(7));
    }
    SUBCASE("a key swept before its time, or twice") {
        bad.add(1, 2, wins(7));
        bad.now_ms = 12'000;
        SUBCASE("early") {
            bad.add(3, 4, sweep(kSweptInFlight));
        }
        SUBCASE("twice") {
            bad.now_ms = 12'001;
            bad.add(3, 6, sweep(kSweptInFlight));
            bad.add(4, 5, sweep(kSweptInFlight));
        }
    }
    SUBCASE("a held key that is taken over") {
        bad.add(1, 2, wins_lease(7, 1'100));
        bad.add(3, 4, hold(7, "ok"));
        bad.now_ms = 1'101;
        bad.add(5, 6, takes_over(8, 1'201));
    }
    SUBCASE("a note of a claim that was released") {
        bad.add(1, 2, wins(7));
        bad.add(3, 4, release(7, "released"));
        bad.add(5, 6, note(7, "ok"));
    }
    SUBCASE("two decisions that undo each other") {
        bad.add(1, 2, wins(7));
        bad.add(3, 6, resolve(7, "r", "ok"));
        bad.add(4, 5, resolve(7, std::nullopt, "ok"));
    }
    SUBCASE("a time that was over when the operation began") {
        bad.add(1, 2, wins_lease(7, 1'100));
        bad.now_ms = 1'101;
        bad.add(3, 4, claim(0, show(in_flight(7, 1'100))));
    }
    CHECK_FALSE(bad.possible());
    CHECK(bad.without_last().verdict() == "");  // it is the last one that cannot be
}

TEST_CASE("checker: what may be is accepted, in whatever order it was noted") {
    Histories good;
    SUBCASE("a winner that returns after those who lost to it") {
        good.add(1, 9, wins(7));
        good.add(2, 3, loses_to(7));
        good.add(4, 5, finds_in_flight(7));
        good.add(6, 7, loses_to(7));
    }
    SUBCASE("readers on both sides of a completion that takes long") {
        good.add(1, 2, wins(7));
        good.add(3, 12, complete(7, "r", "ok"));
        good.add(4, 5, finds_in_flight(7));
        good.add(6, 11, finds_in_flight(7));
        good.add(7, 8, finds_completed("r", 7));
        good.add(9, 10, finds_completed("r", 7));
    }
    SUBCASE("of two completions the one that was noted second") {
        good.add(1, 2, wins(7));
        good.add(3, 6, complete(7, "one", "receipt_mismatch"));
        good.add(4, 5, complete(7, "two", "ok"));
        good.add(7, 8, finds_completed("two", 7));
    }
    SUBCASE("a claim between a release and another release") {
        good.add(1, 2, wins(7));
        good.add(3, 10, release(7, "released"));
        good.add(4, 9, wins_after_release(8));
        good.add(5, 8, release(0, "released"));
        good.add(6, 7, complete(7, "r", "stale_claim"));
        good.add(11, 12, look("absent"));
    }
    SUBCASE("a takeover by one that overlaps the end of the lease") {
        good.add(1, 2, wins_lease(7, 1'100));
        Operation late = takes_over(8, 1'201);
        late.times_ms = {1'000, 1'101};
        good.add(3, 4, late);
    }
    SUBCASE("a renewal that saw the time before somebody else saw the end") {
        Operation renewal = renew(7, "claimed n k fence 7 deadline 1100 attempt 1");
        renewal.times_ms = {1'000, 12'001};
        good.add(1, 2, wins(7));
        good.add(3, 6, renewal);
        Operation reader = look("absent");
        reader.times_ms = {12'001};
        good.add(4, 5, reader);
    }
    SUBCASE("a sweep") {
        good.add(1, 2, wins(7));
        good.now_ms = 12'001;
        good.add(3, 6, sweep(kSweptInFlight));
        good.add(4, 5, sweep(""));
    }
    CHECK(good.verdict() == "");
}

}  // namespace
}  // namespace dedup::test
