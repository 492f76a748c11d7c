// What `exec` was asked to do.
#pragma once

#include <string>

#include "child.hpp"
#include "common/failure.hpp"
#include "common/time_text.hpp"
#include "dedup/cache.hpp"

namespace dedupctl {

struct ExecJob {
    std::string key;
    milliseconds lease{0};
    milliseconds wait{0};  // for a command that runs elsewhere
    std::string on_duplicate;
    int in_flight_exit = kExitInFlight;
    bool stores_output = true;
    dedup::ClaimOptions claim;
    ChildOptions child;
};

}  // namespace dedupctl
