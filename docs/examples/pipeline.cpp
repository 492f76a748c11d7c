// A pipeline that reads a stream of events from where it stopped, and processes each exactly once.
//
//     pipeline STORE < stream
//
// Each line is one event, its offset the number of the line: a JSON object that may have an
// "idempotency_key". Per event two things are checked: a key that was seen before names the first
// event that had it; and what the pipeline did and how far it has come is written in one step, so a
// crash leaves no event done but not passed, nor passed but not done.

#include <chrono>
#include <iostream>
#include <string>

#include "dedup/log_store.hpp"
#include "dedup/registry.hpp"

namespace {

using namespace std::chrono_literals;

constexpr const char* kPipeline = "billing";
constexpr const char* kStream = "orders";

int fail(const dedup::Error& error) {
    std::cerr << "pipeline: " << error.message << " (" << dedup::name(error.code) << ")\n";
    return 1;
}

// What is done for one event; the details that its receipt keeps.
dedup::Result<std::string> process(dedup::Registry& registry, const std::string& event_id,
                                   const std::string& event) {
    if (const auto key = dedup::idempotency_key_in(event)) {
        const auto checked = registry.check_idempotency(*key, event_id);
        if (!checked) {
            return std::unexpected(checked.error());
        }
        const auto* known = checked->duplicate();
        // After a crash the event meets its own key, and goes on.
        if (known != nullptr && known->event_id != event_id) {
            std::cout << event_id << ": repeats " << known->event_id << '\n';
            return "a repetition of " + known->event_id;
        }
    }
    std::cout << event_id << ": charged\n";
    return "charged";
}

int run(dedup::StreamStore& store) {
    dedup::Registry registry(store, {.key_ttl = 24h});
    const auto position = registry.offsets().find(kPipeline, kStream);
    if (!position) {
        return fail(position.error());
    }
    const std::uint64_t done = *position ? (*position)->offset : 0;
    std::string event;
    for (std::uint64_t offset = 1; std::getline(std::cin, event); ++offset) {
        if (offset <= done) {
            continue;
        }
        const std::string event_id = "orders-" + std::to_string(offset);
        const auto details = process(registry, event_id, event);
        if (!details) {
            return fail(details.error());
        }
        const auto finished = registry.finish(
            {.pipeline = kPipeline, .stream = kStream, .offset = offset, .event_id = event_id},
            *details);
        if (!finished) {
            return fail(finished.error());
        }
    }
    const auto stats = registry.stats();
    if (!stats) {
        return fail(stats.error());
    }
    std::cout << stats->keys << " keys, " << stats->receipts << " receipts, " << stats->offsets
              << " offsets\n";
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: pipeline STORE < stream\n";
        return 2;
    }
    dedup::OpenOptions options;
    options.capacity = {.keys_max = 1'000'000, .evict_oldest = true};
    const auto store = dedup::open(argv[1], options);
    if (!store) {
        return fail(store.error());
    }
    const int status = run(**store);
    const auto closed = (*store)->close();
    return closed ? status : fail(closed.error());
}
