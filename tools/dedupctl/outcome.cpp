#include "outcome.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "claim_notes.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

std::string deadline_text(std::int64_t deadline_ms, std::int64_t now_ms) {
    return deadline_ms == 0 ? "no deadline"
                            : "deadline " + format_time_and_age(deadline_ms, now_ms);
}

// Until when a claim that somebody holds is honoured.
std::string holds_text(const dedup::InFlight& in_flight, std::int64_t now_ms) {
    if (in_flight.held) {
        return "held: nobody answered it, see dedupctl resolve";
    }
    if (in_flight.lease_until_ms != 0) {
        const char* verb = in_flight.lease_until_ms < now_ms ? "lease ran out" : "lease until";
        return fmt::format("{} {}", verb, format_time_and_age(in_flight.lease_until_ms, now_ms));
    }
    if (in_flight.expires_at_ms != 0) {
        return "no lease, expires " + format_time_and_age(in_flight.expires_at_ms, now_ms);
    }
    return "no lease, never expires";
}

// "by w1, attempt 2, since ..., note '...'": what is known of a claim that has ended.
std::string previous_text(const dedup::Previous& previous, std::int64_t now_ms) {
    std::string text =
        fmt::format("claim {} by {}, attempt {}", previous.claim_sequence,
                    previous.owner.empty() ? "somebody" : escape(previous.owner), previous.attempt);
    if (previous.began_ms != 0) {
        text += ", since " + format_time_and_age(previous.began_ms, now_ms);
    }
    std::string end(dedup::name(previous.end));
    std::ranges::replace(end, '_', ' ');
    text += ", " + end;
    if (previous.ended_ms != 0) {
        text += " " + format_time_and_age(previous.ended_ms, now_ms);
    }
    const auto add = [&](const char* what, const std::string& bytes) {
        if (!bytes.empty()) {
            text += fmt::format(", {} {}", what, preview(bytes, 200));
        }
    };
    add("note", previous.note);
    add("reason", previous.reason);
    add("said by", previous.by);
    return text;
}

Json previous_json(const dedup::Previous& previous) {
    Json object;
    object["claim_sequence"] = previous.claim_sequence;
    object["attempt"] = previous.attempt;
    add_bytes(object, "owner", previous.owner);
    add_bytes(object, "event_id", previous.event_id);
    object["began_ms"] = time_or_null(previous.began_ms);
    object["ended_ms"] = time_or_null(previous.ended_ms);
    object["end"] = dedup::name(previous.end);
    add_bytes(object, "note", previous.note);
    add_bytes(object, "reason", previous.reason);
    add_bytes(object, "by", previous.by);
    return object;
}

}  // namespace

namespace {

// Text for whoever wants it; to people it is one more note.
void explain_text(Context& context, const std::string& text, Explain explain) {
    if (explain == Explain::on_output) {
        context.out.line(text);
    } else if (!context.quiet) {
        note(text);
    }
}

}  // namespace

void note_previous(const Context& context, const std::optional<dedup::Previous>& previous,
                   std::int64_t now_ms) {
    if (previous && !context.quiet) {
        note("before: " + previous_text(*previous, now_ms));
    }
}

void add_previous(Json& object, const std::optional<dedup::Previous>& previous) {
    if (previous) {
        object["previous"] = previous_json(*previous);
    }
}

Json claimed_json(const Context& context, const dedup::Claim& claim,
                  const std::optional<dedup::Previous>& previous) {
    Json object = context.outcome("claimed", claim.key);
    object["claim_sequence"] = claim.claim_sequence;
    object["attempt"] = claim.attempt;
    object["deadline_ms"] = time_or_null(claim.deadline_ms);
    add_previous(object, previous);
    return object;
}

int print_claimed(Context& context, const dedup::Claimed& claimed, std::int64_t now_ms) {
    if (context.json) {
        context.out.json(claimed_json(context, claimed.claim, claimed.previous));
        return kExitOk;
    }
    note_previous(context, claimed.previous, now_ms);
    return print_claimed(context, claimed.claim, now_ms);
}

int print_claimed(Context& context, const dedup::Claim& claim, std::int64_t now_ms) {
    if (context.json) {
        context.out.json(claimed_json(context, claim));
    } else {
        context.out.line(fmt::format("claimed  claim_sequence={}  attempt={}  {}",
                                     claim.claim_sequence, claim.attempt,
                                     deadline_text(claim.deadline_ms, now_ms)));
    }
    return kExitOk;
}

