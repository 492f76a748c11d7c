// dedupctl claim: takes a key, or says who has it.

#include <algorithm>
#include <memory>
#include <optional>
#include <thread>

#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

struct ClaimArguments {
    std::string key;
    std::string owner;
    std::string lease;
    std::string ttl;
    std::string fingerprint;
    std::string wait;
};

dedup::ClaimOptions claim_options(const ClaimArguments& options) {
    dedup::ClaimOptions claim;
    claim.owner = options.owner;
    claim.fingerprint = options.fingerprint;
    if (!options.lease.empty()) {
        claim.lease = parse_duration(options.lease, "--lease");
    }
    if (!options.ttl.empty()) {
        claim.ttl = parse_ttl(options.ttl);
    }
    return claim;
}

struct Answer {
    dedup::ClaimOutcome outcome;
    std::int64_t now_ms = 0;
};

// The store is open for no longer than the claim: while this process held it, nobody could
// complete the key that it waits for.
Answer claim_once(Context& context, const std::string& key, const dedup::ClaimOptions& options) {
    const auto store = context.open_writer();
    Answer answer{take(context.cache(*store).claim(key, options)), store->now_ms()};
    take(store->close());
    return answer;
}

// Watches the key through read-only openings until claiming it again may give another answer, or
// until `until`. An opening reads the log's unsealed tail, so the next one comes after a pause
// that is a few times as long as the last one took.
void watch(const Context& context, const std::string& key, SteadyTime until) {
    milliseconds pause{20};
    while (std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_until(std::min(until, std::chrono::steady_clock::now() + pause));
        const SteadyTime started = std::chrono::steady_clock::now();
        const auto store = context.open_reader();
        const dedup::LookupOutcome found = take(context.cache(*store).lookup(key));
        const auto* in_flight = std::get_if<dedup::InFlight>(&found);
        if (in_flight == nullptr ||
            (in_flight->lease_until_ms != 0 && in_flight->lease_until_ms < store->now_ms())) {
            return;
        }
        const auto took =
            std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - started);
        pause = std::clamp(pause * 2, took * 4, std::max(milliseconds{500}, took * 4));
    }
}

// Nobody knows of a claim that could not be printed. So it is released, and the message says so.
void give_back(Context& context, const dedup::Claim& claim, Failure& failure) {
    const std::string fence = std::to_string(claim.claim_sequence);
    try {
        const auto store = context.open_writer();
        take(context.cache(*store).release(claim));
        take(store->close());
    } catch (const Failure&) {
        failure.message +=
            "\n  the key is claimed; `dedupctl release KEY --claim " + fence + "` frees it";
        return;
    }
    failure.message += failure.message.empty() ? "" : "\n  the key was released again";
}

int run_claim(const ClaimArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const dedup::ClaimOptions claim = claim_options(options);
    const milliseconds wait =
        options.wait.empty() ? milliseconds{0} : parse_duration(options.wait, "--wait");
    // A wait beyond a century is one for good; the sum below must not overflow.
    const SteadyTime until = std::chrono::steady_clock::now() +
                             std::min<milliseconds>(wait, std::chrono::hours{24 * 36'500});

    Answer answer = claim_once(context, options.key, claim);
    while (std::holds_alternative<dedup::InFlight>(answer.outcome) &&
           std::chrono::steady_clock::now() < until) {
        watch(context, options.key, until);
        answer = claim_once(context, options.key, claim);
    }

    if (const auto* claimed = std::get_if<dedup::Claimed>(&answer.outcome)) {
        try {
            const int exit_code = print_claimed(context, claimed->claim, answer.now_ms);
            context.out.flush();
            return exit_code;
        } catch (Failure& failure) {
            give_back(context, claimed->claim, failure);
            throw;
        }
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&answer.outcome)) {
        return print_completed(context, options.key, *completed, "completed", answer.now_ms);
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&answer.outcome)) {
        return print_in_flight(context, options.key, *in_flight, answer.now_ms);
    }
    return print_mismatch(context, options.key, std::get<dedup::Mismatch>(answer.outcome),
                          answer.now_ms);
}

}  // namespace

Command claim_command(Context& context) {
    const auto options = std::make_shared<ClaimArguments>();
    return {.name = "claim",
            .help = "Take a key, or say who has it",
            .options = {key_argument(options->key),
                        {.name = "--owner",
                         .to = &options->owner,
                         .help = "Who claims it; for people",
                         .type = "O"},
                        {.name = "--lease",
                         .to = &options->lease,
                         .help = "Others may take it over after this long",
                         .type = "D",
                         .filled = true},
                        {.name = "--ttl",
                         .to = &options->ttl,
                         .help = "Forget the key after this long (24h), or 'never'",
                         .type = "D",
                         .filled = true},
                        {.name = "--fingerprint",
                         .to = &options->fingerprint,
                         .help = "Of the request; another one with this key is a mismatch",
                         .type = "F"},
                        {.name = "--wait",
                         .to = &options->wait,
                         .help = "Wait this long for a key that is in flight",
                         .type = "D",
                         .filled = true}},
            .run = [options, &context] { return run_claim(*options, context); }};
}

}  // namespace dedupctl
