// The log of `dedupctl serve`: one line an event on standard error.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "dedup/server.hpp"
#include "dedup/sweeper.hpp"

namespace dedupctl {

// Lines are `name=value` pairs, or JSON. A thread of its own writes them, so that a reader who does
// not read holds up nobody: lines that find no room are lost, and the next one that finds some says
// how many. Any thread may write.
class EventLog {
  public:
    // `connections`: with the begin and end of each.
    EventLog(bool json, bool connections);
    // Writes what is there, but waits for its reader no longer than a second.
    ~EventLog();
    EventLog(const EventLog&) = delete;
    EventLog& operator=(const EventLog&) = delete;

    void write(std::string_view event, std::uint64_t connection, std::string_view detail) const;
    void write(const dedup::ServerEvent& event) const;
    void write(const dedup::Result<dedup::SweepReport>& swept) const;

  private:
    struct Lines;

    const bool json_;
    const bool connections_;
    const std::shared_ptr<Lines> lines_;  // a thread that is stuck in a write outlives the log
    std::thread thread_;
};

}  // namespace dedupctl
