// A program outside this project: it knows the installed headers and library, and nothing else.

#include <dedup/dedup.hpp>

#include <iostream>
#include <sstream>
#include <string>
#include <variant>

namespace {

// Claims, completes and replays a key; says what went wrong, or nothing.
std::string use(dedup::StreamStore& store) {
    dedup::Cache cache(store);
    const auto claimed = cache.claim("order-1");
    if (!claimed) {
        return claimed.error().message;
    }
    if (!std::holds_alternative<dedup::Claimed>(*claimed)) {
        return "a new key was not claimed";
    }
    const auto completed = cache.complete(std::get<dedup::Claimed>(*claimed).claim, "paid");
    if (!completed) {
        return completed.error().message;
    }
    const auto replayed = cache.claim("order-1");
    if (!replayed) {
        return replayed.error().message;
    }
    const auto* done = std::get_if<dedup::Completed>(&*replayed);
    return done != nullptr && done->receipt == "paid" ? "" : "the receipt did not come back";
}

// Processes an event once.
std::string use_guard(dedup::StreamStore& store) {
    const auto guard = dedup::Guard::start(store);
    if (!guard) {
        return guard.error().message;
    }
    const std::string event = dedup::event_id_from_content("order 1");
    const auto work = [](const dedup::Attempt&) -> std::expected<std::string, dedup::Failure> {
        return "charged";
    };
    const auto first = (*guard)->process_if_new(event, work);
    const auto second = (*guard)->process_if_new(event, work);
    return first && second && std::holds_alternative<dedup::Success>(*first) &&
                   std::holds_alternative<dedup::AlreadyProcessed>(*second)
               ? ""
               : "an event was not processed once";
}

// Finishes an event with its offset, and reserves a tenant's operation.
std::string use_others(dedup::StreamStore& store) {
    dedup::Registry registry(store);
    const auto finished =
        registry.finish({.pipeline = "p", .stream = "s", .offset = 7, .event_id = "e"});
    const auto position = registry.offsets().find("p", "s");
    if (!finished || !position || !*position || (*position)->offset != 7) {
        return "an offset did not come back";
    }
    dedup::Reservations reservations(store);
    const auto reserved = reservations.reserve(
        {.scope = {.organisation = "o", .workspace = "w", .deployment = {}, .operation = "op"},
         .key = "k",
         .fingerprint = dedup::request_fingerprint({})});
    return reserved && std::holds_alternative<dedup::Reservations::Reserved>(*reserved)
               ? ""
               : "an operation was not reserved";
}

// The codec works on the caller's own objects, so both sides must agree on their layout.
std::string use_codec() {
    dedup::Record record;
    record.ns = "default";
    record.key = "order-1";
    record.sequence = 1;
    record.claim_sequence = 1;
    record.receipt = "paid";
    std::string bytes;
    dedup::encode(record, bytes);
    const auto decoded = dedup::decode(bytes);
    if (!decoded) {
        return decoded.error().message;
    }
    return *decoded == record ? "" : "the record did not come back";
}

// What goes into logs.
std::string use_texts() {
    std::ostringstream text;
    text << dedup::Error{.code = dedup::Code::busy, .message = "m"} << ' ' << dedup::Code::io;
    if (text.str() != "busy: m io") {
        return "an error has another text";
    }
    std::ostringstream version;
    version << DEDUP_VERSION_MAJOR << '.' << DEDUP_VERSION_MINOR << '.' << DEDUP_VERSION_PATCH;
    return version.str() == dedup::version() ? "" : "headers and library are of two versions";
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        return 2;
    }
    const auto store = dedup::open(argv[1]);
    if (!store) {
        std::cerr << store.error().message << '\n';
        return 1;
    }
    for (const std::string& problem :
         {use(**store), use(*dedup::make_memory_store()), use_guard(**store), use_others(**store),
          use_codec(), use_texts()}) {
        if (!problem.empty()) {
            std::cerr << problem << '\n';
            return 1;
        }
    }
    std::cout << dedup::version() << '\n';
    return (*store)->close() ? 0 : 1;
}
