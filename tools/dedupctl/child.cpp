#include "child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <optional>

#include "common/failure.hpp"
#include "common/file_descriptor.hpp"

namespace dedupctl {
namespace {

// A pipe that poll calls writable takes this much without blocking (PIPE_BUF).
constexpr std::size_t kWriteBytes = 4096;
constexpr std::size_t kReadBytes = 64 * 1024;
// No pipe holds more than this (/proc/sys/fs/pipe-max-size by default), so no more than this can
// be left in it by a command that has ended.
constexpr std::size_t kPipeBytesMax = 1024 * 1024;

using SteadyTime = std::chrono::steady_clock::time_point;

// How long a command that is told to end by --timeout has for it.
constexpr std::chrono::seconds kTimeToEnd{10};
// Two signals of the terminal within this long are meant for us, too.
constexpr std::chrono::seconds kImpatience{1};

bool ends_programs(int signal) {
    return signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT;
}

class SpawnSettings {
  public:
    SpawnSettings(int output_fd, bool ignore_sigpipe) {
        posix_spawn_file_actions_init(&actions_);
        posix_spawnattr_init(&attributes_);
        posix_spawn_file_actions_adddup2(&actions_, output_fd, STDOUT_FILENO);
        if (!ignore_sigpipe) {
            sigset_t defaults;
            sigemptyset(&defaults);
            sigaddset(&defaults, SIGPIPE);
            posix_spawnattr_setsigdefault(&attributes_, &defaults);
            posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGDEF);
        }
    }
    SpawnSettings(const SpawnSettings&) = delete;
    SpawnSettings& operator=(const SpawnSettings&) = delete;
    ~SpawnSettings() {
        posix_spawn_file_actions_destroy(&actions_);
        posix_spawnattr_destroy(&attributes_);
    }

    [[nodiscard]] const posix_spawn_file_actions_t* actions() const { return &actions_; }
    [[nodiscard]] const posix_spawnattr_t* attributes() const { return &attributes_; }

  private:
    posix_spawn_file_actions_t actions_{};
    posix_spawnattr_t attributes_{};
};

class Run {
  public:
    Run(const ChildOptions& options, SignalPipe& signals) : options_(options), signals_(signals) {}

    ChildEnd run() {
        if (!start()) {
            return std::move(end_);
        }
        while (!ended_ || !pending_.empty()) {
            wait_for_event();
            forward_signals();
            end_in_time();
            pass_on();
            if (!ended_) {
                reap();
                // After the command's end nothing of its output can follow what is in the pipe.
                take_output(ended_ ? kPipeBytesMax : kReadBytes);
            }
        }
        return std::move(end_);
    }

  private:
    bool start() {
        std::array<int, 2> ends{};
        if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
            throw system_failure("cannot make a pipe", errno);
        }
        output_ = FileDescriptor(ends[0]);
        const FileDescriptor child_end(ends[1]);
        ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);

