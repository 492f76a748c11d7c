// Tenants that repeat requests, reuse keys for other requests, and try each other's names.
#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include "reservations/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

TEST_CASE("reservations: outcomes made by default let nobody work") {
    CHECK(std::holds_alternative<Duplicate>(*Result<Reservations::ReserveOutcome>()));
}

TEST_CASE("reservations: an outcome can be asked what it is") {
    using ReserveOutcome = Reservations::ReserveOutcome;
    const ReserveOutcome reserved = Reserved{{.key = "k"}};
    CHECK(reserved.reserved()->reservation.key == "k");
    CHECK((!reserved.duplicate() && !reserved.conflict() && !reserved.held()));
    CHECK(ReserveOutcome(Duplicate()).duplicate() != nullptr);
    CHECK(ReserveOutcome(Conflicting()).conflict() != nullptr);
    CHECK(ReserveOutcome(Waiting()).held() != nullptr);
    CHECK(!ReserveOutcome().reserved());
}

TEST_CASE("reservations: what nobody answered is reserved again as the next attempt") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store, {.ttl = 60s});
        reserve(reservations);
        store.clock.set(100'000);
        CHECK_FALSE(must(reservations.find(kScope, "order-17")).has_value());
        CHECK(reserve(reservations).attempt == 2);
        CHECK(known(reservations).first_seen_ms == 1'000);
    });
}

TEST_CASE("reservations: requests made of temporaries keep their names") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        const std::string long_enough(40, 'n');  // to be on the heap
        std::vector<ReservationRequest> requests;
        for (int i = 0; i < 5; ++i) {
            const std::string n = std::to_string(i);
            requests.push_back({.scope = {.organisation = long_enough + n,
                                          .workspace = n + long_enough,
                                          .deployment = long_enough + n,
                                          .operation = n + long_enough},
                                .key = long_enough + n,
                                .fingerprint = "f"});
        }
        for (const ReservationRequest& wanted : requests) {
            CHECK(reserve(reservations, wanted).attempt == 1);
        }
        const auto parsed = parse_scoped_key(must(scoped_key(requests[3].scope, requests[3].key)));
        REQUIRE(parsed.has_value());
        CHECK(parsed->scope == requests[3].scope);
        CHECK(parsed->key == requests[3].key);
    });
}

TEST_CASE("reservations: reserved once, then a duplicate, and its outcome once there is one") {
    on_each_store([](TestStore& store) {
        {
            HookedStore hooked(*store);
            Reservations reservations(hooked);
            const Reservation mine = reserve(reservations);
            CHECK(mine.key == "order-17");
            const auto pending = as<Duplicate>(reservations.reserve(request())).known;
            CHECK(pending.state == State::in_flight);
            CHECK(pending.owner == "web-1");
            CHECK_FALSE(pending.outcome.has_value());

            store.clock.set(3'000);
            must(reservations.complete(kScope, mine, charged()));
            must(reservations.complete(kScope, mine, charged()));  // equal: a no-op
            CHECK(hooked.items == 2);                              // one record each
            Outcome other = charged();
            other.primary.id = "in-18";
            check_error(reservations.complete(kScope, mine, other), Code::receipt_mismatch);
        }
        if (store.durable()) {
            store.reopen();
        }
        Reservations reservations(*store);
        const auto done = as<Duplicate>(reservations.reserve(request())).known;
        CHECK(done.state == State::completed);
        REQUIRE(done.outcome.has_value());
        CHECK(*done.outcome == charged());
        CHECK(done.since_ms == 3'000);
        CHECK(done.fingerprint == "f");
    });
}

TEST_CASE("reservations: outcomes without secondary reference, time or details") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        const Outcome outcome{.kind = "declined", .primary = {"", ""}};
        must(reservations.complete(kScope, reserve(reservations), outcome));
        CHECK(*known(reservations).outcome == outcome);
    });
}

TEST_CASE("reservations: a conflict is counted while in flight, and changes nothing else") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        const Reservation mine = reserve(reservations);
        const Record before = stored(*store);
        store.clock.advance(5'000);
        for (int i = 0; i < 12; ++i) {
            const auto conflict =
                as<Conflicting>(reservations.reserve(request("other-" + std::to_string(i % 10))));
            CHECK(conflict.known.fingerprint == "f");
            CHECK(conflict.known.conflicts.count == static_cast<std::uint64_t>(1 + i));
        }
        const auto now = known(reservations);
        CHECK(now.conflicts.count == 12);
        CHECK(now.conflicts.fingerprints ==
              std::vector<std::string>{"other-0", "other-1", "other-2", "other-3", "other-4",
                                       "other-5", "other-6", "other-7"});
        CHECK(now.last_seen_ms == store.clock.now_ms());
        const Record after = stored(*store);
        CHECK(after.expires_at_ms == before.expires_at_ms);
        CHECK(after.timestamp_ms == before.timestamp_ms);
        CHECK(after.claim_sequence == before.claim_sequence);

        must(reservations.complete(kScope, mine, charged()));
        const Record done = stored(*store);
        store.clock.advance(120'000);
        const auto late = as<Conflicting>(reservations.reserve(request("late"))).known;
        CHECK(late.conflicts.count == 12);
        CHECK(*late.outcome == charged());
        CHECK(stored(*store) == done);
        as<Duplicate>(reservations.reserve(request()));
    });
}

