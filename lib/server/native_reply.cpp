#include "server/native_reply.hpp"

#include <string>

namespace dedup::server {
namespace {

std::string_view state_word(State state) {
    return state == State::in_flight ? "in_flight" : name(state);
}

}  // namespace

MapWriter outcome_map(Protocol protocol, std::string_view outcome, std::string_view ns,
                      std::string_view key) {
    MapWriter map(protocol);
    map.text("outcome", outcome);
    map.text("namespace", ns);
    map.text("key", key);
    return map;
}

MapWriter claimed_map(Protocol protocol, const Claim& claim, std::string_view outcome) {
    MapWriter map = outcome_map(protocol, outcome, claim.ns, claim.key);
    map.number("claim_sequence", claim.claim_sequence);
    map.number("attempt", claim.attempt);
    map.time_or_null("deadline_ms", claim.deadline_ms);
    return map;
}

MapWriter previous_map(Protocol protocol, const Previous& previous) {
    MapWriter map(protocol);
    map.number("claim_sequence", previous.claim_sequence);
    map.number("attempt", previous.attempt);
    map.text("owner", previous.owner);
    map.text("event_id", previous.event_id);
    map.time_or_null("began_ms", previous.began_ms);
    map.time_or_null("ended_ms", previous.ended_ms);
    map.text("end", name(previous.end));
    map.text("note", previous.note);
    map.text("reason", previous.reason);
    map.text("by", previous.by);
    return map;
}

MapWriter in_flight_map(Protocol protocol, std::string_view ns, std::string_view key,
                        const InFlight& held) {
    MapWriter map = outcome_map(protocol, "in_flight", ns, key);
    map.number("claim_sequence", held.claim_sequence);
    map.number("attempt", held.attempt);
    map.text("owner", held.owner);
    map.number("since_ms", held.since_ms);
    map.time_or_null("lease_until_ms", held.lease_until_ms);
    map.time_or_null("expires_at_ms", held.expires_at_ms);
    if (!held.metadata.empty()) {
        map.text("note", held.metadata);
    }
    map.number("held", held.held);
    return map;
}

MapWriter completed_map(Protocol protocol, std::string_view ns, std::string_view key,
                        const Completed& completed, std::string_view outcome) {
    MapWriter map = outcome_map(protocol, outcome, ns, key);
    map.number("claim_sequence", completed.claim_sequence);
    map.number("attempt", completed.attempt);
    map.number("completed_at_ms", completed.completed_at_ms);
    map.time_or_null("expires_at_ms", completed.expires_at_ms);
    if (!completed.event_id.empty()) {
        map.text("event_id", completed.event_id);
    }
    map.text("receipt", completed.receipt);
    if (!completed.metadata.empty()) {
        map.text("metadata", completed.metadata);
    }
    return map;
}

MapWriter held_map(Protocol protocol, std::string_view ns, std::string_view key, const Held& held) {
    MapWriter map = outcome_map(protocol, "held", ns, key);
    map.number("claim_sequence", held.previous.claim_sequence);
    map.map("previous", previous_map(protocol, held.previous));
    return map;
}

MapWriter mismatch_map(Protocol protocol, std::string_view ns, std::string_view key,
                       const Mismatch& mismatch) {
    MapWriter map = outcome_map(protocol, "mismatch", ns, key);
    map.text("state", state_word(mismatch.state));
    map.text("fingerprint", mismatch.fingerprint);
    map.number("since_ms", mismatch.since_ms);
    map.number("conflicts", mismatch.conflicts);
    return map;
}

void add_version(MapWriter& map, const Version& version) {
    const Record& record = version.record;
    map.number("sequence", record.sequence);
    map.text("kind", record.kind == Kind::active ? "active" : "tombstone");
    map.text("state", state_word(record.state()));
    map.number("claim_sequence", record.claim_sequence);
    map.number("timestamp_ms", record.timestamp_ms);
    map.time_or_null("expires_at_ms", record.expires_at_ms);
    map.time_or_null("lease_until_ms", record.lease_until_ms);
    map.number("attempt", record.attempt);
    map.text("owner", record.owner);
    map.text("fingerprint", record.fingerprint);
    map.text("event_id", record.event_id);
    if (record.receipt) {
        map.text("receipt", *record.receipt);
    }
    map.text("metadata", record.metadata);
    if (record.hold) {
        map.number("hold", record.hold);
    }
    if (record.began_ms != 0) {
        map.number("began_ms", record.began_ms);
    }
    if (record.verdict != Verdict{}) {
        MapWriter verdict(map.protocol());
        verdict.text("kind", name(record.verdict.kind));
        verdict.text("by", record.verdict.by);
        verdict.text("reason", record.verdict.reason);
        map.map("verdict", verdict);
    }
    map.number("conflicts", record.conflict.count);
    map.number("segment", version.segment);
    map.number("offset", version.offset);
    map.number("bytes", version.bytes);
}

}  // namespace dedup::server
