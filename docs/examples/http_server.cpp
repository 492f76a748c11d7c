// An HTTP server that takes a payment once, however often the client sends it.
//
//     http_server STORE LEDGER PORT [WORK_MS [LEASE_MS]]
//
//     POST /payments   with an Idempotency-Key: pays, that is, adds a line to LEDGER; the answer to
//                      a repetition is the stored one
//     GET  /metrics    what the store and the cache count, for Prometheus
//
// PORT 0 takes any free one; the first line of output says which. WORK_MS is how long a payment
// takes (default 0), LEASE_MS for how long nobody else may try it meanwhile (default 30000): kill
// the server with -9 while it pays, start it again, and the client gets 409 until the lease is
// over, and then the payment is made. Exit status: 1 an error, 2 a usage error.

#include <httplib.h>

#include <charconv>
#include <chrono>
#include <fstream>
#include <iostream>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "dedup/http.hpp"
#include "dedup/log_store.hpp"
#include "dedup/sweeper.hpp"

namespace {

using std::chrono::milliseconds;

constexpr std::size_t kBodyBytesMax = 1024 * 1024;

int fail(const dedup::Error& error) {
    std::cerr << "http_server: " << error.message << " (" << dedup::name(error.code) << ")\n";
    return 1;
}

struct Settings {
    std::string store;
    std::string ledger;
    int port = 0;
    milliseconds work{0};
    milliseconds lease{30'000};
};

// The work: in a real server a call to a bank.
class Ledger {
  public:
    explicit Ledger(const Settings& settings) : path_(settings.ledger), work_(settings.work) {}

    dedup::http::Response pay(const dedup::http::Attempt& attempt, const std::string& what) {
        const dedup::Claim& claim = attempt.claim;
        std::this_thread::sleep_for(work_);
        const std::lock_guard lock(mutex_);
        std::ofstream file(path_, std::ios::app);
        file << claim.key << ' ' << what << " attempt " << claim.attempt << '\n';
        if (!file.flush()) {
            return dedup::http::problem(500, "The payment failed", "Nothing has been paid.");
        }
        return {.status = 201,
                .headers = {{"Content-Type", "text/plain"},
                            {"Location", "/payments/" + std::to_string(claim.claim_sequence)}},
                .body = "paid " + what + "\n"};
    }

  private:
    std::string path_;
    milliseconds work_;
    std::mutex mutex_;
};

void send(const dedup::http::Response& from, httplib::Response& to) {
    to.status = from.status;
    to.body = from.body;
    for (const auto& [name, value] : from.headers) {
        to.set_header(name, value);
    }
}

int serve(const Settings& settings, dedup::StreamStore& store) {
    const auto sweeper = dedup::Sweeper::start(store);  // every minute
    if (!sweeper) {
        return fail(sweeper.error());
    }
    dedup::Cache cache(store, {.ns = "payments"});
    Ledger ledger(settings);
    dedup::http::ServeOptions options;
    options.owner = "http_server";
    options.lease = settings.lease;
    options.on_error = [](const dedup::Error& error) { fail(error); };

    httplib::Server server;
    server.set_payload_max_length(kBodyBytesMax);
    // Or headers and body go out in two packets, and the second waits for the first's receipt: 40
    // ms.
    server.set_tcp_nodelay(true);
    server.Post("/payments", [&](const httplib::Request& in, httplib::Response& out) {
        dedup::http::Request request{.method = in.method, .target = in.target, .body = in.body};
        // Two such headers are one list to HTTP, which parse_key refuses.
        for (std::size_t i = 0; i < in.get_header_value_count("Idempotency-Key"); ++i) {
            const std::string value = in.get_header_value("Idempotency-Key", i);
            request.key_header = request.key_header ? *request.key_header + ", " + value : value;
        }
        send(dedup::http::serve(
                 store, cache, request,
                 [&](const dedup::http::Attempt& attempt) { return ledger.pay(attempt, in.body); },
                 options),
             out);
    });
    server.Get("/metrics", [&](const httplib::Request&, httplib::Response& out) {
        const auto stats = store.stats();
        const dedup::CacheMetrics metrics = cache.metrics();
        out.set_content((stats ? dedup::prometheus_text(*stats) : "") +
                            dedup::prometheus_text(store.metrics()) +
                            dedup::prometheus_text({&metrics, 1}),
                        "text/plain; version=0.0.4");
    });
    const int port = settings.port != 0 && server.bind_to_port("127.0.0.1", settings.port)
                         ? settings.port
                     : settings.port == 0 ? server.bind_to_any_port("127.0.0.1")
                                          : -1;
    if (port < 0) {
        std::cerr << "http_server: cannot listen on port " << settings.port << '\n';
        return 1;
    }
    std::cout << "listening on 127.0.0.1:" << port << std::endl;
    return server.listen_after_bind() ? 0 : 1;
}

bool read_number(std::string_view text, int max, int& number) {
    const char* const end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, number);
    return error == std::errc{} && at == end && number >= 0 && number <= max;
}

}  // namespace

int main(int argc, char** argv) {
    constexpr int kPortMax = 65'535;
    constexpr int kTimeMsMax = 86'400'000;
    Settings settings;
    int work_ms = 0;
    int lease_ms = static_cast<int>(settings.lease.count());
    if (argc < 4 || argc > 6 || !read_number(argv[3], kPortMax, settings.port) ||
        (argc > 4 && !read_number(argv[4], kTimeMsMax, work_ms)) ||
        (argc > 5 && !read_number(argv[5], kTimeMsMax, lease_ms))) {
        std::cerr << "usage: http_server STORE LEDGER PORT [WORK_MS [LEASE_MS]]\n";
        return 2;
    }
    settings.store = argv[1];
    settings.ledger = argv[2];
    settings.work = milliseconds{work_ms};
    settings.lease = milliseconds{lease_ms};
    const auto store = dedup::open(settings.store);
    if (!store) {
        return fail(store.error());
    }
    const int status = serve(settings, **store);
    const auto closed = (*store)->close();
    return closed ? status : fail(closed.error());
}
