#include "record_text.hpp"

#include <algorithm>

#include "common/text.hpp"
#include "common/time_text.hpp"

namespace dedupctl {
namespace {

std::string in_flight_sentence(const dedup::Record& record, const Moment& moment) {
    if (moment.held(record)) {
        return "held since " + format_age(record.lease_until_ms, moment.now_ms) +
               ": nobody gets it until somebody resolves it";
    }
    if (record.lease_until_ms != 0 && record.lease_until_ms < moment.now_ms) {
        return "in-flight, lease ran out " + format_age(record.lease_until_ms, moment.now_ms) +
               ": the next claim takes it over";
    }
    if (record.lease_until_ms != 0) {
        return "in-flight, lease runs out " + format_age(record.lease_until_ms, moment.now_ms);
    }
    if (record.expires_at_ms != 0) {
        return "in-flight without a lease, expires " +
               format_age(record.expires_at_ms, moment.now_ms);
    }
    return "in-flight without a lease, never expires";
}

}  // namespace

std::string verdict_text(const dedup::Verdict& verdict, std::size_t columns_max) {
    if (verdict.kind == dedup::Verdict::Kind::none) {
        return {};
    }
    std::string text(dedup::name(verdict.kind));
    text += verdict.by.empty() ? "" : " by " + preview(verdict.by, columns_max);
    text += verdict.reason.empty() ? "" : ": " + preview(verdict.reason, columns_max);
    return text;
}

std::string state_word(const dedup::Record& record, const Moment& moment) {
    if (moment.held(record)) {
        return "held";
    }
    return moment.expired(record) ? "expired" : std::string(dedup::name(record.state()));
}

std::string json_state(std::string state) {
    std::replace(state.begin(), state.end(), '-', '_');
    return state;
}

std::string state_sentence(const dedup::Record& record, const Moment& moment) {
    const std::string expiry = record.expires_at_ms == 0
                                   ? "never expires"
                                   : "expires " + format_age(record.expires_at_ms, moment.now_ms);
    if (moment.expired(record)) {
        return "expired " + format_age(record.expires_at_ms, moment.now_ms) + ", was " +
               std::string(dedup::name(record.state())) + ": the next claim gets it";
    }
    switch (record.state()) {
        case dedup::State::in_flight:
            return in_flight_sentence(record, moment);
        case dedup::State::completed:
            return "completed " + format_age(record.timestamp_ms, moment.now_ms) + ", " + expiry;
        case dedup::State::released:
            break;
    }
    return "released " + format_age(record.timestamp_ms, moment.now_ms) +
           ": the next claim gets it";
}

Json verdict_json(const dedup::Verdict& verdict) {
    Json object{{"kind", dedup::name(verdict.kind)}};
    add_bytes(object, "by", verdict.by);
    add_bytes(object, "reason", verdict.reason);
    return object;
}

Json version_json(const dedup::Version& version) {
    const dedup::Record& record = version.record;
    Json object;
    object["sequence"] = record.sequence;
    object["kind"] = record.kind == dedup::Kind::active ? "active" : "tombstone";
    object["state"] = json_state(std::string(dedup::name(record.state())));
    object["claim_sequence"] = record.claim_sequence;
    object["timestamp_ms"] = record.timestamp_ms;
    object["expires_at_ms"] = time_or_null(record.expires_at_ms);
    object["lease_until_ms"] = time_or_null(record.lease_until_ms);
    object["attempt"] = record.attempt;
    add_bytes(object, "owner", record.owner);
    add_bytes(object, "fingerprint", record.fingerprint);
    add_bytes(object, "event_id", record.event_id);
    if (record.receipt) {
        add_bytes(object, "receipt", *record.receipt);
    }
    add_bytes(object, "metadata", record.metadata);
    if (record.hold) {
        object["hold"] = true;
    }
    if (record.began_ms != 0) {
        object["began_ms"] = record.began_ms;
    }
    if (record.verdict != dedup::Verdict{}) {
        object["verdict"] = verdict_json(record.verdict);
    }
    object["conflicts"] = record.conflict.count;
    object["segment"] = version.segment;
    object["offset"] = version.offset;
    object["bytes"] = version.bytes;
    return object;
}

}  // namespace dedupctl
