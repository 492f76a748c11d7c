#include "evidence.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "claim_notes.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

using Kind = dedup::Verdict::Kind;

constexpr std::string_view kIndent = "              ";
constexpr std::size_t kLineColumns = 80 - kIndent.size();
constexpr std::size_t kTextColumns = 64 * kLineColumns;  // all of a reason; a note may be longer

std::string_view sentence_of(const dedup::Record& record) {
    switch (record.verdict.kind) {
        case Kind::none:
            break;
        case Kind::held:
            return "held: nobody knows what became of it";
        case Kind::resolved:
            return record.receipt ? "resolved: it had been done" : "resolved: it had not been done";
        case Kind::forgotten:
            return "forgotten: its receipt counts no more";
    }
    return "";
}

// Where a line of `text` ends: behind the last word that fits, or else within one.
std::size_t end_of_line(std::string_view text) {
    std::size_t end = 0;
    std::size_t width = 0;
    std::size_t space = 0;
    while (end < text.size() && width < kLineColumns) {
        if (text[end] == ' ') {
            space = end;
        }
        do {
            ++end;
        } while (end < text.size() && (text[end] & 0xC0) == 0x80);  // the rest of a character
        ++width;
    }
    return end == text.size() || text[end] == ' ' || space == 0 ? end : space;
}

void print_wrapped(Context& context, std::string_view name, const std::string& value) {
    std::string_view rest = value;
    std::string begin = fmt::format("    {:<{}}", name, kIndent.size() - 4);
    while (!rest.empty()) {
        const std::size_t end = end_of_line(rest);
        context.out.line(begin + std::string(rest.substr(0, end)));
        rest.remove_prefix(
            std::min(rest.size(), end + (rest.substr(end).starts_with(' ') ? 1 : 0)));
        begin = kIndent;
    }
}

void print_heading(Context& context, const dedup::Record& record, std::string_view what,
                   const std::string& who) {
    context.out.line(fmt::format("{}  claim {} {}", record.sequence, record.claim_sequence, what));
    print_wrapped(context, "by", who.empty() ? "somebody" : escape(who));
}

void print_note(Context& context, const dedup::Record& record) {
    print_heading(context, record, "noted", record.owner);
    print_wrapped(context, "note", preview(note_of(record), kTextColumns));
}

void print_verdict(Context& context, const dedup::Record& record, const Moment& moment) {
    const dedup::Verdict& verdict = record.verdict;
    print_heading(context, record, sentence_of(record), verdict.by);
    const std::int64_t when_ms =
        verdict.kind == Kind::held ? record.lease_until_ms : record.timestamp_ms;
    print_wrapped(context, "when", format_time_and_age(when_ms, moment.now_ms));
    print_wrapped(context, "reason", preview(verdict.reason, kTextColumns));
}

}  // namespace

void print_evidence(Context& context, const std::vector<dedup::Version>& history,
                    const Moment& moment) {
    dedup::Record before;
    bool is_first = true;
    for (const dedup::Version& version : history) {
        const dedup::Record& record = version.record;
        const bool noted = is_note(record, before);
        const bool decided = record.verdict.kind != Kind::none && record.verdict != before.verdict;
        if (is_first && (noted || decided)) {
            context.out.line("");
            context.out.line("WHAT WAS SAID, by the sequences above");
            is_first = false;
        }
        if (noted) {
            print_note(context, record);
        }
        if (decided) {
            print_verdict(context, record, moment);
        }
        before = record;
    }
}

}  // namespace dedupctl
