// dedupctl release: gives a claim up, so that somebody can try again.

#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

struct ReleaseArguments {
    KeyArgument keys;
    std::string claim;
};

// Why there was nothing to release. Somebody may claim the key between the two calls; then nobody
// else's claim was touched, which is what "absent" says here.
std::string_view state_now(dedup::Cache& cache, const std::string& key) {
    const dedup::LookupOutcome found = take(cache.lookup(key));
    return std::holds_alternative<dedup::Completed>(found) ? "completed" : "absent";
}

bool release_current(const Context& context, dedup::Cache& cache, const std::string& key) {
    // Nobody else writes while the store is open here, so this is the claim.
    const dedup::LookupOutcome held = take(cache.lookup(key));
    const bool released = take(cache.release_current(key));
    if (released) {
        note_whose_claim(context, "released", held);
    }
    return released;
}

int release_one(const ReleaseArguments& options, Context& context) {
    const std::string& key = options.keys.key;
    const std::uint64_t fence =
        options.claim.empty() ? 0 : parse_number(options.claim, "--claim", 1, UINT64_MAX);

    const auto store = context.open_existing();
    dedup::Cache cache = context.cache(*store);
    const bool released =
        fence == 0 ? release_current(context, cache, key)
                   : take(cache.release({.ns = context.ns, .key = key, .claim_sequence = fence}));
    const std::string_view outcome = released ? "released" : state_now(cache, key);
    take(store->close());

    const std::string text =
        released ? "released" : std::string("nothing to release  the key is ").append(outcome);
    print_done(context, "but the answer is: " + text, [&] {
        if (context.json) {
            context.out.json(context.outcome(outcome, key));
        } else {
            context.out.line(text);
        }
    });
    return kExitOk;
}

KeyAnswer released_answer(const Context& context, std::string_view key,
                          const dedup::Result<bool>& released, std::uint64_t sequence) {
    return released ? KeyAnswer{"released", sequence, context.outcome("released", key)}
                    : error_answer(context, key, released.error());
}

// Nobody else writes while the store is open here, so the claims that are found are those that are
// released.
std::vector<KeyAnswer> release_keys(const Context& context, dedup::StreamStore& store,
                                    std::span<const std::string_view> keys) {
    dedup::Cache cache = context.cache(store);
    const auto found = cache.lookup_many(keys);
    std::vector<dedup::Claim> claims;
    std::vector<std::size_t> which;
    std::vector<KeyAnswer> answers(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (!found[i]) {
            answers[i] = error_answer(context, keys[i], found[i].error());
        } else if (const auto* held = std::get_if<dedup::InFlight>(&*found[i])) {
            claims.push_back({.ns = context.ns,
                              .key = std::string(keys[i]),
                              .claim_sequence = held->claim_sequence});
            which.push_back(i);
        } else {
            answers[i] = key_answer(context, keys[i], *found[i]);  // there is nothing to release
        }
    }
    const auto released = cache.release_many(claims);
    for (std::size_t j = 0; j < released.size(); ++j) {
        answers[which[j]] =
            released_answer(context, keys[which[j]], released[j], claims[j].claim_sequence);
    }
    return answers;
}

int run_release(const ReleaseArguments& options, Context& context) {
    context.check_globals();
    options.keys.check(context);
    if (!options.keys.many()) {
        return release_one(options, context);
    }
    if (!options.claim.empty()) {
        throw usage_failure("--claim is for one key");
    }
    return for_many_keys(
        context, options.keys, true,
        [&](dedup::StreamStore& store, auto keys) { return release_keys(context, store, keys); },
        say_outcomes("released"));
}

}  // namespace

Command release_command(Context& context) {
    const auto options = std::make_shared<ReleaseArguments>();
    return {.name = "release",
            .help = "Give a claim up; others may try again",
            .options = {options->keys.as_argument(),
                        options->keys.as_null(),
                        {.name = "--claim",
                         .to = &options->claim,
                         .help = "Only if this claim_sequence still holds it",
                         .type = "N",
                         .filled = true}},
            .run = [options, &context] { return run_release(*options, context); },
            .examples =
                "  dedupctl release order-17 --claim 42\n"
                "  dedupctl --json ls --stuck | jq -r .key | dedupctl release -\n"};
}

}  // namespace dedupctl
