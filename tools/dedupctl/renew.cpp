// dedupctl renew: lets a claim's lease run on.

#include <fmt/format.h>

#include <memory>

#include "commands.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

struct RenewArguments {
    std::string key;
    std::string claim;
    std::string lease;
};

int run_renew(const RenewArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const std::uint64_t fence = parse_number(options.claim, "--claim", 1, UINT64_MAX);
    const milliseconds lease = parse_duration(options.lease, "--lease");

    const auto store = context.open_existing();
    const dedup::Claim claim = take(context.cache(*store).renew(
        {.ns = context.ns, .key = options.key, .claim_sequence = fence}, lease));
    const std::int64_t now_ms = store->now_ms();
    take(store->close());

    const std::string text =
        fmt::format("renewed  claim_sequence={}  attempt={}  deadline {}", claim.claim_sequence,
                    claim.attempt, format_time_and_age(claim.deadline_ms, now_ms));
    print_done(context, "but the answer is: " + text, [&] {
        if (!context.json) {
            context.out.line(text);
            return;
        }
        Json object = context.outcome("renewed", options.key);
        object["claim_sequence"] = claim.claim_sequence;
        object["attempt"] = claim.attempt;
        object["deadline_ms"] = time_or_null(claim.deadline_ms);
        context.out.json(object);
    });
    return kExitOk;
}

}  // namespace

Command renew_command(Context& context) {
    const auto options = std::make_shared<RenewArguments>();
    return {.name = "renew",
            .help = "Let a claim's lease run on from now",
            .options = {key_argument(options->key),
                        {.name = "--claim",
                         .to = &options->claim,
                         .help = "The claim_sequence that holds the key",
                         .type = "N",
                         .required = true,
                         .filled = true},
                        {.name = "--lease",
                         .to = &options->lease,
                         .help = "How long the lease runs from now",
                         .type = "D",
                         .required = true,
                         .filled = true}},
            .run = [options, &context] { return run_renew(*options, context); }};
}

}  // namespace dedupctl