Json new_json(const Context& context, std::string_view key, const dedup::New& fresh) {
    Json object = context.outcome("new", key);
    object["claim_sequence"] = fresh.claim_sequence;
    add_previous(object, fresh.previous);
    return object;
}

Json completed_json(const Context& context, std::string_view key, const dedup::Completed& completed,
                    std::string_view outcome) {
    Json object = context.outcome(outcome, key);
    object["claim_sequence"] = completed.claim_sequence;
    object["attempt"] = completed.attempt;
    object["completed_at_ms"] = completed.completed_at_ms;
    object["expires_at_ms"] = time_or_null(completed.expires_at_ms);
    if (!completed.event_id.empty()) {
        add_bytes(object, "event_id", completed.event_id);
    }
    add_bytes(object, "receipt", completed.receipt);
    if (!completed.metadata.empty()) {
        add_bytes(object, "metadata", completed.metadata);
    }
    return object;
}

int print_completed(Context& context, std::string_view key, const dedup::Completed& completed,
                    std::string_view outcome, std::int64_t now_ms) {
    if (context.json) {
        context.out.json(completed_json(context, key, completed, outcome));
        return kExitCompleted;
    }
    context.out.write(completed.receipt);
    context.out.flush();
    if (::isatty(STDOUT_FILENO) == 1 && !completed.receipt.ends_with('\n')) {
        // Not a part of the receipt, so not on standard output, where nobody could tell.
        static_cast<void>(write_all(STDERR_FILENO, "\n"));
    }
    if (!context.quiet) {
        note(fmt::format("{}completed {}, receipt {}", outcome == "duplicate" ? "duplicate, " : "",
                         format_time_and_age(completed.completed_at_ms, now_ms),
                         human_bytes(completed.receipt.size())));
    }
    return kExitCompleted;
}

Json in_flight_json(const Context& context, std::string_view key,
                    const dedup::InFlight& in_flight) {
    Json object = context.outcome("in_flight", key);
    object["claim_sequence"] = in_flight.claim_sequence;
    object["attempt"] = in_flight.attempt;
    add_bytes(object, "owner", in_flight.owner);
    object["since_ms"] = in_flight.since_ms;
    object["lease_until_ms"] = time_or_null(in_flight.lease_until_ms);
    object["expires_at_ms"] = time_or_null(in_flight.expires_at_ms);
    const std::string noted = note_of(key, in_flight.metadata);
    if (!noted.empty()) {
        add_bytes(object, "note", noted);
    }
    object["held"] = in_flight.held;
    return object;
}

int print_in_flight(Context& context, std::string_view key, const dedup::InFlight& in_flight,
                    std::int64_t now_ms, Explain explain) {
    if (context.json) {
        context.out.json(in_flight_json(context, key, in_flight));
        return kExitInFlight;
    }
    const std::string owner = in_flight.owner.empty() ? "" : "  owner=" + escape(in_flight.owner);
    explain_text(
        context,
        fmt::format("in-flight  claim_sequence={}  attempt={}{}  since {}  {}",
                    in_flight.claim_sequence, in_flight.attempt, owner,
                    format_time_and_age(in_flight.since_ms, now_ms), holds_text(in_flight, now_ms)),
        explain);
    return kExitInFlight;
}

Json held_json(const Context& context, std::string_view key, const dedup::Held& held) {
    Json object = context.outcome("held", key);
    object["claim_sequence"] = held.previous.claim_sequence;
    object["previous"] = previous_json(held.previous);
    return object;
}

int print_held(Context& context, std::string_view key, const dedup::Held& held, std::int64_t now_ms,
               Explain explain) {
    if (context.json) {
        context.out.json(held_json(context, key, held));
        return kExitHeld;
    }
    explain_text(context, "held  " + previous_text(held.previous, now_ms), explain);
    if (!context.quiet) {
        const auto answers = context.answers_to(context.ns, key, held.previous.claim_sequence);
        note("nobody works on it before somebody says whether it was done, and why\n  done:     " +
             answers.done + "\n  not done: " + answers.not_done);
    }
    return kExitHeld;
}

Json mismatch_json(const Context& context, std::string_view key, const dedup::Mismatch& mismatch) {
    Json object = context.outcome("mismatch", key);
    object["state"] = mismatch.state == dedup::State::completed ? "completed" : "in_flight";
    add_bytes(object, "fingerprint", mismatch.fingerprint);
    object["since_ms"] = mismatch.since_ms;
    object["conflicts"] = mismatch.conflicts;
    return object;
}

