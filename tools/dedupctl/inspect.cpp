// dedupctl inspect: everything that is stored about one key.

#include <fmt/format.h>

#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "evidence.hpp"
#include "outcome.hpp"
#include "record_text.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kPreviewColumns = 32;

void print_json(Context& context, const std::string& key, const std::vector<dedup::Version>& found,
                const Moment& moment) {
    Json object;
    object["namespace"] = context.ns;
    add_bytes(object, "key", key);
    object["stream"] = dedup::stream_name(context.ns, key);
    object["state"] = json_state(state_word(found.back().record, moment));
    object["records"] = Json::array();
    for (const dedup::Version& version : found) {
        object["records"].push_back(version_json(version));
    }
    context.out.json(object);
}

void print_field(Context& context, std::string_view name, const std::string& value) {
    context.out.line(fmt::format("{:<12}  {}", name, value));
}

void print_summary(Context& context, const std::string& key, const dedup::Record& head,
                   std::size_t records, const Moment& moment) {
    const std::string word = state_word(head, moment);
    print_field(context, "key", escape(key));
    print_field(context, "namespace", context.ns);
    print_field(context, "stream", dedup::stream_name(context.ns, key));
    print_field(context, "state now", paint(state_sentence(head, moment), state_colour(word)));
    print_field(context, "records", std::to_string(records));
    print_field(context, "claim", std::to_string(head.claim_sequence));
    if (!head.fingerprint.empty()) {
        print_field(context, "fingerprint", escape(head.fingerprint));
    }
    if (!head.event_id.empty()) {
        print_field(context, "event id", escape(head.event_id));
    }
    if (!head.metadata.empty()) {
        print_field(context, "metadata", preview(head.metadata, 60));
    }
    if (head.conflict.count != 0) {
        std::string others;
        for (const std::string& fingerprint : head.conflict.fingerprints) {
            others += (others.empty() ? "" : ", ") + escape(fingerprint);
        }
        print_field(context, "conflicts",
                    fmt::format("{} with another fingerprint: {}", head.conflict.count, others));
    }
    context.out.line("");
}

void print_records(Context& context, const std::vector<dedup::Version>& found,
                   const Moment& moment) {
    Table table({{"SEQUENCE", true},
                 {"KIND"},
                 {"STATE"},
                 {"TIME"},
                 {"EXPIRES"},
                 {"LEASE"},
                 {"ATTEMPT", true},
                 {"OWNER"},
                 {"RECEIPT", true},
                 {"SEGMENT", true},
                 {"OFFSET", true},
                 {"PREVIEW"}});
    for (const dedup::Version& version : found) {
        const dedup::Record& record = version.record;
        const std::string state(dedup::name(record.state()));
        const auto age = [&](std::int64_t time_ms, const char* none) {
            return time_ms == 0 ? none : format_age(time_ms, moment.now_ms);
        };
        table.add({{std::to_string(record.sequence)},
                   {record.kind == dedup::Kind::active ? "active" : "tombstone"},
                   {state, state_colour(state)},
                   {format_time_and_age(record.timestamp_ms, moment.now_ms)},
                   {age(record.expires_at_ms, "never")},
                   {age(record.lease_until_ms, "-")},
                   {std::to_string(record.attempt)},
                   {record.owner.empty() ? "-" : preview(record.owner, kPreviewColumns)},
                   {record.receipt ? human_bytes(record.receipt->size()) : "-"},
                   {std::to_string(version.segment)},
                   {std::to_string(version.offset)},
                   {record.receipt ? preview(*record.receipt, kPreviewColumns) : ""}});
    }
    table.print(context.out);
}

int run_inspect(const std::string& key, Context& context) {
    context.check_globals();
    context.check_key(key);
    const auto store = context.open_reader();
    const std::vector<dedup::Version> found = take(store->history({context.ns, key}));
    const Moment moment{store->now_ms(), store->grace()};
    if (found.empty()) {
        if (context.json) {
            context.out.json(context.outcome("absent", key));
        } else {
            context.out.line("absent");
        }
        return kExitAbsent;
    }
    if (context.json) {
        print_json(context, key, found, moment);
    } else {
        print_summary(context, key, found.back().record, found.size(), moment);
        print_records(context, found, moment);
        print_evidence(context, found, moment);
    }
    return kExitOk;
}

}  // namespace

Command inspect_command(Context& context) {
    const auto key = std::make_shared<std::string>();
    return {.name = "inspect",
            .help = "Show all that is stored about a key",
            .options = {key_argument(*key)},
            .run = [key, &context] { return run_inspect(*key, context); }};
}

}  // namespace dedupctl
