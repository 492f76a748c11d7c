// What is left of a reservation whose holder did not answer: its note, who was here before, and how
// somebody decides.
#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "reservations/helpers.hpp"

namespace dedup::test {
namespace {

TEST_CASE("reservations: a note is fenced, durable, and changes nothing else") {
    // Guards against an effect whose announcement was lost, or was somebody else's.
    on_each_store([](TestStore& store) {
        Reservation mine;
        {
            Reservations reservations(*store);
            mine = reserve(reservations, leased());
            const Record before = stored(*store);
            store.clock.advance(10);
            must(reservations.note(kScope, mine, "POST bank, reference 8125"));
            Record after = stored(*store);
            CHECK(after.metadata.find("25:POST bank, reference 8125,") != std::string::npos);
            after.metadata = before.metadata;
            after.sequence = before.sequence;
            CHECK(after == before);
            CHECK(reservations.metrics().counts.noted == 1);
        }
        if (store.durable()) {
            store.reopen();
        }
        Reservations reservations(*store);
        const auto seen = as<Duplicate>(reservations.reserve(leased())).known;
        CHECK(seen.note == "POST bank, reference 8125");
        CHECK(seen.event_id == "e-1");
        CHECK(seen.fence == mine.fence);
        CHECK(seen.first_seen_ms == 1'000);
        CHECK(seen.last_seen_ms == 1'010);
        must(reservations.renew(kScope, mine, 1s));
        as<Conflicting>(reservations.reserve(request("other")));
        CHECK(known(reservations).note == "POST bank, reference 8125");

        const std::string longest(kReservationNoteBytesMax, 'n');
        must(reservations.note(kScope, mine, longest));
        check_error(reservations.note(kScope, mine, longest + "n"), Code::invalid_argument,
                    "note is 65,473 bytes");
        CHECK(known(reservations).note == longest);

        store.clock.advance(1'001);
        const Reservation next = reserve(reservations, leased());
        check_error(reservations.note(kScope, mine, "dead"), Code::stale_claim, "replaced");
        CHECK(known(reservations).note == longest);  // until another takes its place
        must(reservations.note(kScope, next, "final"));
        must(reservations.complete(kScope, next, charged()));
        CHECK(known(reservations).note == "final");
        check_error(reservations.note(kScope, next, "late"), Code::stale_claim, "completed");
    });
}

TEST_CASE("reservations: whoever reads the records can tell the note from the times beside it") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        const Reservation mine = reserve(reservations);
        Record record = stored(*store);
        CHECK(reservation_note(record.key, record.metadata) == "");
        must(reservations.note(kScope, mine, "reference 8125"));
        record = stored(*store);
        CHECK(reservation_note(record.key, record.metadata) == "reference 8125");
        CHECK(reservation_note("order-17", record.metadata) == std::nullopt);
        CHECK(reservation_note(record.key, "reference 8125") == std::nullopt);
        CHECK(reservation_note(record.key, record.metadata + "x") == std::nullopt);
        CHECK(reservation_note(record.key, "") == std::nullopt);
    });
}

TEST_CASE("reservations: a note leaves room for every time that a store can have") {
    TestStore store = store_factories().front().make();
    Reservations reservations(*store, {.ttl = kForever});
    store.clock.set(std::numeric_limits<std::int64_t>::max() / 2);
    const Reservation mine = reserve(reservations);
    must(reservations.note(kScope, mine, std::string(kReservationNoteBytesMax, 'n')));
}

TEST_CASE("reservations: without a note the record is one that every library reads") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        const Reservation mine = reserve(reservations);
        CHECK(stored(*store).metadata == "1:1,4:1000,4:1000,");
        must(reservations.note(kScope, mine, "n"));
        CHECK(stored(*store).metadata == "1:2,4:1000,4:1000,1:n,");
        must(reservations.note(kScope, mine, ""));
        CHECK(stored(*store).metadata == "1:1,4:1000,4:1000,");
    });
}

