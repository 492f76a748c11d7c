// What is done through the layers above a cache is counted once and told once, as a cache's own is.

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include "cache/helpers.hpp"
#include "dedup/guard.hpp"
#include "dedup/registry.hpp"
#include "dedup/reservations.hpp"
#include "support/stores.hpp"

using namespace dedup;
using namespace dedup::test;

namespace {

// "claimed events/a, committed offsets/..."; positions have no key that people would type.
class Told {
  public:
    TransitionObserver observer() {
        return [this](const Transition& made) {
            const Record& record = made.record;
            CHECK(record.sequence != 0);
            text_ += std::string(name(made.change)) + " " + record.ns +
                     (made.change == Change::committed ? "" : "/" + record.key) + "\n";
        };
    }
    std::string take() { return std::exchange(text_, {}); }

  private:
    std::string text_;
};

const Work kWork = [](const Attempt& attempt) -> std::expected<std::string, dedup::Failure> {
    return "r-" + attempt.event_id;
};

}  // namespace

TEST_CASE("a guard's events and its position are counted and told by whom they belong to") {
    on_each_store([](TestStore& store) {
        Told told;
        Told told_offsets;
        const auto guard = must(Guard::start(*store, {.observer = told.observer()}));
        Offsets offsets(*store, "offsets", told_offsets.observer());
        const std::array<StreamEvent, 2> events{{{"a", 1}, {"b", 2}}};
        for (int delivery = 0; delivery < 2; ++delivery) {
            (void)guard->process_stream(offsets, "p", "s", events, kWork);
        }
        CHECK(told.take() ==
              "claimed events/a\nclaimed events/b\ncompleted events/a\ncompleted events/b\n");
        CHECK(told_offsets.take() == "committed offsets\n");
        CHECK(must(guard->mark_processed("c")));
        CHECK(!must(guard->mark_processed("c")));
        CHECK(told.take() == "remembered events/c\n");
        const CacheMetrics metrics = guard->metrics();
        CHECK(metrics.ns == "events");
        CHECK(metrics.counts ==
              CacheCounts{.claimed = 2, .remembered = 1, .duplicates = 2 + 1, .completed = 2});
        CHECK(metrics.work_ms.count() == 2);
        CHECK(offsets.metrics().counts ==
              CacheCounts{.offsets_committed = 1, .offsets_repeated = 1});
    });
}

TEST_CASE("what a guard cannot complete together with its position is counted once") {
    // Guards against a stale claim, or an error, that the metrics show twice.
    on_each_store([](TestStore& store) {
        const auto guard = must(Guard::start(*store));
        Offsets offsets(*store, "offsets");
        Cache others(*store, {.ns = "events"});
        const std::array<StreamEvent, 2> events{{{"a", 1}, {"b", 2}}};
        (void)guard->process_stream(offsets, "p", "s", events, [&](const Attempt& attempt) {
            if (attempt.event_id == "b") {
                CHECK(must(others.release_current("b")));
            }
            return kWork(attempt);
        });
        CHECK(guard->metrics().counts == CacheCounts{.claimed = 2, .completed = 1, .stale = 1});
        CHECK(offsets.metrics().counts == CacheCounts{.offsets_committed = 1});

        // Behind: a position that somebody else has moved on.
        as<Committed>(offsets.commit({.pipeline = "p", .stream = "s", .offset = 9}));
        const std::array<StreamEvent, 1> late{{{"c", 3}}};
        const auto outcome = guard->process_stream(offsets, "p", "s", late, kWork);
        CHECK(std::holds_alternative<Behind>(must(outcome.commit)));
        CHECK(guard->metrics().counts == CacheCounts{.claimed = 3, .completed = 2, .stale = 1});
        CHECK(offsets.metrics().counts == CacheCounts{.offsets_committed = 2, .offsets_behind = 1});
    });
}

TEST_CASE("a position that cannot be moved is an error of the offsets, once") {
    on_each_store([](TestStore& store) {
        const auto guard = must(Guard::start(*store));
        Offsets offsets(*store, "offsets");
        Cache others(*store, {.ns = "offsets"});
        const std::array<StreamEvent, 1> events{{{"a", 1}}};
        const auto outcome =
            guard->process_stream(offsets, "p", "s", events, [&](const Attempt& attempt) {
                as<New>(others.remember("1:p,1:s,", "no position"));
                return kWork(attempt);
            });
        check_error(outcome.commit, Code::corruption);
        CHECK(guard->metrics().counts == CacheCounts{.claimed = 1, .completed = 1});
        CHECK(offsets.metrics().counts == CacheCounts{.errors = 1});
    });
}

