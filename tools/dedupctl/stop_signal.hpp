// SIGINT and SIGTERM, for commands that run until they are told to end.
#pragma once

#include <chrono>
#include <optional>
#include <stop_token>

#include "signal_pipe.hpp"

namespace dedupctl {

// The first signal asks for an end; one that comes a second or more after it ends the process at
// once. One at a time.
class StopSignal {
  public:
    // Whether a signal has come. Cheap enough to be asked at each step.
    bool requested();

    // Waits for `pause`; true if a signal came meanwhile.
    bool requested_within(std::chrono::milliseconds pause);

    // Waits until there is something to read, or an end, at `fd`; true if a signal came first.
    bool requested_before(int fd);

    [[nodiscard]] std::stop_token token() const { return source_.get_token(); }
    [[nodiscard]] std::optional<int> signal() const { return signal_; }

  private:
    SignalPipe pipe_{{SIGINT, SIGTERM}, SecondSignal::exits};
    std::stop_source source_;
    std::optional<int> signal_;
};

}  // namespace dedupctl
