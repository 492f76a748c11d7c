// Sends an invoice once, however often and from however many processes it is asked to.
//
//     claim STORE INVOICE
//
// The first run claims the invoice, does the work and completes the claim with a receipt. Every
// later run gets that receipt back and does no work. Exit status: 0 sent, now or earlier; 1 an
// error; 2 a usage error; 10 somebody else is at it; 17 somebody has to decide what became of it.

#include <chrono>
#include <iostream>
#include <optional>
#include <string>

#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"

namespace {

using namespace std::chrono_literals;

int fail(const dedup::Error& error) {
    std::cerr << "claim: " << error.message << " (" << dedup::name(error.code) << ")\n";
    return 1;
}

// The work: in a real program a payment, a mail, a row in another database. Gives what later
// callers need to know of it, or nothing if it did not happen.
std::optional<std::string> send(const std::string& invoice) {
    std::cout << "sending " << invoice << '\n';
    if (!std::cout.flush()) {
        return std::nullopt;
    }
    return "sent " + invoice;
}

int send_once(dedup::Cache& cache, const std::string& invoice) {
    // The lease should outlast the work; work of unknown length calls renew() as it goes on.
    dedup::ClaimOptions options;
    options.owner = "mailer";
    options.lease = 30s;
    const auto outcome = cache.claim(invoice, options);
    if (!outcome) {
        return fail(outcome.error());
    }
    if (const auto* done = outcome->completed()) {
        std::cout << "replayed: " << done->receipt << '\n';
        return 0;
    }
    if (outcome->held()) {
        std::cerr << "claim: " << invoice << " waits for a decision; see `dedupctl held`\n";
        return 17;
    }
    const auto* claimed = outcome->claimed();
    if (!claimed) {
        std::cerr << "claim: " << invoice << " is in flight elsewhere; try again later\n";
        return 10;
    }

    const auto receipt = send(invoice);
    if (!receipt) {
        // Nothing happened, so let the next caller try at once instead of when the lease is over.
        const auto released = cache.release(claimed->claim);
        return released ? 1 : fail(released.error());
    }
    // Fails with stale_claim if the lease ran out meanwhile and somebody else took over.
    const auto completed = cache.complete(claimed->claim, *receipt);
    if (!completed) {
        return fail(completed.error());
    }
    std::cout << "completed: " << *receipt << '\n';
    return 0;
}

int run(const std::string& path, const std::string& invoice) {
    dedup::OpenOptions options;
    options.lock_timeout = 5s;  // one process writes at a time; this is how long to wait for it
    const auto store = dedup::open(path, options);
    if (!store) {
        return fail(store.error());
    }
    dedup::CacheOptions cache_options;
    cache_options.ns = "invoices";
    cache_options.ttl = 24h * 30;  // for how long a repetition is recognised
    dedup::Cache cache(**store, cache_options);
    const int status = send_once(cache, invoice);
    // The destructor closes too, but could not say what failed.
    const auto closed = (*store)->close();
    return closed ? status : fail(closed.error());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: claim STORE INVOICE\n";
        return 2;
    }
    return run(argv[1], argv[2]);
}
