// dedupctl lookup and done: what is known of a key; they change nothing.

#include <memory>

#include "commands.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

std::vector<dedup::Result<dedup::LookupOutcome>> look_up(const Context& context,
                                                         dedup::StreamStore& store,
                                                         std::span<const std::string_view> keys) {
    return context.cache(store).lookup_many(keys);
}

int run_lookup(const KeyArgument& keys, Context& context) {
    context.check_globals();
    keys.check(context);
    if (keys.many()) {
        return for_many_keys(context, keys, false, [&](dedup::StreamStore& store, auto found) {
            return key_answers(context, found, look_up(context, store, found));
        });
    }
    const auto store = context.open_reader();
    const dedup::LookupOutcome found = take(context.cache(*store).lookup(keys.key));
    const std::int64_t now_ms = store->now_ms();
    if (const auto* completed = std::get_if<dedup::Completed>(&found)) {
        return print_completed(context, keys.key, *completed, "completed", now_ms);
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&found)) {
        return print_in_flight(context, keys.key, *in_flight, now_ms, Explain::on_error);
    }
    if (context.json) {
        context.out.json(context.outcome("absent", keys.key));
    } else if (!context.quiet) {
        note("absent");
    }
    return kExitAbsent;
}

KeyAnswer done_answer(const Context& context, std::string_view key,
                      const dedup::LookupOutcome& found) {
    KeyAnswer answer = key_answer(context, key, found);
    const bool done = std::holds_alternative<dedup::Completed>(found);
    answer.json["done"] = done;
    answer.word = done ? "yes" : "no";
    answer.exit_code = done ? kExitOk : kExitError;
    return answer;
}

int done_many(const KeyArgument& keys, Context& context) {
    bool asked_any = false;
    const KeyWork work = [&](dedup::StreamStore& store, auto asked) {
        asked_any = true;
        const auto found = look_up(context, store, asked);
        std::vector<KeyAnswer> answers;
        for (std::size_t i = 0; i < found.size(); ++i) {
            answers.push_back(found[i] ? done_answer(context, asked[i], *found[i])
                                       : error_answer(context, asked[i], found[i].error()));
            if (!found[i] && answers.back().exit_code == kExitError) {
                answers.back().exit_code = kExitDoneError;
            }
        }
        return answers;
    };
    const int exit_code = for_many_keys(context, keys, false, work);
    if (exit_code == kExitOk && !asked_any) {
        throw Failure{.code = "invalid_argument",
                      .message =
                          "there was no key on standard input, which is no yes\n  see "
                          "whether what writes the keys has failed"};
    }
    return exit_code;
}

int run_done(const KeyArgument& keys, Context& context) {
    context.check_globals();
    keys.check(context);
    if (keys.many()) {
        return done_many(keys, context);
    }
    const auto store = context.open_reader();
    const KeyAnswer answer =
        done_answer(context, keys.key, take(context.cache(*store).lookup(keys.key)));
    if (context.json) {
        context.out.json(answer.json);
    }
    context.out.flush();
    return answer.exit_code;
}

}  // namespace

Command lookup_command(Context& context) {
    const auto keys = std::make_shared<KeyArgument>();
    return {.name = "lookup",
            .help = "Say what is known of a key; its receipt alone goes to standard output",
            .options = {keys->as_argument(), keys->as_null()},
            .run = [keys, &context] { return run_lookup(*keys, context); },
            .examples =
                "  dedupctl lookup order-17 > receipt\n"
                "  cut -f1 orders.tsv | dedupctl lookup -\n"};
}

Command done_command(Context& context) {
    const auto keys = std::make_shared<KeyArgument>();
    return {.name = "done",
            .help = "Has the key been handled? Exit code 0: yes, 1: no, above 1: an error",
            .options = {keys->as_argument(), keys->as_null()},
            .run = [keys, &context] { return run_done(*keys, context); },
            .examples =
                "  if dedupctl done order-17; then echo 'was paid'; fi\n"
                "  dedupctl done - < orders | grep '^no'\n",
            .error_exit = kExitDoneError};
}

}  // namespace dedupctl
