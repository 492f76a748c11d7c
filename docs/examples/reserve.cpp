// Charges a tenant's order once, and notices when a key is used for another order.
//
//     reserve STORE ORGANISATION KEY ORDER...
//
// ORGANISATION stands for whoever was authenticated; KEY and the words of ORDER come with the
// request. Exit status: 0 charged, now or earlier; 1 an error; 2 a usage error; 9 the key was used
// for another order; 10 somebody else is at it.

#include <chrono>
#include <iostream>
#include <string_view>
#include <vector>

#include "dedup/log_store.hpp"
#include "dedup/reservations.hpp"

namespace {

using namespace std::chrono_literals;

int fail(const dedup::Error& error) {
    std::cerr << "reserve: " << error.message << " (" << dedup::name(error.code) << ")\n";
    return 1;
}

int say_known(const dedup::KnownReservation& known) {
    if (!known.outcome) {
        std::cout << "in flight with " << known.owner << '\n';
        return 10;
    }
    std::cout << known.outcome->kind << " before: " << known.outcome->primary.id << '\n';
    return 0;
}

int charge(dedup::Reservations& reservations, const dedup::ReservationRequest& request) {
    const auto outcome = reservations.reserve(request);
    if (!outcome) {
        return fail(outcome.error());
    }
    if (const auto* duplicate = std::get_if<dedup::Reservations::Duplicate>(&*outcome)) {
        return say_known(duplicate->known);
    }
    if (std::holds_alternative<dedup::Reservations::Conflict>(*outcome)) {
        std::cout << "the key was used for another order\n";
        return 9;
    }
    const auto& mine = std::get<dedup::Reservations::Reserved>(*outcome).reservation;
    // Here the work is done; then what became of it is stored.
    const std::string invoice = "invoice-" + std::to_string(mine.fence);
    const auto completed = reservations.complete(
        request.scope, mine,
        {.kind = "charged", .primary = {"invoice", invoice}, .details = R"({"currency":"EUR"})"});
    if (!completed) {
        return fail(completed.error());
    }
    std::cout << "charged: " << invoice << '\n';
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) {
        std::cerr << "usage: reserve STORE ORGANISATION KEY ORDER...\n";
        return 2;
    }
    const auto store = dedup::open(argv[1], {.lock_timeout = 5s});
    if (!store) {
        return fail(store.error());
    }
    dedup::Reservations reservations(**store);
    const std::vector<std::string_view> order(argv + 4, argv + argc);
    const int status =
        charge(reservations,
               {.scope = {.organisation = argv[2], .workspace = "shop", .operation = "charge"},
                .key = argv[3],
                .fingerprint = dedup::request_fingerprint(order),
                .owner = "reserve",
                .lease = 30s});
    const auto closed = (*store)->close();
    return closed ? status : fail(closed.error());
}
