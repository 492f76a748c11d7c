// dedupctl note, hold, resolve and forget: what is said of a claim beside its answer.

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "claim_notes.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"
#include "receipt_option.hpp"

namespace dedupctl {
namespace {

// Prints `outcome` of a key, and the claim if there is one.
int print_outcome(Context& context, std::string_view outcome, const std::string& key,
                  std::uint64_t fence) {
    print_done(context, fmt::format("but it is {}; only that could not be printed", outcome), [&] {
        if (!context.json) {
            context.out.line(outcome);
            return;
        }
        Json object = context.outcome(outcome, key);
        if (fence != 0) {
            object["claim_sequence"] = fence;
        }
        context.out.json(object);
    });
    return kExitOk;
}

// A decision without a name would be nobody's.
std::string who_says_so(const std::string& by) {
    if (!by.empty()) {
        return by;
    }
    for (const char* variable : {"SUDO_USER", "LOGNAME", "USER"}) {
        const char* const name = std::getenv(variable);
        if (name != nullptr && *name != '\0') {
            return std::string(name).substr(0, dedup::kLabelBytesMax);
        }
    }
    return fmt::format("uid {}", ::getuid());
}

struct NoteArguments {
    std::string key;
    std::string claim;
    std::string text;
};

int run_note(const NoteArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const std::uint64_t fence = parse_number(options.claim, "--claim", 1, UINT64_MAX);
    const auto store = context.open_existing();
    dedup::Cache cache = context.cache(*store);
    refuse_reservation(options.key, take(cache.lookup(options.key)), "Reservations::note");
    take(cache.note({.ns = context.ns, .key = options.key, .claim_sequence = fence}, options.text));
    take(store->close());
    return print_outcome(context, "noted", options.key, fence);
}

struct HoldArguments {
    std::string key;
    std::string claim;
    std::string reason;
};

int run_hold(const HoldArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const std::uint64_t fence = parse_number(options.claim, "--claim", 1, UINT64_MAX);
    const auto store = context.open_existing();
    take(context.cache(*store).hold({.ns = context.ns, .key = options.key, .claim_sequence = fence},
                                    options.reason));
    take(store->close());
    return print_outcome(context, "held", options.key, fence);
}

struct ResolveArguments {
    std::string key;
    std::string claim;
    ReceiptOption receipt;
    bool has_text = false;
    bool has_file = false;
    bool not_done = false;
    std::string reason;
    std::string by;
};

int run_resolve(const ResolveArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const std::uint64_t fence = parse_number(options.claim, "--claim", 1, UINT64_MAX);
    const bool done = options.has_text || options.has_file || !options.receipt.http_status.empty();
    if (done == options.not_done) {
        throw usage_failure(
            "resolve: say either --receipt R, --receipt-file FILE or --http-status N, if the work "
            "had been done, or --not-done");
    }
    if (options.has_text && options.receipt.text.empty() && options.receipt.http_status.empty()) {
        throw usage_failure(
            "--receipt is empty; it is what every later caller gets, so give what the program "
            "would have stored (if that is nothing: --receipt-file /dev/null)");
    }
    dedup::Resolution resolution{.reason = options.reason, .by = who_says_so(options.by)};
    if (done) {
        resolution.receipt = options.receipt.read();
    }
    const auto store = context.open_existing();
    dedup::Cache cache = context.cache(*store);
    if (done) {
        refuse_reservation(options.key, take(cache.lookup(options.key)), "Reservations::resolve");
    }
    const auto resolved = cache.resolve(options.key, fence, resolution);
    if (!resolved && resolved.error().code == dedup::Code::busy) {
        throw Failure{.exit_code = kExitInFlight,
                      .code = "busy",
                      .message = resolved.error().message +
                                 "\n  if its holder is known to be dead, hold the key and decide "
                                 "then: " +
                                 context.command_line("hold", options.key,
                                                      {"--claim", options.claim, "--reason", ""})};
    }
    if (!resolved && (resolved.error().code == dedup::Code::stale_claim ||
                      resolved.error().code == dedup::Code::receipt_mismatch)) {
        Failure failure = library_failure(resolved.error());
        failure.message +=
            "\n  what became of it: " + context.command_line("inspect", options.key, {});
        throw failure;
    }
    take(resolved);
    take(store->close());
    return print_outcome(context, done ? "completed" : "released", options.key, fence);
}

struct ForgetArguments {
    std::string key;
    std::string claim;
    std::string reason;
    std::string by;
};

int run_forget(const ForgetArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const std::uint64_t fence =
        options.claim.empty() ? 0 : parse_number(options.claim, "--claim", 1, UINT64_MAX);
    const auto store = context.open_existing();
    dedup::Cache cache = context.cache(*store);
    const bool forgot =
        take(cache.forget(options.key, fence, options.reason, who_says_so(options.by)));
    const dedup::LookupOutcome found = take(cache.lookup(options.key));
    const std::int64_t now_ms = store->now_ms();
    take(store->close());
    if (forgot) {
        return print_outcome(context, "forgotten", options.key, fence);
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&found)) {
        return print_in_flight(context, options.key, *in_flight, now_ms);
    }
    print_outcome(context, "absent", options.key, 0);
    return kExitAbsent;
}

Option claim_option(std::string& to, bool required, const char* help) {
    return {.name = "--claim",
            .to = &to,
            .help = help,
            .type = "N",
            .required = required,
            .filled = true};
}

Option reason_option(std::string& to) {
    return {.name = "--reason",
            .to = &to,
            .help = "Why; it is kept with the key",
            .type = "TEXT",
            .required = true,
            .filled = true};
}

Option by_option(std::string& to) {
    return {.name = "--by",
            .to = &to,
            .help = "Who says so; default: the login name",
            .type = "WHO",
            .filled = true};
}

}  // namespace