int print_mismatch(Context& context, std::string_view key, const dedup::Mismatch& mismatch,
                   std::int64_t now_ms, Explain explain) {
    if (context.json) {
        context.out.json(mismatch_json(context, key, mismatch));
        return kExitMismatch;
    }
    const bool completed = mismatch.state == dedup::State::completed;
    explain_text(context,
                 fmt::format("mismatch  the key is {} with fingerprint {}, since {}; {} {}",
                             dedup::name(mismatch.state), escape(mismatch.fingerprint),
                             format_time_and_age(mismatch.since_ms, now_ms),
                             count_of(mismatch.conflicts, "such request"),
                             completed ? "came before that" : "so far"),
                 explain);
    return kExitMismatch;
}

KeyAnswer key_answer(const Context& context, std::string_view key,
                     const dedup::ClaimOutcome& outcome) {
    if (const auto* claimed = std::get_if<dedup::Claimed>(&outcome)) {
        return {"claimed", claimed->claim.claim_sequence,
                claimed_json(context, claimed->claim, claimed->previous)};
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&outcome)) {
        return {"completed", completed->claim_sequence,
                completed_json(context, key, *completed, "completed")};
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&outcome)) {
        return {"in-flight", in_flight->claim_sequence, in_flight_json(context, key, *in_flight)};
    }
    if (const auto* held = std::get_if<dedup::Held>(&outcome)) {
        return {"held", held->previous.claim_sequence, held_json(context, key, *held)};
    }
    return {"mismatch", 0, mismatch_json(context, key, std::get<dedup::Mismatch>(outcome))};
}

KeyAnswer key_answer(const Context& context, std::string_view key,
                     const dedup::LookupOutcome& outcome) {
    if (std::holds_alternative<dedup::Absent>(outcome)) {
        return {"absent", 0, context.outcome("absent", key)};
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&outcome)) {
        return key_answer(context, key, dedup::ClaimOutcome(*completed));
    }
    return key_answer(context, key, dedup::ClaimOutcome(std::get<dedup::InFlight>(outcome)));
}

KeyAnswer key_answer(const Context& context, std::string_view key,
                     const dedup::RememberOutcome& outcome) {
    if (const auto* fresh = std::get_if<dedup::New>(&outcome)) {
        return {"new", fresh->claim_sequence, new_json(context, key, *fresh)};
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&outcome)) {
        return {"duplicate", completed->claim_sequence,
                completed_json(context, key, *completed, "duplicate")};
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&outcome)) {
        return key_answer(context, key, dedup::ClaimOutcome(*in_flight));
    }
    if (const auto* held = std::get_if<dedup::Held>(&outcome)) {
        return key_answer(context, key, dedup::ClaimOutcome(*held));
    }
    return key_answer(context, key, dedup::ClaimOutcome(std::get<dedup::Mismatch>(outcome)));
}

namespace {

Failure held_failure(const Context& context, std::string_view key, const dedup::InFlight& held) {
    const auto answers = context.answers_to(context.ns, key, held.claim_sequence);
    return {
        .exit_code = kExitStale,
        .code = std::string(dedup::name(dedup::Code::stale_claim)),
        .message = fmt::format(
            "key \"{}\" is held: nobody has answered claim {} by {}, and somebody has to decide; "
            "resolve it, or answer with --claim\n  done:     {}\n  not done: {}",
            escape(key), held.claim_sequence, held.owner.empty() ? "somebody" : escape(held.owner),
            answers.done, answers.not_done)};
}

}  // namespace

void refuse_held(const Context& context, std::string_view key, const dedup::LookupOutcome& found) {
    const auto* in_flight = found.in_flight();
    if (in_flight != nullptr && in_flight->held) {
        throw held_failure(context, key, *in_flight);
    }
}

KeyAnswer held_answer(const Context& context, std::string_view key, const dedup::InFlight& held) {
    const Failure failure = held_failure(context, key, held);
    return {"held", held.claim_sequence, in_flight_json(context, key, held), failure.exit_code,
            failure.message};
}

void note_whose_claim(const Context& context, std::string_view verb,
                      const dedup::LookupOutcome& held) {
    const auto* claim = std::get_if<dedup::InFlight>(&held);
    if (claim == nullptr || claim->attempt == 1 || context.quiet) {
        return;
    }
    note(
        fmt::format("{} claim {}, attempt {}, of {}; if another was meant: --claim N answers for "
                    "that one only",
                    verb, claim->claim_sequence, claim->attempt,
                    claim->owner.empty() ? "somebody" : escape(claim->owner)));
}

}  // namespace dedupctl
