// Signals as events on a file descriptor that poll can wait for.
#pragma once

#include <csignal>
#include <optional>
#include <vector>

namespace dedupctl {

struct Signal {
    int number = 0;
    bool from_kernel = false;  // the terminal sent it, and to the whole process group
};

enum class SecondSignal {
    queued,  // like the first
    // A second or more after the first one: at once with 128 + its number, for when that is not
    // obeyed fast enough.
    exits,
};

// While one lives, the given signals arrive here instead of ending the process. Signals that are
// ignored when it is made stay ignored (nohup). One at a time.
class SignalPipe {
  public:
    SignalPipe(const std::vector<int>& signals, SecondSignal second);
    SignalPipe(const SignalPipe&) = delete;
    SignalPipe& operator=(const SignalPipe&) = delete;
    ~SignalPipe();

    [[nodiscard]] int fd() const { return read_fd_; }

    // The next signal that has arrived; does not block.
    [[nodiscard]] std::optional<Signal> take();

  private:
    struct Saved {
        int number;
        struct sigaction action;
    };

    int read_fd_ = -1;
    std::vector<Saved> saved_;
};

}  // namespace dedupctl
