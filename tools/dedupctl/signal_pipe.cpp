#include "signal_pipe.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>

#include "common/failure.hpp"

namespace dedupctl {
namespace {

// What the handler may touch: it runs between any two instructions.
volatile std::sig_atomic_t pipe_write_fd = -1;
volatile std::sig_atomic_t second_exits = 0;
std::atomic<std::int64_t> first_at_ms = 0;  // 0: none has come
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

// What is sent to a process and to its group (`timeout`, a service manager) comes twice, and is
// meant once.
constexpr std::int64_t kMeantOnceMs = 1000;

std::int64_t uptime_ms() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000 + 1;
}

void handle(int number, siginfo_t* info, void* /*context*/) {
    const int saved_errno = errno;
    if (number != SIGCHLD) {
        const std::int64_t now_ms = uptime_ms();
        std::int64_t first_ms = 0;
        const bool first = first_at_ms.compare_exchange_strong(first_ms, now_ms);
        if (!first && second_exits != 0 && now_ms - first_ms >= kMeantOnceMs) {
            ::_exit(kExitSignalBase + number);
        }
    }
    const std::array<unsigned char, 2> message{
        static_cast<unsigned char>(number),
        static_cast<unsigned char>(info != nullptr && info->si_code == SI_KERNEL)};
    // A full pipe holds thousands of signals that nobody has taken yet; one more tells nothing new.
    [[maybe_unused]] const ssize_t written = ::write(pipe_write_fd, message.data(), message.size());
    errno = saved_errno;
}

}  // namespace

SignalPipe::SignalPipe(const std::vector<int>& signals, SecondSignal second) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
        throw system_failure("cannot make a pipe", errno);
    }
    read_fd_ = ends[0];
    pipe_write_fd = ends[1];
    first_at_ms = 0;
    second_exits = second == SecondSignal::exits ? 1 : 0;
    for (const int number : signals) {
        struct sigaction before {};
        ::sigaction(number, nullptr, &before);
        if (number != SIGCHLD && before.sa_handler == SIG_IGN) {
            continue;
        }
        struct sigaction ours {};
        ours.sa_sigaction = handle;
        ours.sa_flags = SA_SIGINFO | SA_RESTART;
        sigfillset(&ours.sa_mask);
        ::sigaction(number, &ours, nullptr);
        saved_.push_back({number, before});
    }
}

SignalPipe::~SignalPipe() {
    for (const Saved& saved : saved_) {
        ::sigaction(saved.number, &saved.action, nullptr);
    }
    const int write_fd = pipe_write_fd;
    pipe_write_fd = -1;
    ::close(write_fd);
    ::close(read_fd_);
}

std::optional<Signal> SignalPipe::take() {
    std::array<unsigned char, 2> message{};
    if (::read(read_fd_, message.data(), message.size()) != static_cast<ssize_t>(message.size())) {
        return std::nullopt;
    }
    return Signal{.number = message[0], .from_kernel = message[1] != 0};
}

}  // namespace dedupctl