TEST_CASE("reservations: who comes next is told who was here before, and how that ended") {
    // Guards against a second worker who does not learn what the first one knew.
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        store.clock.set(10'000);
        const auto first = as<Reserved>(reservations.reserve(leased()));
        CHECK(!first.previous);
        must(reservations.note(kScope, first.reservation, "asked the bank"));
        store.clock.set(12'000);
        ReservationRequest other = leased();
        other.owner = "web-2";
        const auto taken = as<Reserved>(reservations.reserve(other));
        REQUIRE(taken.previous);
        CHECK(taken.previous->owner == "web-1");
        CHECK(taken.previous->event_id == "e-1");
        CHECK(taken.previous->note == "asked the bank");
        CHECK(taken.previous->began_ms == 10'000);
        CHECK(taken.previous->ended_ms == 11'000);
        CHECK(taken.previous->attempt == 1);
        CHECK(taken.previous->claim_sequence == first.reservation.fence);
        CHECK(taken.previous->end == End::lease_ran_out);
        CHECK(taken.reservation.attempt == 2);

        must(reservations.note(kScope, taken.reservation, "the bank says no"));
        CHECK(must(reservations.release(kScope, taken.reservation)));
        store.clock.set(13'000);
        const auto freed = as<Reserved>(reservations.reserve(leased()));
        REQUIRE(freed.previous);
        CHECK(freed.previous->owner == "web-2");
        CHECK(freed.previous->note == "the bank says no");
        CHECK(freed.previous->ended_ms == 12'000);
        CHECK(freed.previous->end == End::released);

        must(reservations.complete(kScope, freed.reservation, charged()));
        CHECK(must(
            reservations.forget(kScope, "order-17", freed.reservation.fence, "paid back", "ada")));
        const auto again = as<Reserved>(reservations.reserve(leased()));
        REQUIRE(again.previous);
        CHECK(again.previous->end == End::forgotten);
        CHECK(again.previous->by == "ada");
        CHECK(again.previous->reason == "paid back");
        CHECK(known(reservations).first_seen_ms == 10'000);
    });
}

TEST_CASE("reservations: held ones wait for a decision, and keep what is known of them") {
    // Guards against an operation that is carried out twice because nobody was asked.
    on_each_store([](TestStore& store) {
        Reservations reservations(*store, {.ttl = 60s, .unanswered = Unanswered::hold});
        const Reservation mine = reserve(reservations, leased());
        must(reservations.note(kScope, mine, "reference 8125"));
        CHECK(known(reservations).unanswered == Unanswered::hold);
        CHECK(!known(reservations).held);
        check_error(reservations.resolve(kScope, "order-17", mine.fence, {.reason = "r"}),
                    Code::busy);
        store.clock.set(200'000);
        must(store->sweep());
        const auto waiting = as<Waiting>(reservations.reserve(leased()));
        CHECK(waiting.known.held);
        CHECK(waiting.known.note == "reference 8125");
        CHECK(waiting.previous.note == "reference 8125");
        CHECK(waiting.previous.owner == "web-1");
        CHECK(waiting.previous.claim_sequence == mine.fence);
        CHECK(waiting.previous.end == End::lease_ran_out);
        CHECK(known(reservations).last_seen_ms == 200'000);  // as any repetition
        CHECK(known(reservations).held);
        as<Conflicting>(reservations.reserve(request("other")));
        CHECK(reservations.metrics().counts.held == 1);

        const ReservationResolution done{
            .outcome = charged(), .reason = "it is in the statement", .by = "ada"};
        check_error(reservations.resolve(kScope, "order-17", mine.fence + 1, done),
                    Code::stale_claim);
        check_error(reservations.resolve(kScope, "order-17", mine.fence,
                                         {.outcome = Outcome{}, .reason = "r"}),
                    Code::invalid_argument, "kind");
        must(reservations.resolve(kScope, "order-17", mine.fence, done));
        must(reservations.resolve(kScope, "order-17", mine.fence, done));  // the same again
        const auto found = as<Duplicate>(reservations.reserve(leased())).known;
        CHECK(*found.outcome == charged());
        CHECK(found.note == "reference 8125");
        CHECK(!found.held);
    });
}

TEST_CASE("reservations: a holder who cannot tell holds, and 'not done' lets the next one run") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        const Reservation mine = reserve(reservations, leased());
        must(reservations.note(kScope, mine, "reference 8125"));
        must(reservations.hold(kScope, mine, "timeout"));
        const auto waiting = as<Waiting>(reservations.reserve(leased()));
        CHECK(waiting.previous.end == End::held);
        CHECK(waiting.previous.reason == "timeout");
        must(reservations.resolve(kScope, "order-17", mine.fence,
                                  {.reason = "the bank has no 8125", .by = "ada"}));
        const auto next = as<Reserved>(reservations.reserve(leased()));
        REQUIRE(next.previous);
        CHECK(next.previous->end == End::resolved);
        CHECK(next.previous->note == "reference 8125");
        CHECK(next.previous->reason == "the bank has no 8125");
        check_error(reservations.complete(kScope, mine, charged()), Code::stale_claim);

        // Per request, and from some attempt on; what the one before had noted stays then.
        ReservationRequest last = leased();
        last.attempts_max = 3;
        must(reservations.note(kScope, next.reservation, "reference 9000"));
        store.clock.advance(1'001);
        reserve(reservations, last);
        store.clock.advance(1'001);
        CHECK(as<Waiting>(reservations.reserve(leased())).previous.note == "reference 9000");
    });
}

}  // namespace
}  // namespace dedup::test
