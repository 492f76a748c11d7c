// Handles each message once, however often it is delivered.
//
//     consume STORE < messages
//
// Each line is a message: a JSON object with an "id". Messages are handled in batches, so a batch
// costs two flushes of the disk, however many messages it has. Run it twice on one file and the
// second run handles nothing; kill it in the middle and the next run handles the rest, together
// with the batch that was being handled then, once its lease has run out.

#include <chrono>
#include <iostream>
#include <string>
#include <vector>

#include "dedup/event_id.hpp"
#include "dedup/guard.hpp"
#include "dedup/log_store.hpp"

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kBatch = 500;

int fail(const dedup::Error& error) {
    std::cerr << "consume: " << error.message << " (" << dedup::name(error.code) << ")\n";
    return 1;
}

// The work. A message that asks for it fails, and can be handled when it is delivered again.
std::expected<std::string, dedup::Failure> handle(const std::string& message) {
    if (message.find("\"fail\"") != std::string::npos) {
        return std::unexpected(dedup::Failure{.message = "it asked for that"});
    }
    return std::to_string(message.size()) + " bytes";
}

struct Printer {
    std::string_view id;
    void operator()(const dedup::Success& done) const {
        std::cout << id << ": handled, " << done.result << '\n';
    }
    void operator()(const dedup::AlreadyProcessed& done) const {
        std::cout << id << ": handled before, " << done.result << '\n';
    }
    void operator()(const dedup::InFlight& held) const {
        std::cout << id << ": in flight with " << held.owner << '\n';
    }
    void operator()(const dedup::Held& held) const {
        std::cout << id << ": held, nobody answered claim " << held.previous.claim_sequence << '\n';
    }
    void operator()(const dedup::Mismatch&) const { std::cout << id << ": another event\n"; }
    void operator()(const dedup::Failed& failed) const {
        std::cout << id << ": failed, " << failed.failure.message << '\n';
    }
};

// False if a message could not be handled, for whatever reason.
bool consume(dedup::Guard& guard, const dedup::JsonPointer& id_at,
             const std::vector<std::string>& messages) {
    bool good = true;
    std::vector<std::string> ids;
    std::vector<const std::string*> bodies;
    for (const std::string& message : messages) {
        auto id = dedup::event_id_from_payload(message, id_at);
        if (!id) {
            good = fail(id.error()) == 0;
            continue;
        }
        ids.push_back(*std::move(id));
        bodies.push_back(&message);
    }
    const auto outcomes = guard.process_batch(
        std::vector<std::string_view>(ids.begin(), ids.end()),
        [&](const dedup::Attempt& attempt) { return handle(*bodies[attempt.index]); });
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
        if (!outcomes[i]) {
            good = fail(outcomes[i].error()) == 0;
            continue;
        }
        std::visit(Printer{ids[i]}, *outcomes[i]);
        good = good && !std::holds_alternative<dedup::Failed>(*outcomes[i]);
    }
    return good;
}

int run(const std::string& path) {
    const auto store = dedup::open(path, {.lock_timeout = 5s});
    if (!store) {
        return fail(store.error());
    }
    bool good = true;
    {
        const auto guard = dedup::Guard::start(**store, {.owner = "consume", .lease = 10s});
        const auto id_at = dedup::JsonPointer::parse("/id");
        if (!guard || !id_at) {
            return fail(guard ? id_at.error() : guard.error());
        }
        std::vector<std::string> batch;
        for (std::string line; std::getline(std::cin, line);) {
            batch.push_back(std::move(line));
            if (batch.size() == kBatch) {
                good = consume(**guard, *id_at, batch) && good;
                batch.clear();
            }
        }
        good = consume(**guard, *id_at, batch) && good;
    }
    const auto closed = (*store)->close();
    return closed ? (good ? 0 : 1) : fail(closed.error());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: consume STORE < messages\n";
        return 2;
    }
    return run(argv[1]);
}
