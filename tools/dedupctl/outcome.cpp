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

int print_claimed(Context& context, const dedup::Claim& claim, std::int64_t now_ms) {
    if (context.json) {
        Json object = context.outcome("claimed", claim.key);
        object["claim_sequence"] = claim.claim_sequence;
        object["attempt"] = claim.attempt;
        object["deadline_ms"] = time_or_null(claim.deadline_ms);
        context.out.json(object);
    } else {
        context.out.line(fmt::format("claimed  claim_sequence={}  attempt={}  {}",
                                     claim.claim_sequence, claim.attempt,
                                     deadline_text(claim.deadline_ms, now_ms)));
    }
    return kExitOk;
}

int print_completed(Context& context, std::string_view key, const dedup::Completed& completed,
                    std::string_view outcome, std::int64_t now_ms) {
    if (context.json) {
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
        context.out.json(object);
    } else {
        context.out.write(completed.receipt);
        context.out.flush();
        if (::isatty(STDOUT_FILENO) == 1 && !completed.receipt.ends_with('\n')) {
            // Not a part of the receipt, so not on standard output, where nobody could tell.
            static_cast<void>(write_all(STDERR_FILENO, "\n"));
        }
        note(fmt::format("{}completed {}, receipt {}", outcome == "duplicate" ? "duplicate, " : "",
                         format_time_and_age(completed.completed_at_ms, now_ms),
                         human_bytes(completed.receipt.size())));
    }
    return kExitCompleted;
}

int print_in_flight(Context& context, std::string_view key, const dedup::InFlight& in_flight,
                    std::int64_t now_ms) {
    if (context.json) {
        Json object = context.outcome("in_flight", key);
        object["claim_sequence"] = in_flight.claim_sequence;
        object["attempt"] = in_flight.attempt;
        add_bytes(object, "owner", in_flight.owner);
        object["since_ms"] = in_flight.since_ms;
        object["lease_until_ms"] = time_or_null(in_flight.lease_until_ms);
        object["expires_at_ms"] = time_or_null(in_flight.expires_at_ms);
        context.out.json(object);
    } else {
        const std::string owner =
            in_flight.owner.empty() ? "" : "  owner=" + escape(in_flight.owner);
        context.out.line(fmt::format("in flight  claim_sequence={}  attempt={}{}  since {}  {}",
                                     in_flight.claim_sequence, in_flight.attempt, owner,
                                     format_time_and_age(in_flight.since_ms, now_ms),
                                     holds_text(in_flight, now_ms)));
    }
    return kExitInFlight;
}

int print_mismatch(Context& context, std::string_view key, const dedup::Mismatch& mismatch,
                   std::int64_t now_ms) {
    const bool completed = mismatch.state == dedup::State::completed;
    if (context.json) {
        Json object = context.outcome("mismatch", key);
        object["state"] = completed ? "completed" : "in_flight";
        add_bytes(object, "fingerprint", mismatch.fingerprint);
        object["since_ms"] = mismatch.since_ms;
        object["conflicts"] = mismatch.conflicts;
        context.out.json(object);
    } else {
        context.out.line(fmt::format(
            "mismatch  the key is {} with fingerprint {}, since {}; {} such request{} {}",
            completed ? "completed" : "in flight", escape(mismatch.fingerprint),
            format_time_and_age(mismatch.since_ms, now_ms), mismatch.conflicts,
            mismatch.conflicts == 1 ? "" : "s", completed ? "came before that" : "so far"));
    }
    return kExitMismatch;
}

void note_whose_claim(std::string_view verb, const dedup::LookupOutcome& held) {
    const auto* claim = std::get_if<dedup::InFlight>(&held);
    if (claim == nullptr || claim->attempt == 1) {
        return;
    }
    note(
        fmt::format("{} claim {}, attempt {}, of {}; if another was meant: --claim N answers for "
                    "that one only",
                    verb, claim->claim_sequence, claim->attempt,
                    claim->owner.empty() ? "somebody" : escape(claim->owner)));
}

int print_absent(Context& context, std::string_view key) {
    if (context.json) {
        context.out.json(context.outcome("absent", key));
    } else {
        context.out.line("absent");
    }
    return kExitAbsent;
}

}  // namespace dedupctl
