// What the tests of reservations share: a tenant's request, and what is known of it.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "cache/helpers.hpp"
#include "dedup/reservations.hpp"

namespace dedup::test {

using Reserved = Reservations::Reserved;
using Duplicate = Reservations::Duplicate;
using Conflicting = Reservations::Conflict;
using Waiting = Reservations::Held;

inline const Scope kScope{.organisation = "acme", .workspace = "main", .operation = "charge"};

inline ReservationRequest request(std::string fingerprint = "f", std::string key = "order-17") {
    return {.scope = kScope,
            .key = std::move(key),
            .fingerprint = std::move(fingerprint),
            .owner = "web-1"};
}

// With a lease of a second, for an event.
inline ReservationRequest leased() {
    ReservationRequest wanted = request();
    wanted.lease = 1s;
    wanted.event_id = "e-1";
    return wanted;
}

inline Outcome charged() {
    return {.kind = "charged",
            .time_ms = 1'234,
            .primary = {"invoice", "in-17"},
            .secondary = Reference{"payment", "pay:1,2"},
            .details = R"({"amount": 12345678901234567890.10, "note": "ä"})"};
}

inline Reservation reserve(Reservations& reservations,
                           const ReservationRequest& wanted = request()) {
    return as<Reserved>(reservations.reserve(wanted)).reservation;
}

inline KnownReservation known(Reservations& reservations, const Scope& scope = kScope,
                              std::string_view key = "order-17") {
    const auto found = must(reservations.find(scope, key));
    REQUIRE(found.has_value());
    return *found;
}

inline Record stored(StreamStore& store, const Scope& scope = kScope,
                     std::string_view key = "order-17") {
    return head_of(store, must(scoped_key(scope, key)), "reservations");
}

}  // namespace dedup::test