TEST_CASE("reservations: no tenant meets another's keys, whatever the names") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        const std::array<Scope, 8> scopes = {{
            {.organisation = "a", .workspace = "b", .operation = "c"},
            {.organisation = "a", .workspace = "b", .deployment = "-", .operation = "c"},
            {.organisation = "a", .workspace = "b", .deployment = "c", .operation = "c"},
            {.organisation = "ab", .workspace = "b", .operation = "c"},
            {.organisation = "1:a,1:b", .workspace = "b", .operation = "c"},
            {.organisation = "a", .workspace = "1:b,-1:c,", .operation = "c"},
            {.organisation = "a", .workspace = "b", .operation = "c,order"},
            {.organisation = "A", .workspace = "b", .operation = "c"},
        }};
        for (std::size_t i = 0; i < scopes.size(); ++i) {
            ReservationRequest wanted = request();
            wanted.scope = scopes.at(i);
            CHECK_FALSE(must(reservations.find(wanted.scope, wanted.key)).has_value());
            Outcome outcome = charged();
            outcome.primary.id = std::to_string(i);
            const Reservation mine = reserve(reservations, wanted);
            // Nobody else can use it, or complete it under a scope of their own.
            for (std::size_t j = 0; j < scopes.size(); ++j) {
                if (j != i) {
                    check_error(reservations.complete(scopes.at(j), mine, outcome),
                                Code::stale_claim);
                }
            }
            must(reservations.complete(wanted.scope, mine, outcome));
        }
        for (std::size_t i = 0; i < scopes.size(); ++i) {
            CHECK(known(reservations, scopes.at(i)).outcome->primary.id == std::to_string(i));
        }
    });
}

TEST_CASE("reservations: completion is fenced") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        ReservationRequest wanted = request();
        wanted.lease = 1s;
        const Reservation slow = reserve(reservations, wanted);
        store.clock.advance(1'001);
        const Reservation fast = reserve(reservations, wanted);
        CHECK(fast.attempt == 2);
        check_error(reservations.complete(kScope, slow, charged()), Code::stale_claim);
        check_error(reservations.renew(kScope, slow, 1s), Code::stale_claim);
        check_error(reservations.release(kScope, slow), Code::stale_claim);
        CHECK(must(reservations.renew(kScope, fast, 9s)).deadline_ms ==
              store.clock.now_ms() + 9'000);
        must(reservations.complete(kScope, fast, charged()));
    });
}

