// Reports of sweeps as text, so that one comparison covers all of their fields and a failed one
// shows where they differ.
#pragma once

#include <string>

#include "dedup/sweep.hpp"

namespace dedup::test {

inline std::string show(const StateCounts& counts) {
    return std::to_string(counts.in_flight) + " in flight " + std::to_string(counts.completed) +
           " completed " + std::to_string(counts.released) + " released";
}

// What left a store and what is still there: the part that is equal for equal histories.
inline std::string show(const SweepReport& report) {
    std::string text = "at " + std::to_string(report.now_ms) + "\nremoved " + show(report.removed) +
                       ", evicted " + std::to_string(report.evicted) + "\nretained " +
                       show(report.retained) + ", next expiry " +
                       (report.next_expiry_ms ? std::to_string(*report.next_expiry_ms) : "never");
    for (const SweptNamespace& row : report.namespaces) {
        text += "\nnamespace " + row.ns + " removed " + show(row.removed) + " retained " +
                show(row.retained);
    }
    for (const UnansweredClaim& claim : report.unanswered) {
        text += "\nunanswered " + claim.ns + " " + claim.key + " owner " + claim.owner + " fence " +
                std::to_string(claim.claim_sequence) + " claimed " +
                std::to_string(claim.claimed_at_ms) + " expired " +
                std::to_string(claim.expired_at_ms) + " attempt " + std::to_string(claim.attempt) +
                " event " + claim.event_id + " note " + claim.note;
    }
    return text + "\n";
}

}  // namespace dedup::test
