// What a reservation's record carries beyond a claim's: the outcome in its receipt, and in its
// metadata when the key was first and last seen, beside its holder's note. Both are lists of
// netstrings that begin with a version.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/reservations.hpp"

namespace dedup {

struct Stamps {
    std::int64_t first_seen_ms = 0;
    std::int64_t last_seen_ms = 0;
    std::string note = {};
};

// Without a note in the version that all libraries know.
[[nodiscard]] std::string encode_stamps(const Stamps& stamps);
[[nodiscard]] std::string encode_outcome(const Outcome& outcome);

// Errors: corruption, unsupported_version.
[[nodiscard]] Result<Stamps> decode_stamps(const Record& record);
// Precondition: the record has a receipt.
[[nodiscard]] Result<Outcome> decode_outcome(const Record& record);
[[nodiscard]] Result<KnownReservation> known_from(const Record& record, std::int64_t now_ms);

}  // namespace dedup
