// One run of `exec`'s command under a claim, to its record in the store.
#pragma once

#include "context.hpp"
#include "exec_job.hpp"
#include "signal_pipe.hpp"

namespace dedupctl {

// Runs the command; then completes the key, releases it, or holds it if the command may have had
// its effect without ending well. Gives the exit code. Throws a Failure if the command ended well
// and its output could not be passed on.
[[nodiscard]] int run_claimed(Context& context, const ExecJob& job, const dedup::Claimed& claimed,
                              SignalPipe& signals);

}  // namespace dedupctl
