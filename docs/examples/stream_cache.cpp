// The calls of a dedup cache on an event stream, as one finds them elsewhere, on this store.
//
//     stream_cache STORE < commands
//
// Each line is one call; what it gives is printed:
//
//     claim_or_get KEY EVENT | complete_receipt KEY RECEIPT | release_claim KEY | lookup KEY
//     key_hash KEY | sweep

#include <iostream>
#include <sstream>
#include <string>

#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"

namespace {

// What was found under a key, in the words of a stream's record.
struct Print {
    void operator()(const dedup::Absent&) const { std::cout << "absent"; }
    void operator()(const dedup::Claimed& claimed) const {
        std::cout << "claimed, attempt " << claimed.claim.attempt;
    }
    void operator()(const dedup::Completed& done) const {
        std::cout << "completed by " << done.event_id << ": " << done.receipt;
    }
    void operator()(const dedup::InFlight& held) const {
        std::cout << "in flight for " << held.event_id;
    }
    void operator()(const dedup::Held&) const { std::cout << "held"; }
    void operator()(const dedup::Mismatch&) const { std::cout << "another request"; }
};

class StreamCache {
  public:
    explicit StreamCache(dedup::StreamStore& store) : store_(store), cache_(store) {}

    void call(const std::string& line) {
        std::istringstream words(line);
        std::string name;
        std::string key;
        std::string rest;
        words >> name >> key >> rest;
        if (name == "claim_or_get") {
            dedup::ClaimOptions options;
            options.event_id = rest;
            show(cache_.claim(key, options));
        } else if (name == "complete_receipt") {
            show(cache_.complete_current(key, rest));
        } else if (name == "release_claim") {
            show(cache_.release_current(key));
        } else if (name == "lookup") {
            show(cache_.lookup(key));
        } else if (name == "key_hash") {
            std::cout << dedup::stream_name("default", key);
        } else if (name == "sweep") {
            show(store_.sweep());
        } else {
            std::cout << "what is " << name << '?';
        }
        std::cout << '\n';
    }

  private:
    template <class Outcome>
    static void show(const dedup::Result<Outcome>& outcome) {
        if (outcome) {
            std::visit(Print(), *outcome);
        } else {
            std::cout << dedup::name(outcome.error().code);
        }
    }
    static void show(const dedup::Result<void>& done) {
        std::cout << (done ? "completed" : dedup::name(done.error().code));
    }
    static void show(const dedup::Result<bool>& released) {
        std::cout << (!released   ? dedup::name(released.error().code)
                      : *released ? "released"
                                  : "nothing to release");
    }
    static void show(const dedup::Result<dedup::SweepReport>& report) {
        if (!report) {
            std::cout << dedup::name(report.error().code);
            return;
        }
        const auto expired = report->removed.total();
        const auto retained = report->retained.total();
        std::cout << expired + retained << " scanned, " << expired << " expired, " << retained
                  << " retained";
    }

    dedup::StreamStore& store_;
    dedup::Cache cache_;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: stream_cache STORE < commands\n";
        return 2;
    }
    const auto store = dedup::open(argv[1]);
    if (!store) {
        std::cerr << "stream_cache: " << store.error().message << '\n';
        return 1;
    }
    StreamCache cache(**store);
    for (std::string line; std::getline(std::cin, line);) {
        cache.call(line);
    }
    const auto closed = (*store)->close();
    if (!closed) {
        std::cerr << "stream_cache: " << closed.error().message << '\n';
        return 1;
    }
    return 0;
}
