// dedupctl release: gives a claim up, so that somebody can try again.

#include <fmt/format.h>

#include <memory>
#include <optional>

#include "claim_lines.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

struct ReleaseArguments {
    KeyArgument keys;
    std::string claim;
    std::string claims;
};

// Why there was nothing to release. Somebody may claim the key between the two calls; then nobody
// else's claim was touched, which is what "absent" says here.
std::string_view state_now(dedup::Cache& cache, const std::string& key) {
    const dedup::LookupOutcome found = take(cache.lookup(key));
    return std::holds_alternative<dedup::Completed>(found) ? "completed" : "absent";
}

bool release_current(const Context& context, dedup::Cache& cache, const std::string& key) {
    // Nobody else writes while the store is open here, so this is the claim.
    const dedup::LookupOutcome found = take(cache.lookup(key));
    refuse_held(context, key, found);
    const bool released = take(cache.release_current(key));
    if (released) {
        note_whose_claim(context, "released", found);
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

// Why a claim that its line does not name is left alone; nullopt: it is released. Whoever made the
// list may have meant another one.
std::optional<KeyAnswer> left_alone(const Context& context, std::string_view key,
                                    const dedup::InFlight& in_flight, std::int64_t now_ms) {
    if (in_flight.held) {
        return held_answer(context, key, in_flight);
    }
    if (in_flight.lease_until_ms == 0 || in_flight.lease_until_ms < now_ms) {
        return std::nullopt;
    }
    KeyAnswer answer = key_answer(context, key, dedup::LookupOutcome(in_flight));
    answer.exit_code = kExitInFlight;
    answer.message = fmt::format(
        "not released: claim {} of {} has a lease that still runs\n  --claims names the claims "
        "that are meant",
        in_flight.claim_sequence, in_flight.owner.empty() ? "somebody" : escape(in_flight.owner));
    return answer;
}

std::vector<KeyAnswer> release_claims(const Context& context, dedup::StreamStore& store,
                                      std::span<const dedup::Claim> claims) {
    dedup::Cache cache = context.cache(store);
    const auto released = cache.release_many(claims);
    std::vector<KeyAnswer> answers;
    for (std::size_t i = 0; i < claims.size(); ++i) {
        const std::string& key = claims[i].key;
        if (!released[i]) {
            answers.push_back(error_answer(context, key, released[i].error()));
        } else if (*released[i]) {
            answers.push_back(
                {"released", claims[i].claim_sequence, context.outcome("released", key)});
        } else {
            const auto found = cache.lookup(key);  // there is nothing to release
            answers.push_back(found ? key_answer(context, key, *found)
                                    : error_answer(context, key, found.error()));
        }
    }
    return answers;
}

// Nobody else writes while a store in a directory is open here, so the claims that are found are
// those that are released.
std::vector<KeyAnswer> release_keys(const Context& context, dedup::StreamStore& store,
                                    std::span<const std::string_view> keys) {
    const auto found = context.cache(store).lookup_many(keys);
    std::vector<dedup::Claim> claims;
    std::vector<std::size_t> which;
    std::vector<KeyAnswer> answers(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const auto* in_flight = found[i] ? std::get_if<dedup::InFlight>(&*found[i]) : nullptr;
        if (!found[i]) {
            answers[i] = error_answer(context, keys[i], found[i].error());
        } else if (in_flight == nullptr) {
            answers[i] = key_answer(context, keys[i], *found[i]);  // there is nothing to release
        } else if (auto left = left_alone(context, keys[i], *in_flight, store.now_ms())) {
            answers[i] = *std::move(left);
        } else {
            claims.push_back({.ns = context.ns,
                              .key = std::string(keys[i]),
                              .claim_sequence = in_flight->claim_sequence});
            which.push_back(i);
        }
    }
    std::vector<KeyAnswer> released = release_claims(context, store, claims);
    for (std::size_t j = 0; j < released.size(); ++j) {
        answers[which[j]] = std::move(released[j]);
    }
    return answers;
}

int run_release(const ReleaseArguments& options, Context& context) {
    context.check_globals();
    options.keys.check(context);
    if (!options.keys.many()) {
        if (!options.claims.empty()) {
            throw usage_failure("--claims is for many keys; --claim N is for one");
        }
        return release_one(options, context);
    }
    if (!options.claim.empty()) {
        throw usage_failure("--claim is for one key; --claims takes those of many");
    }
    return for_many_keys(
        context, options.keys, true,
        [&](dedup::StreamStore& store, auto lines) {
            return options.claims.empty()
                       ? release_keys(context, store, lines)
                       : for_claims(context, options.claims, lines, [&](auto claims) {
                             return release_claims(context, store, claims);
                         });
        },
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
                         .filled = true},
                        claims_option(options->claims)},
            .run = [options, &context] { return run_release(*options, context); },
            .examples =
                "  dedupctl release order-17 --claim 42\n"
                "  dedupctl --json ls --stuck | dedupctl release - --claims json\n"};
}

}  // namespace dedupctl
