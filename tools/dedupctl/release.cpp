// dedupctl release: gives a claim up, so that somebody can try again.

#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

struct ReleaseArguments {
    std::string key;
    std::string claim;
};

// Why there was nothing to release. Somebody may claim the key between the two calls; then nobody
// else's claim was touched, which is what "absent" says here.
std::string_view state_now(dedup::Cache& cache, const std::string& key) {
    const dedup::LookupOutcome found = take(cache.lookup(key));
    return std::holds_alternative<dedup::Completed>(found) ? "completed" : "absent";
}

bool release_current(dedup::Cache& cache, const std::string& key) {
    // Nobody else writes while the store is open here, so this is the claim.
    const dedup::LookupOutcome held = take(cache.lookup(key));
    const bool released = take(cache.release_current(key));
    if (released) {
        note_whose_claim("released", held);
    }
    return released;
}

int run_release(const ReleaseArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const std::uint64_t fence =
        options.claim.empty() ? 0 : parse_number(options.claim, "--claim", 1, UINT64_MAX);

    const auto store = context.open_writer();
    dedup::Cache cache = context.cache(*store);
    const bool released =
        fence == 0
            ? release_current(cache, options.key)
            : take(cache.release({.ns = context.ns, .key = options.key, .claim_sequence = fence}));
    const std::string_view outcome = released ? "released" : state_now(cache, options.key);
    take(store->close());

    if (context.json) {
        context.out.json(context.outcome(outcome, options.key));
    } else if (released) {
        context.out.line("released");
    } else {
        context.out.line(std::string("nothing to release  the key is ").append(outcome));
    }
    return kExitOk;
}

}  // namespace

Command release_command(Context& context) {
    const auto options = std::make_shared<ReleaseArguments>();
    return {.name = "release",
            .help = "Give a claim up; others may try again",
            .options = {key_argument(options->key),
                        {.name = "--claim",
                         .to = &options->claim,
                         .help = "Only if this claim_sequence still holds it",
                         .type = "N",
                         .filled = true}},
            .run = [options, &context] { return run_release(*options, context); }};
}

}  // namespace dedupctl