Command note_command(Context& context) {
    const auto options = std::make_shared<NoteArguments>();
    return {.name = "note",
            .help = "Write down what a claim's holder is about to do",
            .options = {key_argument(options->key),
                        claim_option(options->claim, true, "The claim_sequence that holds the key"),
                        {.name = "TEXT",
                         .to = &options->text,
                         .help = "For whoever comes after the claim",
                         .required = true}},
            .run = [options, &context] { return run_note(*options, context); },
            .examples = "  dedupctl note order-17 --claim 42 'calling the bank, reference 8125'\n"};
}

Command hold_command(Context& context) {
    const auto options = std::make_shared<HoldArguments>();
    return {
        .name = "hold",
        .help = "Keep a claimed key from the next claim until somebody decides",
        .options = {key_argument(options->key),
                    claim_option(options->claim, true, "The claim_sequence that holds the key"),
                    reason_option(options->reason)},
        .run = [options, &context] { return run_hold(*options, context); },
        .examples =
            "  dedupctl hold order-17 --claim 42 --reason 'worker-3 is dead; asking the bank'\n"};
}

Command resolve_command(Context& context) {
    const auto options = std::make_shared<ResolveArguments>();
    Option text = options->receipt.as_text();
    text.given = &options->has_text;
    Option file = options->receipt.as_file();
    file.given = &options->has_file;
    return {
        .name = "resolve",
        .help = "Decide what had become of a claim that nobody answered",
        .options = {key_argument(options->key),
                    claim_option(options->claim, true,
                                 "The claim_sequence that was looked at; see `held`"),
                    text,
                    file,
                    options->receipt.as_http_status(),
                    options->receipt.as_http_type(),
                    {.name = "--not-done",
                     .to = &options->not_done,
                     .help = "The work had not been done: others may claim the key"},
                    reason_option(options->reason),
                    by_option(options->by)},
        .run = [options, &context] { return run_resolve(*options, context); },
        .examples =
            "  dedupctl resolve order-17 --claim 42 --receipt paid \\\n"
            "      --reason 'in the statement of 3 May' --by ada\n"
            "  dedupctl resolve order-17 --claim 42 --not-done --reason 'the bank has no 8125'\n"
            "  dedupctl resolve order-17 --claim 42 --http-status 201 \\\n"
            "      --http-type application/json --receipt '{\"id\":8125}' --reason 'it is "
            "there'\n"};
}

Command forget_command(Context& context) {
    const auto options = std::make_shared<ForgetArguments>();
    return {
        .name = "forget",
        .help = "Make a completed key claimable again",
        .options = {key_argument(options->key),
                    claim_option(options->claim, false, "Only if this claim_sequence completed it"),
                    reason_option(options->reason), by_option(options->by)},
        .run = [options, &context] { return run_forget(*options, context); },
        .examples = "  dedupctl forget order-17 --reason 'the bank has paid it back' --by ada\n"};
}

}  // namespace dedupctl
