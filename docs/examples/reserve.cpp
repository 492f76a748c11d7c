// Charges a tenant's order once, and notices when a key is used for another order.
//
//     reserve STORE ORGANISATION KEY ORDER...
//
// ORGANISATION stands for whoever was authenticated; KEY and the words of ORDER come with the
// request. The bank does not answer about orders of "timeouts". Exit status: 0 charged, now or
// earlier; 1 an error; 2 a usage error; 9 the key was used for another order; 10 somebody else is
// at it; 17 nobody knows whether it was charged, and somebody has to decide.

#include <chrono>
#include <iostream>
#include <optional>
#include <string>
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

// Stands for the bank. None: it did not answer.
std::optional<dedup::Outcome> ask_bank(const std::string& invoice, std::string_view order) {
    if (order == "timeouts") {
        return std::nullopt;
    }
    return dedup::Outcome{
        .kind = "charged", .primary = {"invoice", invoice}, .details = R"({"currency":"EUR"})"};
}

int charge_once(dedup::Reservations& reservations, const dedup::Scope& scope,
                const dedup::Reservation& mine, std::string_view order) {
    const std::string invoice = "invoice-" + std::to_string(mine.fence);
    // Durable before the bank is asked, so whoever finds this reservation unanswered knows for what
    // to look there.
    const auto noted = reservations.note(scope, mine, "POST bank/payments, " + invoice);
    if (!noted) {
        return fail(noted.error());
    }
    const auto paid = ask_bank(invoice, order);
    if (!paid) {
        const auto held = reservations.hold(scope, mine, "the bank did not answer");
        std::cout << "nobody knows whether " << invoice << " was paid\n";
        return held ? 17 : fail(held.error());
    }
    const auto completed = reservations.complete(scope, mine, *paid);
    if (!completed) {
        return fail(completed.error());
    }
    std::cout << "charged: " << invoice << '\n';
    return 0;
}

int charge(dedup::Reservations& reservations, const dedup::ReservationRequest& request,
           std::string_view order) {
    const auto outcome = reservations.reserve(request);
    if (!outcome) {
        return fail(outcome.error());
    }
    if (const auto* duplicate = outcome->duplicate()) {
        return say_known(duplicate->known);
    }
    if (outcome->conflict() != nullptr) {
        std::cout << "the key was used for another order\n";
        return 9;
    }
    if (const auto* held = outcome->held()) {
        std::cout << "to be decided: " << held->previous.note << " (" << held->previous.reason
                  << ")\n";
        return 17;
    }
    const auto* mine = outcome->reserved();
    if (mine->previous) {
        std::cout << "before: " << mine->previous->note << ", " << name(mine->previous->end)
                  << '\n';
    }
    return charge_once(reservations, request.scope, mine->reservation, order);
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
                .lease = 30s,
                .unanswered = dedup::Unanswered::hold},
               order.front());
    const auto closed = (*store)->close();
    return closed ? status : fail(closed.error());
}
