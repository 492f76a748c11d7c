// Sequences that were assigned in a part of a log which is lost.
#pragma once

#include "engine/log_writer.hpp"
#include "env/env.hpp"

namespace dedup {

// Goes on, durably, above all sequences that may have been assigned behind the last one that is
// known: after a copy was made, or in segments that are gone. Errors: those of a write.
[[nodiscard]] Result<void> pass_lost_sequences(LogWriter& writer, const Turn& turn, Env& env);

}  // namespace dedup
