// How long commands have taken, by their name.
#pragma once

#include <chrono>
#include <unordered_map>
#include <vector>

#include "dedup/server.hpp"
#include "metrics/counter.hpp"

namespace dedup::server {

struct CommandEntry;

// Any thread; all of it is there from the beginning.
class CommandTimes {
  public:
    CommandTimes();
    [[nodiscard]] CountedHistogram& of(const CommandEntry& entry) { return times_.at(&entry); }
    // Of those that there were, by name.
    [[nodiscard]] std::vector<CommandTime> snapshot() const;

  private:
    std::unordered_map<const CommandEntry*, CountedHistogram> times_;
};

// Of one command: from when the server had read it until its reply is there.
struct Timing {
    CountedHistogram* histogram = nullptr;  // null: it is not timed
    std::chrono::steady_clock::time_point since = {};
};

}  // namespace dedup::server
