#include "claim_notes.hpp"

#include <fmt/format.h>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "dedup/reservations.hpp"

namespace dedupctl {

std::string note_of(std::string_view key, const std::string& metadata) {
    return dedup::reservation_note(key, metadata).value_or(metadata);
}

std::string note_of(const dedup::Record& record) {
    return note_of(record.key, record.metadata);
}

std::string reservation_refusal(std::string_view key, const dedup::LookupOutcome& found,
                                std::string_view instead) {
    const auto* in_flight = found.in_flight();
    if (in_flight == nullptr || !dedup::reservation_note(key, in_flight->metadata)) {
        return {};
    }
    return fmt::format(
        "key \"{}\" is a reservation, whose program could not read that; it calls {} instead",
        escape(key), instead);
}

void refuse_reservation(std::string_view key, const dedup::LookupOutcome& found,
                        std::string_view instead) {
    if (std::string refusal = reservation_refusal(key, found, instead); !refusal.empty()) {
        throw usage_failure(std::move(refusal));
    }
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

}  // namespace dedupctl