TEST_CASE("reservations: first and last seen") {
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        Reservations reservations(hooked);
        const Reservation first = reserve(reservations);
        store.clock.set(2'000);
        CHECK(must(reservations.release(kScope, first)));
        CHECK_FALSE(must(reservations.find(kScope, "order-17")).has_value());
        store.clock.set(3'000);
        const Reservation mine = reserve(reservations);
        CHECK(known(reservations).first_seen_ms == 1'000);
        CHECK(known(reservations).last_seen_ms == 3'000);
        store.clock.set(4'000);
        must(reservations.complete(kScope, mine, charged()));
        CHECK(known(reservations).last_seen_ms == 4'000);
        const std::size_t appends = hooked.appends;

        // Repetitions are noted once a minute.
        store.clock.set(63'999);
        as<Duplicate>(reservations.reserve(request()));
        CHECK(hooked.appends == appends);
        store.clock.set(64'000);
        CHECK(as<Duplicate>(reservations.reserve(request())).known.last_seen_ms == 4'000);
        CHECK(hooked.appends == appends + 1);
        CHECK(known(reservations).last_seen_ms == 64'000);
        CHECK(known(reservations).first_seen_ms == 1'000);
        CHECK(known(reservations).since_ms == 4'000);
        CHECK(*known(reservations).outcome == charged());

        // If that cannot be written, the answer stands all the same.
        hooked.fail_append = [](const Append&) { return std::optional(Code::out_of_space); };
        store.clock.set(200'000);
        as<Duplicate>(reservations.reserve(request()));
        CHECK(known(reservations).last_seen_ms == 64'000);
    });
}

TEST_CASE("reservations: each has its own expiry") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        ReservationRequest brief = request("f", "brief");
        brief.ttl = 10s;
        ReservationRequest absolute = request("f", "absolute");
        absolute.expires_at_ms = 50'000;
        must(reservations.complete(kScope, reserve(reservations, brief), charged()));
        must(reservations.complete(kScope, reserve(reservations, absolute), charged()));
        reserve(reservations, request("f", "day"));
        CHECK(known(reservations, kScope, "absolute").expires_at_ms == 50'000);
        CHECK(known(reservations, kScope, "day").expires_at_ms == 1'000 + 24 * 3'600'000);
        store.clock.set(12'001);
        CHECK_FALSE(must(reservations.find(kScope, "brief")).has_value());
        CHECK(must(reservations.find(kScope, "absolute")).has_value());
        store.clock.set(51'001);
        CHECK_FALSE(must(reservations.find(kScope, "absolute")).has_value());
        const Reservation again = reserve(reservations, absolute = request("g", "absolute"));
        CHECK(again.attempt == 1);
        CHECK(known(reservations, kScope, "absolute").first_seen_ms == 51'001);
    });
}

TEST_CASE("reservations: what a newer version wrote is refused and stays as it is") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        Cache newer(*store, {.ns = "reservations"});
        const std::string key = must(scoped_key(kScope, "order-17"));
        const Claim claim =
            must_claim(newer, key, {.fingerprint = "f", .metadata = "1:3,whatever"});
        const Reservation theirs{"order-17", claim.claim_sequence, 0, 1};
        const Record before = stored(*store);
        check_error(reservations.find(kScope, "order-17"), Code::unsupported_version, "metadata");
        check_error(reservations.reserve(request()), Code::unsupported_version);
        check_error(reservations.reserve(request("g")), Code::unsupported_version);
        check_error(reservations.complete(kScope, theirs, charged()), Code::unsupported_version);
        check_error(reservations.release(kScope, theirs), Code::unsupported_version);
        check_error(reservations.note(kScope, theirs, "n"), Code::unsupported_version);
        check_error(reservations.hold(kScope, theirs, "r"), Code::unsupported_version);
        check_error(reservations.resolve(kScope, "order-17", theirs.fence, {.reason = "r"}),
                    Code::unsupported_version);
        CHECK(stored(*store) == before);

        must(newer.complete(claim, "1:2,whatever", {.metadata = "1:1,1:5,1:5,"}));
        check_error(reservations.find(kScope, "order-17"), Code::unsupported_version, "receipt");
        check_error(reservations.reserve(request()), Code::unsupported_version);
    });
}

TEST_CASE("reservations: a record that is none is an error") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        Cache foreign(*store, {.ns = "reservations"});
        int n = 0;
        for (const std::string metadata :
             {"", "x", "1:0,1:1,1:1,", "1:1,1:1,", "1:1,1:1,1:1,x", "1:1,1:1,1:1,1:n,",
              "1:2,1:1,1:1,", "1:2,1:1,1:1,1:n,x"}) {
            const std::string name = std::to_string(n++);
            must_claim(foreign, must(scoped_key(kScope, name)), {.metadata = metadata});
            check_error(reservations.find(kScope, name), Code::corruption, "metadata");
            check_error(reservations.reserve(request("f", name)), Code::corruption);
        }
        for (const std::string receipt : {"", "x", "1:1,", "1:1,1:k,1:0,0:,0:,-0:,x"}) {
            const std::string name = std::to_string(n++);
            as<New>(foreign.remember(must(scoped_key(kScope, name)), receipt,
                                     {.metadata = "1:1,1:1,1:1,"}));
            check_error(reservations.find(kScope, name), Code::corruption, "receipt");
        }
    });
}

TEST_CASE("reservations: bad requests") {
    on_each_store([](TestStore& store) {
        Reservations reservations(*store);
        check_error(reservations.reserve(request("")), Code::invalid_argument, "fingerprint");
        check_error(reservations.reserve(request("f", "")), Code::invalid_argument, "key");
        const Reservation mine = reserve(reservations);
        Outcome bad = charged();
        bad.details = "{";
        check_error(reservations.complete(kScope, mine, bad), Code::invalid_argument, "JSON");
        bad = charged();
        bad.kind = "";
        check_error(reservations.complete(kScope, mine, bad), Code::invalid_argument, "kind");
        CHECK(known(reservations).state == State::in_flight);
        Reservations nameless(*store, {.ns = ""});
        check_error(nameless.reserve(request()), Code::invalid_argument, "namespace");
        check_error(nameless.find(kScope, "k"), Code::invalid_argument, "namespace");
    });
}

TEST_CASE("reservations: a request's fingerprint tells its parts apart") {
    const auto of = [](std::vector<std::string_view> parts) { return request_fingerprint(parts); };
    // sha256 of "2:ab,1:c,"
    CHECK(of({"ab", "c"}) == "c574c25172ecac17c428975b6e876d2a98a72d84660fc96686f942390b360cd8");
    CHECK(of({"ab", "c"}) != of({"a", "bc"}));
    CHECK(of({"ab", "c"}) != of({"abc"}));
    CHECK(of({"ab", "c"}) != of({"ab", "c", ""}));
    CHECK(of({}) != of({""}));
    CHECK(of({"1:a,1:b,"}) != of({"a", "b"}));
}

}  // namespace
}  // namespace dedup::test
