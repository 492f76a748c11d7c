// dedupctl remember: claims and completes a key in one step.

#include <fmt/format.h>

#include <memory>

#include "commands.hpp"
#include "common/time_text.hpp"
#include "outcome.hpp"
#include "receipt_option.hpp"

namespace dedupctl {
namespace {

struct RememberArguments {
    KeyArgument keys;
    ReceiptOption receipt;
    std::string ttl;
};

int print_new(Context& context, const std::string& key, const dedup::New& fresh,
              std::int64_t now_ms) {
    if (!context.json) {
        note_previous(context, fresh.previous, now_ms);
    }
    print_done(context, "but the key is recorded, as new; only that could not be printed", [&] {
        if (context.json) {
            context.out.json(new_json(context, key, fresh));
        } else {
            context.out.line(fmt::format("new  claim_sequence={}", fresh.claim_sequence));
        }
    });
    return kExitOk;
}

int remember_many(const KeyArgument& arguments, const std::string& receipt,
                  const dedup::ClaimOptions& claim, Context& context) {
    const KeyWork work = [&](dedup::StreamStore& store, auto keys) {
        std::vector<dedup::RememberRequest> requests;
        for (const std::string_view key : keys) {
            requests.push_back({std::string(key), receipt, claim});
        }
        return key_answers(context, keys, context.cache(store).remember_many(requests));
    };
    return for_many_keys(context, arguments, true, work, say_outcomes("new"));
}

int run_remember(const RememberArguments& options, Context& context) {
    context.check_globals();
    options.keys.check(context);
    dedup::ClaimOptions claim;
    if (!options.ttl.empty()) {
        claim.ttl = parse_ttl(options.ttl);
    }
    if (options.keys.many() && options.receipt.file == "-") {
        throw usage_failure("--receipt-file - is for one key");
    }
    const std::string receipt = options.receipt.read();
    if (options.keys.many()) {
        return remember_many(options.keys, receipt, claim, context);
    }
    const std::string& key = options.keys.key;

    const auto store = context.open_writer();
    const dedup::RememberOutcome found = take(context.cache(*store).remember(key, receipt, claim));
    const std::int64_t now_ms = store->now_ms();
    take(store->close());

    if (const auto* fresh = std::get_if<dedup::New>(&found)) {
        return print_new(context, key, *fresh, now_ms);
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&found)) {
        return print_completed(context, key, *completed, "duplicate", now_ms);
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&found)) {
        return print_in_flight(context, key, *in_flight, now_ms);
    }
    if (const auto* held = std::get_if<dedup::Held>(&found)) {
        return print_held(context, key, *held, now_ms);
    }
    return print_mismatch(context, key, std::get<dedup::Mismatch>(found), now_ms);
}

}  // namespace

Command remember_command(Context& context) {
    const auto options = std::make_shared<RememberArguments>();
    return {.name = "remember",
            .help = "Claim and complete a key in one step",
            .options = {options->keys.as_argument(),
                        options->keys.as_null(),
                        options->receipt.as_text(),
                        options->receipt.as_file(),
                        {.name = "--ttl",
                         .to = &options->ttl,
                         .help = "Forget the key after this long (24h), or 'never'",
                         .type = "D",
                         .filled = true}},
            .run = [options, &context] { return run_remember(*options, context); },
            .examples =
                "  dedupctl remember \"$MESSAGE_ID\" --ttl 7d || exit 0\n"
                "  dedupctl remember - --ttl never < ids | grep '^new'\n"};
}

}  // namespace dedupctl
