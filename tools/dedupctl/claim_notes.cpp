#include "claim_notes.hpp"

#include "dedup/reservations.hpp"

namespace dedupctl {

std::string note_of(const dedup::Record& record) {
    return dedup::reservation_note(record.key, record.metadata).value_or(record.metadata);
}

bool is_note(const dedup::Record& record, const dedup::Record& before) {
    const std::string text = note_of(record);
    if (record.state() != dedup::State::in_flight || text.empty()) {
        return false;
    }
    if (text != note_of(before)) {
        return true;
    }
    dedup::Record repeated = before;
    repeated.sequence = record.sequence;
    return record == repeated;
}

bool may_have_noted(const std::vector<dedup::Version>& history, std::uint64_t claim_sequence) {
    if (history.empty() || history.back().record.claim_sequence != claim_sequence ||
        history.back().record.metadata.empty()) {
        return false;
    }
    const dedup::Record* before = nullptr;  // of the same claim
    bool is_whole = false;
    for (const dedup::Version& version : history) {
        const dedup::Record& record = version.record;
        if (record.claim_sequence != claim_sequence) {
            continue;
        }
        if (before == nullptr) {
            is_whole = record.sequence == claim_sequence;
        } else if (is_note(record, *before)) {
            return true;
        }
        before = &record;
    }
    return !is_whole;
}

}  // namespace dedupctl
