// dedupctl held: the keys that wait for a decision, with all that is known of their last claims.

#include <fmt/format.h>

#include <memory>

#include "claim_notes.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/reservations.hpp"
#include "dedup/scan.hpp"
#include "record_text.hpp"

namespace dedupctl {
namespace {

void print_text(Context& context, const dedup::Record& record, const Moment& moment,
                bool with_namespace) {
    constexpr std::size_t kValueColumns = 200;
    context.out.line(with_namespace
                         ? fmt::format("{}  (namespace {})", escape(record.key), escape(record.ns))
                         : escape(record.key));
    context.out.line(fmt::format("    claim     {}, attempt {}, by {}", record.claim_sequence,
                                 record.attempt,
                                 record.owner.empty() ? "somebody" : escape(record.owner)));
    context.out.line("    began     " + format_time_and_age(record.timestamp_ms, moment.now_ms));
    context.out.line("    held      " + format_time_and_age(record.lease_until_ms, moment.now_ms));
    const auto field = [&](const char* name, const std::string& bytes) {
        if (!bytes.empty()) {
            context.out.line(fmt::format("    {:<8}  {}", name, preview(bytes, kValueColumns)));
        }
    };
    field("event id", record.event_id);
    field("note", note_of(record));
    field("reason", record.verdict.reason);
    if (!context.quiet) {
        const auto answers = context.answers_to(record.ns, record.key, record.claim_sequence);
        const bool reserved = dedup::reservation_note(record.key, record.metadata).has_value();
        context.out.line("    done      " +
                         (reserved ? "Reservations::resolve, in a program" : answers.done));
        context.out.line("    not done  " + answers.not_done);
    }
}

int run_held(bool all_namespaces, Context& context) {
    context.check_globals();
    const auto store = context.open_reader();
    const dedup::ScanOptions scan{.ns = all_namespaces ? "" : context.ns};
    take(for_each_page(*store, scan, [&](const dedup::ScanPage& page) {
        const Moment moment{store->now_ms(), store->grace()};
        for (const dedup::Version& head : page.heads) {
            if (!moment.held(head.record)) {
                continue;
            }
            if (!context.json) {
                print_text(context, head.record, moment, all_namespaces);
                continue;
            }
            Json object;
            object["namespace"] = head.record.ns;
            add_bytes(object, "key", head.record.key);
            object.update(version_json(head));
            object["state"] = "held";
            if (const std::string noted = note_of(head.record); !noted.empty()) {
                add_bytes(object, "note", noted);
            }
            context.out.json(object);
        }
    }));
    return kExitOk;
}

}  // namespace

Command held_command(Context& context) {
    const auto all_namespaces = std::make_shared<bool>(false);
    return {.name = "held",
            .help = "List the keys that wait for a decision, and what is known of them",
            .options = {{.name = "-A,--all-namespaces",
                         .to = all_namespaces.get(),
                         .help = "Of all namespaces"}},
            .run = [all_namespaces, &context] { return run_held(*all_namespaces, context); },
            .examples =
                "  dedupctl held\n"
                "  dedupctl --json held -A | jq -r '[.key, .claim_sequence, .metadata] | @tsv'\n"};
}

}  // namespace dedupctl
