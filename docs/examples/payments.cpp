// Pays each order once, at a bank that charges again whenever it is asked again, although this
// program is killed at any moment and the bank's answers get lost.
//
//     payments STORE BANK_PORT ORDER...
//
// The bank, an HTTP server on 127.0.0.1, has two calls: POST /payments/REFERENCE charges and gives
// a receipt, unless the time in the header Valid-Until (in ms) is over: then it charges nothing.
// GET /payments/REFERENCE gives the receipt of what was charged, or 404.
//
// A note says what is about to be done, and is durable before it is done. Whoever finds an order
// that nobody answered, this program after a restart or after a lost answer, asks the bank before
// it pays. That the bank does not know a payment proves nothing as long as the request may still be
// on its way: so a request is valid for a while only, and until that is over the order waits. (A
// bank that knows no such time has to be given longer than any queue or retry between here and
// there.) Exit status: 0 all are paid, 1 an error, 2 a usage error.

#include <httplib.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dedup/guard.hpp"
#include "dedup/log_store.hpp"

namespace {

using namespace std::chrono_literals;

// For so long a payment may be under way, by the clock that this program and the bank share. Short,
// for the test; a program in earnest takes minutes.
constexpr std::chrono::milliseconds kValidFor = 100ms;

int fail(const dedup::Error& error) {
    std::cerr << "payments: " << error.message << " (" << dedup::name(error.code) << ")\n";
    return 1;
}

class Bank {
  public:
    explicit Bank(int port) : port_(port) {}

    // Throws if there is no answer: the payment may have been made then, or may yet be until the
    // time `valid_until_ms`.
    std::string pay(const std::string& reference, std::int64_t valid_until_ms) {
        httplib::Client bank("127.0.0.1", port_);
        const httplib::Headers headers{{"Valid-Until", std::to_string(valid_until_ms)}};
        const auto answer = bank.Post("/payments/" + reference, headers, "10 EUR", "text/plain");
        if (!answer || answer->status != 200) {
            throw std::runtime_error("the bank has not answered");
        }
        return answer->body;
    }

    // `may_arrive`: whether a request for this payment may still be under way.
    dedup::Finding find(std::string_view reference, bool may_arrive) {
        httplib::Client bank("127.0.0.1", port_);
        const auto answer = bank.Get("/payments/" + std::string(reference));
        if (!answer || (answer->status != 200 && answer->status != 404)) {
            return dedup::Finding::unknown("the bank cannot be asked");
        }
        if (answer->status == 404 && may_arrive) {
            return dedup::Finding::unknown("the bank has it not, or not yet");
        }
        if (answer->status == 404) {
            std::cout << reference << ": had not been paid\n" << std::flush;
            return dedup::Finding::not_done("the bank has no " + std::string(reference));
        }
        std::cout << reference << ": had been paid\n" << std::flush;
        return dedup::Finding::done(answer->body);
    }

  private:
    int port_;
};

// The work: only what comes after the note can have had an effect. The time is taken before it, so
// that no request is valid for longer than kValidFor after the claim's end, however long this
// process sleeps in between: a claim that has ended cannot be noted.
std::string pay(Bank& bank, dedup::StreamStore& store, const dedup::Attempt& attempt) {
    const std::int64_t valid_until_ms = store.now_ms() + kValidFor.count();
    if (const auto noted = attempt.note("paying, reference " + attempt.event_id); !noted) {
        throw std::runtime_error(noted.error().message);
    }
    return bank.pay(attempt.event_id, valid_until_ms);
}

// Until the order is paid. An exception leaves it held, and the next call asks the bank.
dedup::Result<void> settle(dedup::Guard& guard, dedup::StreamStore& store, Bank& bank,
                           const std::string& order) {
    while (true) {
        try {
            const auto outcome = guard.process_if_new(
                order, [&](const dedup::Attempt& attempt) -> dedup::WorkRef::Given {
                    return pay(bank, store, attempt);
                });
            if (!outcome) {
                return std::unexpected(outcome.error());
            }
            if (std::holds_alternative<dedup::Success>(*outcome) ||
                std::holds_alternative<dedup::AlreadyProcessed>(*outcome)) {
                return {};
            }
        } catch (const std::runtime_error& error) {
            std::cout << order << ": " << error.what() << '\n' << std::flush;
        }
        std::this_thread::sleep_for(10ms);  // held until the bank can be asked
    }
}

int run(const std::string& path, int port, const std::vector<std::string>& orders) {
    const auto store = dedup::open(path);
    if (!store) {
        return fail(store.error());
    }
    Bank bank(port);
    dedup::GuardOptions options;
    options.ns = "payments";
    options.owner = "payments";
    options.reclaim_own = true;  // one process at a time has this name: the store has one writer
    options.reconcile = [&](std::string_view order, const dedup::Previous& previous) {
        // Asked before the bank is: what cannot arrive now has arrived when the bank answers.
        const bool may_arrive = (*store)->now_ms() <= previous.ended_ms + kValidFor.count();
        return bank.find(order, may_arrive);
    };
    const auto guard = dedup::Guard::start(**store, options);
    if (!guard) {
        return fail(guard.error());
    }
    for (const std::string& order : orders) {
        if (const auto settled = settle(**guard, **store, bank, order); !settled) {
            return fail(settled.error());
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    int port = 0;
    const std::string_view number = argc > 3 ? argv[2] : "";
    if (std::from_chars(number.data(), number.data() + number.size(), port).ec != std::errc{}) {
        std::cerr << "usage: payments STORE BANK_PORT ORDER...\n";
        return 2;
    }
    return run(argv[1], port, {argv + 3, argv + argc});
}