TEST_CASE("offsets count commits, and the completions that are made with them") {
    on_each_store([](TestStore& store) {
        Told told;
        Offsets offsets(*store, "offsets", told.observer());
        Cache cache(*store);
        const Claim claim = must_claim(cache, "k");
        OffsetCommit commit{.pipeline = "p", .stream = "s", .offset = 7};
        as<Committed>(offsets.complete_and_commit(claim, "r", commit));
        CHECK(told.take() == "completed default/k\ncommitted offsets\n");
        as<Committed>(offsets.complete_and_commit(claim, "r", commit));
        commit.offset = 6;
        as<Behind>(offsets.commit(commit));
        const Claim lost{.ns = "default", .key = "k", .claim_sequence = claim.claim_sequence + 1};
        commit.offset = 8;
        check_error(offsets.complete_and_commit(lost, "r", commit), Code::stale_claim);
        CHECK(told.take().empty());
        CHECK(offsets.metrics().counts == CacheCounts{.completed = 1,
                                                      .completed_again = 1,
                                                      .offsets_committed = 1,
                                                      .offsets_repeated = 1,
                                                      .offsets_behind = 1,
                                                      .stale = 1});
        const CacheMetrics all = offsets.metrics();
        CHECK(prometheus_text({&all, 1}).find("dedup_offset_commits_total{namespace=\"offsets\","
                                              "outcome=\"behind\"} 1\n") != std::string::npos);
    });
}

TEST_CASE("a registry counts keys, receipts and offsets each for itself") {
    on_each_store([](TestStore& store) {
        Told told;
        Registry registry(*store, {.prefix = "r", .observer = told.observer()});
        as<New>(registry.check_idempotency("k", "e1"));
        as<Registry::Duplicate>(registry.check_idempotency("k", "e2"));
        const OffsetCommit commit{.pipeline = "p", .stream = "s", .offset = 1, .event_id = "e1"};
        as<Committed>(registry.finish(commit));
        as<Committed>(registry.finish(commit));
        CHECK(told.take() ==
              "remembered r.keys/k\nremembered r.receipts/1:p,2:e1,\ncommitted r.offsets\n");
        const auto metrics = registry.metrics();
        REQUIRE(metrics.size() == 3);
        CHECK(metrics[0].ns == "r.keys");
        CHECK(metrics[0].counts == CacheCounts{.remembered = 1, .duplicates = 1});
        CHECK(metrics[1].ns == "r.receipts");
        CHECK(metrics[1].counts == CacheCounts{.remembered = 1, .duplicates = 1});
        CHECK(metrics[2].ns == "r.offsets");
        CHECK(metrics[2].counts == CacheCounts{.offsets_committed = 1, .offsets_repeated = 1});
    });
}

TEST_CASE("reservations count as claims, and conflicts as mismatches") {
    on_each_store([](TestStore& store) {
        Told told;
        Reservations reservations(*store, {.last_seen_step = 0ms, .observer = told.observer()});
        const Scope scope{.organisation = "o", .workspace = "w", .operation = "op"};
        const ReservationRequest request{.scope = scope, .key = "k", .fingerprint = "f"};
        const auto reserved = as<Reservations::Reserved>(reservations.reserve(request));
        as<Reservations::Duplicate>(reservations.reserve(request));
        ReservationRequest other = request;
        other.fingerprint = "g";
        as<Reservations::Conflict>(reservations.reserve(other));
        Outcome outcome;
        outcome.kind = "done";
        must(reservations.complete(scope, reserved.reservation, outcome));
        as<Reservations::Duplicate>(reservations.reserve(request));
        CHECK(reservations.metrics().counts ==
              CacheCounts{
                  .claimed = 1, .duplicates = 1, .in_flight = 1, .mismatches = 1, .completed = 1});
        const std::string seen = told.take();  // notes of repetitions are none
        CHECK(std::ranges::count(seen, '\n') == 2);
        CHECK(seen.starts_with("claimed reservations/"));
    });
}
