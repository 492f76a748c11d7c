#include "outcome.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "common/text.hpp"

namespace dedupctl {
namespace {

std::string deadline_text(std::int64_t deadline_ms, std::int64_t now_ms) {
    return deadline_ms == 0 ? "no deadline"
                            : "deadline " + format_time_and_age(deadline_ms, now_ms);
}

// Until when a claim that somebody holds is honoured.
std::string holds_text(const dedup::InFlight& in_flight, std::int64_t now_ms) {
    if (in_flight.lease_until_ms != 0) {
        const char* verb = in_flight.lease_until_ms < now_ms ? "lease ran out" : "lease until";
        return fmt::format("{} {}", verb, format_time_and_age(in_flight.lease_until_ms, now_ms));
    }
    if (in_flight.expires_at_ms != 0) {
        return "no lease, expires " + format_time_and_age(in_flight.expires_at_ms, now_ms);
    }
    return "no lease, never expires";
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

Json claimed_json(const Context& context, const dedup::Claim& claim) {
    Json object = context.outcome("claimed", claim.key);
    object["claim_sequence"] = claim.claim_sequence;
    object["attempt"] = claim.attempt;
    object["deadline_ms"] = time_or_null(claim.deadline_ms);
    return object;
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

Json completed_json(const Context& context, std::string_view key, const dedup::Completed& completed,
                    std::string_view outcome) {
    Json object = context.outcome(outcome, key);
    object["claim_sequence"] = completed.claim_sequence;
    object["completed_at_ms"] = completed.completed_at_ms;
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
        return {"claimed", claimed->claim.claim_sequence, claimed_json(context, claimed->claim)};
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&outcome)) {
        return {"completed", completed->claim_sequence,
                completed_json(context, key, *completed, "completed")};
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&outcome)) {
        return {"in-flight", in_flight->claim_sequence, in_flight_json(context, key, *in_flight)};
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
        Json object = context.outcome("new", key);
        object["claim_sequence"] = fresh->claim_sequence;
        return {"new", fresh->claim_sequence, std::move(object)};
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&outcome)) {
        return {"duplicate", completed->claim_sequence,
                completed_json(context, key, *completed, "duplicate")};
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&outcome)) {
        return key_answer(context, key, dedup::ClaimOutcome(*in_flight));
    }
    return key_answer(context, key, dedup::ClaimOutcome(std::get<dedup::Mismatch>(outcome)));
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
