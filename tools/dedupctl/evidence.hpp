// What people and workers have said in the course of a key's history.
#pragma once

#include <vector>

#include "context.hpp"
#include "record_text.hpp"

namespace dedupctl {

// Each note, hold, resolution and forgetting in `history`, oldest first: who, what, when and why,
// in at most 80 columns. Nothing if there is none.
void print_evidence(Context& context, const std::vector<dedup::Version>& history,
                    const Moment& moment);

}  // namespace dedupctl