        std::vector<char*> argv;
        for (const std::string& argument : options_.command) {
            argv.push_back(const_cast<char*>(argument.c_str()));  // execve's signature
        }
        argv.push_back(nullptr);
        std::vector<char*> environment;
        for (char** entry = environ; *entry != nullptr; ++entry) {
            if (!is_replaced(*entry)) {
                environment.push_back(*entry);
            }
        }
        for (const std::string& entry : options_.environment) {
            environment.push_back(const_cast<char*>(entry.c_str()));
        }
        environment.push_back(nullptr);
        if (options_.timeout.count() != 0) {
            end_at_ = std::chrono::steady_clock::now() + options_.timeout;
        }
        const SpawnSettings settings(child_end.get(), options_.ignore_sigpipe);
        end_.start_error = ::posix_spawnp(&pid_, argv[0], settings.actions(), settings.attributes(),
                                          argv.data(), environment.data());
        return end_.start_error == 0;
    }

    // Whether a variable of ours has the same name.
    [[nodiscard]] bool is_replaced(std::string_view entry) const {
        const std::string_view name = entry.substr(0, entry.find('=') + 1);
        return std::ranges::any_of(options_.environment,
                                   [&](const std::string& ours) { return ours.starts_with(name); });
    }

    void wait_for_event() {
        std::array<pollfd, 3> events{};
        events[0] = {.fd = signals_.fd(), .events = POLLIN, .revents = 0};
        // One thing at a time: a reader that is slower than the command slows the command down,
        // as it would without us.
        const bool reading = pending_.empty() && !ended_ && !output_ended_;
        events[1] = {.fd = reading ? output_.get() : -1, .events = POLLIN, .revents = 0};
        events[2] = {.fd = pending_.empty() ? -1 : STDOUT_FILENO, .events = POLLOUT, .revents = 0};
        while (::poll(events.data(), events.size(), wait_ms()) < 0 && errno == EINTR) {
        }
    }

    // Until the command is to be ended; -1: for ever.
    [[nodiscard]] int wait_ms() const {
        if (!end_at_ || ended_) {
            return -1;
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            *end_at_ - std::chrono::steady_clock::now());
        return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1'000'000));
    }

    // Once time is up: asks, and later makes it.
    void end_in_time() {
        if (!end_at_ || ended_ || std::chrono::steady_clock::now() < *end_at_) {
            return;
        }
        ::kill(pid_, end_.timed_out ? SIGKILL : SIGTERM);
        end_.timed_out = true;
        end_at_ = std::chrono::steady_clock::now() + kTimeToEnd;
    }

    void hear(const Signal& signal) {
        const SteadyTime now = std::chrono::steady_clock::now();
        const bool counts = ends_programs(signal.number);
        const bool second =
            counts && heard_ && (!signal.from_kernel || now - *heard_ < kImpatience);
        if (second) {
            end_.told_by = signal.number;
            ::kill(pid_, SIGKILL);
        } else if (!signal.from_kernel) {
            ::kill(pid_, signal.number);
        }
        if (counts) {
            heard_ = now;
        }
    }

    void forward_signals() {
        while (const auto signal = signals_.take()) {
            if (signal->number == SIGCHLD) {
                continue;
            }
            if (ended_) {
                // Only our own output is left, and nobody reads it.
                end_.pass_on_error = EINTR;
                pending_.clear();
            } else {
                hear(*signal);
            }
        }
    }

    void reap() {
        int status = 0;
        if (::waitpid(pid_, &status, WNOHANG) != pid_) {
            return;
        }
        ended_ = true;
        if (WIFSIGNALED(status)) {
            end_.signal = WTERMSIG(status);
        } else {
            end_.exit_status = WEXITSTATUS(status);
        }
    }

    void take_output(std::size_t bytes_max) {
        std::array<char, kReadBytes> buffer;
        std::size_t taken = 0;
        while (taken < bytes_max && (ended_ || pending_.empty())) {
            const ssize_t got = ::read(output_.get(), buffer.data(), buffer.size());
            if (got <= 0) {
                output_ended_ = got == 0;
                return;
            }
            const std::string_view bytes(buffer.data(), static_cast<std::size_t>(got));
            taken += bytes.size();
            end_.output_bytes += bytes.size();
            end_.output += bytes.substr(0, options_.output_bytes_max - end_.output.size());
            if (options_.pass_output_on && end_.pass_on_error == 0) {
                pending_ += bytes;
            }
        }
    }

    void pass_on() {
        if (pending_.empty()) {
            return;
        }
        pollfd event{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
        if (::poll(&event, 1, 0) <= 0) {
            return;
        }
        const ssize_t written =
            ::write(STDOUT_FILENO, pending_.data(), std::min(pending_.size(), kWriteBytes));
        if (written >= 0) {
            pending_.erase(0, static_cast<std::size_t>(written));
        } else if (errno != EINTR && errno != EAGAIN) {
            end_.pass_on_error = errno;
            pending_.clear();
        }
    }

    const ChildOptions& options_;
    SignalPipe& signals_;
    ChildEnd end_;
    FileDescriptor output_;
    pid_t pid_ = -1;
    bool ended_ = false;
    bool output_ended_ = false;
    std::optional<SteadyTime> end_at_;  // when to ask the command to end, or to make it
    std::optional<SteadyTime> heard_;   // the last signal that should have ended it
    std::string pending_;               // read from the command, not yet passed on
};

}  // namespace

int ChildEnd::exit_code() const {
    if (start_error != 0) {
        return start_error == ENOENT ? kExitNotFound : kExitNotExecutable;
    }
    if (timed_out || told_by != 0) {
        return timed_out ? kExitTimeout : kExitSignalBase + told_by;
    }
    return signal != 0 ? kExitSignalBase + signal : exit_status;
}

ChildEnd run_child(const ChildOptions& options, SignalPipe& signals) {
    return Run(options, signals).run();
}

}  // namespace dedupctl
