// dedupctl complete: stores the receipt that every later claim of the key gets.

#include <fmt/format.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "claim_lines.hpp"
#include "claim_notes.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"
#include "receipt_option.hpp"

namespace dedupctl {
namespace {

// What a program completes a reservation with.
constexpr std::string_view kInstead = "Reservations::complete";

struct CompleteArguments {
    KeyArgument keys;
    std::string claim;
    std::string claims;
    ReceiptOption receipt;
};

void print_completion(Context& context, const std::string& key, std::uint64_t fence,
                      const std::string& receipt) {
    if (!context.json) {
        context.out.line(fmt::format("completed  receipt {}", human_bytes(receipt.size())));
        return;
    }
    Json object = context.outcome("completed", key);
    if (fence != 0) {
        object["claim_sequence"] = fence;
    }
    add_bytes(object, "receipt", receipt);
    context.out.json(object);
}

int complete_one(const CompleteArguments& options, Context& context) {
    const std::string& key = options.keys.key;
    const std::uint64_t fence =
        options.claim.empty() ? 0 : parse_number(options.claim, "--claim", 1, UINT64_MAX);
    const std::string receipt = options.receipt.read();

    const auto store = context.open_existing();
    dedup::Cache cache = context.cache(*store);
    // Nobody else writes while a store in a directory is open here, so this is the claim.
    const dedup::LookupOutcome found = take(cache.lookup(key));
    refuse_reservation(key, found, kInstead);
    if (fence != 0) {
        take(cache.complete({.ns = context.ns, .key = key, .claim_sequence = fence}, receipt));
    } else {
        refuse_held(context, key, found);
        take(cache.complete_current(key, receipt));
        note_whose_claim(context, "completed", found);
    }
    take(store->close());

    print_done(context, "but the key is completed; only that could not be printed",
               [&] { print_completion(context, key, fence, receipt); });
    return kExitOk;
}

KeyAnswer completed_answer(const Context& context, std::string_view key,
                           const dedup::Result<void>& done) {
    return done ? KeyAnswer{"completed", 0, context.outcome("completed", key)}
                : error_answer(context, key, done.error());
}

using Found = std::vector<dedup::Result<dedup::LookupOutcome>>;

// `found`: what is known of each claim's key.
std::vector<KeyAnswer> complete_found(const Context& context, dedup::Cache& cache,
                                      std::span<const dedup::Claim> claims, const Found& found,
                                      const std::string& receipt) {
    std::vector<dedup::Completion> completions;
    std::vector<std::size_t> which;
    std::vector<KeyAnswer> answers(claims.size());
    for (std::size_t i = 0; i < claims.size(); ++i) {
        std::string refusal =
            found[i] ? reservation_refusal(claims[i].key, *found[i], kInstead) : "";
        if (refusal.empty()) {
            completions.push_back({claims[i], receipt, {}});
            which.push_back(i);
        } else {
            answers[i] = error_answer(context, claims[i].key,
                                      {dedup::Code::invalid_argument, std::move(refusal)});
        }
        answers[i].sequence = claims[i].claim_sequence;
    }
    const auto done = cache.complete_many(completions);
    for (std::size_t j = 0; j < done.size(); ++j) {
        KeyAnswer& answer = answers[which[j]];
        const dedup::Claim& claim = claims[which[j]];
        answer = completed_answer(context, claim.key, done[j]);
        answer.sequence = claim.claim_sequence;
    }
    return answers;
}

std::vector<KeyAnswer> complete_claims(const Context& context, dedup::StreamStore& store,
                                       std::span<const dedup::Claim> claims,
                                       const std::string& receipt) {
    dedup::Cache cache = context.cache(store);
    std::vector<std::string_view> keys;
    for (const dedup::Claim& claim : claims) {
        keys.push_back(claim.key);
    }
    return complete_found(context, cache, claims, cache.lookup_many(keys), receipt);
}

// Nobody else writes while a store in a directory is open here, so the claims that are found are
// those that are completed.
std::vector<KeyAnswer> complete_keys(const Context& context, dedup::StreamStore& store,
                                     std::span<const std::string_view> keys,
                                     const std::string& receipt) {
    dedup::Cache cache = context.cache(store);
    Found found = cache.lookup_many(keys);
    std::vector<dedup::Claim> claims;
    Found of_claims;
    std::vector<std::size_t> which;
    std::vector<KeyAnswer> answers(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const auto* in_flight = found[i] ? std::get_if<dedup::InFlight>(&*found[i]) : nullptr;
        if (!found[i]) {
            answers[i] = error_answer(context, keys[i], found[i].error());
        } else if (in_flight == nullptr) {
            // Nothing is appended for these: an error, or the same receipt once more.
            answers[i] =
                completed_answer(context, keys[i], cache.complete_current(keys[i], receipt));
        } else if (in_flight->held) {
            answers[i] = held_answer(context, keys[i], *in_flight);
        } else {
            claims.push_back({.ns = context.ns,
                              .key = std::string(keys[i]),
                              .claim_sequence = in_flight->claim_sequence});
            of_claims.push_back(std::move(found[i]));
            which.push_back(i);
        }
    }
    std::vector<KeyAnswer> done = complete_found(context, cache, claims, of_claims, receipt);
    for (std::size_t j = 0; j < done.size(); ++j) {
        answers[which[j]] = std::move(done[j]);
    }
    return answers;
}

int run_complete(const CompleteArguments& options, Context& context) {
    context.check_globals();
    options.keys.check(context);
    if (options.keys.many()) {
        if (!options.claim.empty() || options.receipt.file == "-") {
            throw usage_failure(
                "--claim and --receipt-file - are for one key; --claims takes those of many");
        }
        const std::string receipt = options.receipt.read();
        return for_many_keys(
            context, options.keys, true,
            [&](dedup::StreamStore& store, auto lines) {
                return options.claims.empty()
                           ? complete_keys(context, store, lines, receipt)
                           : for_claims(context, options.claims, lines, [&](auto claims) {
                                 return complete_claims(context, store, claims, receipt);
                             });
            },
            say_outcomes("completed"));
    }
    if (!options.claims.empty()) {
        throw usage_failure("--claims is for many keys; --claim N is for one");
    }
    return complete_one(options, context);
}
}  // namespace

Command complete_command(Context& context) {
    const auto options = std::make_shared<CompleteArguments>();
    return {.name = "complete",
            .help = "Store a claimed key's receipt",
            .options = {options->keys.as_argument(),
                        options->keys.as_null(),
                        {.name = "--claim",
                         .to = &options->claim,
                         .help = "Only if this claim_sequence still holds it",
                         .type = "N",
                         .filled = true},
                        claims_option(options->claims),
                        options->receipt.as_text(),
                        options->receipt.as_file(),
                        options->receipt.as_http_status(),
                        options->receipt.as_http_type()},
            .run = [options, &context] { return run_complete(*options, context); },
            .examples =
                "  dedupctl complete order-17 --claim 42 --receipt paid\n"
                "  if ./render > page; then dedupctl complete page-3 --receipt-file page\n"
                "  else dedupctl release page-3; fi\n"
                "  dedupctl complete - --claims tabs < paid-orders-and-claims\n"};
}

}  // namespace dedupctl
