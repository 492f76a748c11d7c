// dedupctl lookup: what is known of a key; changes nothing.

#include <memory>

#include "commands.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

int run_lookup(const std::string& key, Context& context) {
    context.check_globals();
    context.check_key(key);
    const auto store = context.open_reader();
    const dedup::LookupOutcome found = take(context.cache(*store).lookup(key));
    const std::int64_t now_ms = store->now_ms();
    if (const auto* completed = std::get_if<dedup::Completed>(&found)) {
        return print_completed(context, key, *completed, "completed", now_ms);
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&found)) {
        return print_in_flight(context, key, *in_flight, now_ms);
    }
    return print_absent(context, key);
}

}  // namespace

Command lookup_command(Context& context) {
    const auto key = std::make_shared<std::string>();
    return {.name = "lookup",
            .help = "Say what is known of a key",
            .options = {key_argument(*key)},
            .run = [key, &context] { return run_lookup(*key, context); }};
}

}  // namespace dedupctl
