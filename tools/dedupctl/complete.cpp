// dedupctl complete: stores the receipt that every later claim of the key gets.

#include <fmt/format.h>

#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"
#include "receipt_option.hpp"

namespace dedupctl {
namespace {

struct CompleteArguments {
    std::string key;
    std::string claim;
    ReceiptOption receipt;
};

int run_complete(const CompleteArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const std::uint64_t fence =
        options.claim.empty() ? 0 : parse_number(options.claim, "--claim", 1, UINT64_MAX);
    const std::string receipt = options.receipt.read();

    const auto store = context.open_writer();
    dedup::Cache cache = context.cache(*store);
    if (fence != 0) {
        take(cache.complete({.ns = context.ns, .key = options.key, .claim_sequence = fence},
                            receipt));
    } else {
        // Nobody else writes while the store is open here, so this is the claim.
        const dedup::LookupOutcome held = take(cache.lookup(options.key));
        take(cache.complete_current(options.key, receipt));
        note_whose_claim("completed", held);
    }
    take(store->close());

    if (context.json) {
        Json object = context.outcome("completed", options.key);
        if (fence != 0) {
            object["claim_sequence"] = fence;
        }
        add_bytes(object, "receipt", receipt);
        context.out.json(object);
    } else {
        context.out.line(fmt::format("completed  receipt {}", human_bytes(receipt.size())));
    }
    return kExitOk;
}

}  // namespace

Command complete_command(Context& context) {
    const auto options = std::make_shared<CompleteArguments>();
    return {.name = "complete",
            .help = "Store a claimed key's receipt",
            .options = {key_argument(options->key),
                        {.name = "--claim",
                         .to = &options->claim,
                         .help = "Only if this claim_sequence still holds it",
                         .type = "N",
                         .filled = true},
                        options->receipt.as_text(),
                        options->receipt.as_file()},
            .run = [options, &context] { return run_complete(*options, context); }};
}

}  // namespace dedupctl
