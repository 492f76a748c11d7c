// What a claim's holder has noted, and which records of a key's history are notes. A claim may
// begin with what the one before it had noted, so a note that stands is not always its holder's
// own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/store.hpp"

namespace dedupctl {

// The record's metadata; of a reservation the note in it, without the times that stand beside it.
[[nodiscard]] std::string note_of(const dedup::Record& record);

// Throws a usage Failure if `found` is a reservation: what `dedupctl` would write into its record
// is nothing that a program which reserves could read. `instead` is the call for it.
void refuse_reservation(std::string_view key, const dedup::LookupOutcome& found,
                        std::string_view instead);

// Whether `record` is a claim with another note than `before`, the record before it; or with the
// same one once more, which changes nothing at all.
[[nodiscard]] bool is_note(const dedup::Record& record, const dedup::Record& before);

// Whether the holder of the claim may have written a note. `history` is the key's, oldest first. If
// records of the claim are missing, as sweeps drop them and databases keep none, any note that
// stands counts as its holder's. False if the key is another claim's by now.
[[nodiscard]] bool may_have_noted(const std::vector<dedup::Version>& history,
                                  std::uint64_t claim_sequence);

}  // namespace dedupctl
