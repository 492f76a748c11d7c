#include "server/append_rights.hpp"

namespace dedup::server {
namespace {

// Whether the record is the same claim's: as the operations on one leave it. All else may change
// with its state.
bool is_same_claim(const Record& record, const Record& head) {
    return record.claim_sequence == head.claim_sequence && record.attempt == head.attempt &&
           record.owner == head.owner && record.event_id == head.event_id &&
           record.unknown_fields == head.unknown_fields;
}

// A renewal, note, hold, or a request that did not match; a completion; a release.
bool goes_on(const Record& record, const Record& head) {
    if (!is_same_claim(record, head)) {
        return false;
    }
    return record.kind == Kind::tombstone ||
           (record.fingerprint == head.fingerprint &&
            (record.receipt || record.timestamp_ms == head.timestamp_ms));
}

// A completion of which only the metadata changes.
bool is_noted(Record record, const Record& head) {
    record.metadata = head.metadata;
    record.sequence = head.sequence;
    return record == head;
}

}  // namespace

unsigned rights_for(const Record& record) {
    const bool own_verdict =
        record.verdict.kind == Verdict::Kind::none ||
        (record.verdict.kind == Verdict::Kind::held && record.verdict.by == record.owner);
    const bool is_new = record.claim_sequence == 0;
    unsigned rights = own_verdict ? 0U : unsigned{kMayAdmin};
    if (record.state() == State::completed) {
        rights |= kMayComplete;
    }
    if (record.state() != State::completed || is_new) {
        rights |= kMayClaim;
    }
    return rights;
}

unsigned rights_for(const Record& record, const std::optional<Record>& head, std::int64_t now_ms,
                    std::chrono::milliseconds grace) {
    const unsigned rights = rights_for(record);
    const bool is_new = record.claim_sequence == 0 && record.unknown_fields.empty();
    const State state = head ? head->state() : State::released;
    if (state == State::in_flight) {
        // A new claim can also be had by giving up whatever claim there is.
        return is_new || goes_on(record, *head) ? rights : rights | kMayAdmin;
    }
    const bool completed =
        state == State::completed && !expired(head->expires_at_ms, now_ms, grace);
    if (completed) {
        return is_noted(record, *head) ? rights : rights | kMayAdmin;
    }
    return is_new ? rights : rights | kMayAdmin;
}

}  // namespace dedup::server
