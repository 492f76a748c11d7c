// dedupctl claim: takes a key, or says who has it.

#include <fmt/format.h>

#include <memory>
#include <span>

#include "claim_and_wait.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

struct ClaimArguments {
    KeyArgument keys;
    std::string owner;
    std::string lease;
    std::string ttl;
    std::string fingerprint;
    std::string wait;
    std::string print;
    std::string attempts_max;
    bool hold = false;
};

dedup::ClaimOptions claim_options(const ClaimArguments& options) {
    dedup::ClaimOptions claim;
    claim.owner = options.owner;
    claim.fingerprint = options.fingerprint;
    set_policy(claim, options.hold, options.attempts_max);
    if (options.lease.empty() && (options.hold || !options.attempts_max.empty())) {
        throw usage_failure(
            "--hold and --attempts-max are about a claim whose lease has run out: say how long "
            "that is with --lease");
    }
    if (!options.lease.empty()) {
        claim.lease = parse_duration(options.lease, "--lease");
    }
    if (!options.ttl.empty()) {
        claim.ttl = parse_ttl(options.ttl);
    }
    return claim;
}

std::string free_command(const Context& context, const dedup::Claim& claim) {
    return context.command_line("release", claim.key,
                                {"--claim", std::to_string(claim.claim_sequence)});
}

// Nobody knows of a claim that could not be printed. So it is released, and the message says so.
void give_back(Context& context, const dedup::Claim& claim, Failure& failure) {
    try {
        const auto store = context.open_writer();
        take(context.cache(*store).release(claim));
        take(store->close());
    } catch (const Failure&) {
        failure.message += "\n  the key is claimed; this frees it: " + free_command(context, claim);
        return;
    }
    failure.message += failure.message.empty() ? "" : "\n  the key was released again";
}

// The same for the last keys of a batch.
void give_back_many(const Context& context, dedup::StreamStore& store,
                    std::span<const std::string_view> keys, std::span<const KeyAnswer> answers,
                    Failure& failure) {
    std::vector<dedup::Claim> claims;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (answers[i].word == "claimed") {
            claims.push_back({.ns = context.ns,
                              .key = std::string(keys[i]),
                              .claim_sequence = answers[i].sequence});
        }
    }
    const auto released = context.cache(store).release_many(claims);
    std::string kept;
    for (std::size_t i = 0; i < claims.size(); ++i) {
        if (!released[i]) {
            kept += "\n  " + free_command(context, claims[i]);
        }
    }
    if (!kept.empty()) {
        failure.message += "\n  keys are claimed; this frees them:" + kept;
    } else if (!failure.message.empty() && !claims.empty()) {
        failure.message +=
            fmt::format("\n  what was claimed and not printed was released again: {}",
                        count_of(claims.size(), "key"));
    }
}

int claim_many(const ClaimArguments& options, const dedup::ClaimOptions& claim, Context& context) {
    if (!options.wait.empty() || !options.print.empty()) {
        throw usage_failure("--wait and --print are for one key");
    }
    const KeyWork work = [&](dedup::StreamStore& store, auto keys) {
        std::vector<dedup::ClaimRequest> requests;
        for (const std::string_view key : keys) {
            requests.push_back({std::string(key), claim});
        }
        return key_answers(context, keys, context.cache(store).claim_many(requests));
    };
    return for_many_keys(context, options.keys, true, work,
                         [&](dedup::StreamStore& store, auto keys, auto answers, Failure& failure) {
                             give_back_many(context, store, keys, answers, failure);
                         });
}

int print_claim(Context& context, const ClaimArguments& options, const dedup::Claimed& claimed,
                std::int64_t now_ms) {
    try {
        if (options.print.empty()) {
            print_claimed(context, claimed, now_ms);
        } else {
            context.out.line(std::to_string(claimed.claim.claim_sequence));
        }
        context.out.flush();
        return kExitOk;
    } catch (Failure& failure) {
        give_back(context, claimed.claim, failure);
        throw;
    }
}

int run_claim(const ClaimArguments& options, Context& context) {
    context.check_globals();
    options.keys.check(context);
    const dedup::ClaimOptions claim = claim_options(options);
    if (options.keys.many()) {
        return claim_many(options, claim, context);
    }
    const std::string& key = options.keys.key;
    const milliseconds wait =
        options.wait.empty() ? milliseconds{0} : parse_duration(options.wait, "--wait");
    const ClaimAnswer answer = claim_and_wait(context, key, claim, wait);
    if (const auto* claimed = std::get_if<dedup::Claimed>(&answer.outcome)) {
        return print_claim(context, options, *claimed, answer.now_ms);
    }
    // A script that asked for the sequence gets that or nothing.
    if (const auto* completed = std::get_if<dedup::Completed>(&answer.outcome)) {
        if (!options.print.empty() && !context.json) {
            note("completed " + format_time_and_age(completed->completed_at_ms, answer.now_ms));
            return kExitCompleted;
        }
        return print_completed(context, key, *completed, "completed", answer.now_ms);
    }
    const Explain explain = options.print.empty() ? Explain::on_output : Explain::on_error;
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&answer.outcome)) {
        return print_in_flight(context, key, *in_flight, answer.now_ms, explain);
    }
    if (const auto* held = std::get_if<dedup::Held>(&answer.outcome)) {
        return print_held(context, key, *held, answer.now_ms, explain);
    }
    return print_mismatch(context, key, std::get<dedup::Mismatch>(answer.outcome), answer.now_ms,
                          explain);
}

}  // namespace

Command claim_command(Context& context) {
    const auto options = std::make_shared<ClaimArguments>();
    return {.name = "claim",
            .help = "Take a key, or say who has it",
            .options = {options->keys.as_argument(),
                        options->keys.as_null(),
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
                        {.name = "--hold",
                         .to = &options->hold,
                         .help = "If its lease runs out: nobody takes it over, see `held`"},
                        {.name = "--attempts-max",
                         .to = &options->attempts_max,
                         .help = "From this attempt on as with --hold",
                         .type = "N",
                         .filled = true},
                        {.name = "--fingerprint",
                         .to = &options->fingerprint,
                         .help = "Of the request; another one with this key is a mismatch",
                         .type = "F"},
                        {.name = "--wait",
                         .to = &options->wait,
                         .help = "Wait this long for a key that is in-flight",
                         .type = "D",
                         .filled = true},
                        {.name = "--print",
                         .to = &options->print,
                         .help = "Print only the claim_sequence of a claim, for --claim N",
                         .type = "sequence",
                         .choices = {"sequence"}}},
            .run = [options, &context] { return run_claim(*options, context); },
            .examples =
                "  dedupctl claim order-17 --lease 5m && ./pay && dedupctl complete "
                "order-17\n"
                "  N=$(dedupctl claim order-17 --lease 5m --print sequence) &&\n"
                "      ./pay && dedupctl complete order-17 --claim \"$N\"\n"
                "  dedupctl claim - --lease 5m < orders\n"};
}

}  // namespace dedupctl
