// What a claim's holder has noted, and which records of a key's history are notes. A claim may
// begin with what the one before it had noted, so a note that stands is not always its holder's
// own.
#pragma once

#include <string>
#include <string_view>

#include "dedup/cache.hpp"
#include "dedup/store.hpp"

namespace dedupctl {

// A record's metadata; of a reservation the note in it, without the times that stand beside it.
[[nodiscard]] std::string note_of(std::string_view key, const std::string& metadata);
[[nodiscard]] std::string note_of(const dedup::Record& record);

// Why `dedupctl` writes nothing into the record of a reservation: the program that reserves could
// not read it. `instead` is the call for it. Empty if `found` is none.
[[nodiscard]] std::string reservation_refusal(std::string_view key,
                                              const dedup::LookupOutcome& found,
                                              std::string_view instead);

// Throws that as a usage Failure.
void refuse_reservation(std::string_view key, const dedup::LookupOutcome& found,
                        std::string_view instead);

// Whether `record` is a claim with another note than `before`, the record before it; or with the
// same one once more, which changes nothing at all.
[[nodiscard]] bool is_note(const dedup::Record& record, const dedup::Record& before);

}  // namespace dedupctl
