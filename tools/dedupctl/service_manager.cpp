#include "service_manager.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <stop_token>
#include <string>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "signal_free_thread.hpp"

namespace dedupctl {
namespace {

// Takes the variable away, so that no child believes that it is meant.
std::string take_variable(const char* name) {
    const char* const found = std::getenv(name);
    std::string value = found == nullptr ? "" : found;
    ::unsetenv(name);
    return value;
}

bool is_of_unix(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    return ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
           address.ss_family == AF_UNIX;
}

// Until the next time that it is said, and some more.
constexpr std::string_view kMoreTime = "EXTEND_TIMEOUT_USEC=30000000";
constexpr std::chrono::seconds kMoreTimeEvery{10};
// Of the processor, in that time: less is waiting, for a disk that hangs or another process.
constexpr std::clock_t kWorks = CLOCKS_PER_SEC / 100;

void ask_for_more_time(const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any ended;
    std::unique_lock lock(mutex);
    std::clock_t before = std::clock();
    while (!ended.wait_for(lock, stop, kMoreTimeEvery, [&] { return stop.stop_requested(); })) {
        const std::clock_t now = std::clock();
        if (now - before >= kWorks) {
            tell_service_manager(kMoreTime);
        }
        before = now;
    }
}

}  // namespace

StartNotice::StartNotice(std::string_view what) {
    if (std::getenv("NOTIFY_SOCKET") == nullptr) {
        return;
    }
    tell_service_manager(fmt::format("STATUS={}\n{}", what, kMoreTime));
    thread_ = start_signal_free<std::jthread>(ask_for_more_time);
}

GivenSockets sockets_of_service_manager() {
    constexpr int kFirst = 3;
    constexpr std::uint64_t kMost = 64;
    GivenSockets given;
    const std::string pid = take_variable("LISTEN_PID");
    const std::string count = take_variable("LISTEN_FDS");
    const std::string names = take_variable("LISTEN_FDNAMES");
    if (pid != std::to_string(::getpid())) {
        return given;
    }
    std::string_view rest = names;
    const std::uint64_t sockets = parse_number(count, "LISTEN_FDS", 0, kMost);
    for (int fd = kFirst; fd < kFirst + static_cast<int>(sockets); ++fd) {
        const std::size_t end = std::min(rest.find(':'), rest.size());
        const std::string_view name = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        int& place = name == "http" ? given.http : is_of_unix(fd) ? given.unix_socket : given.tcp;
        if (place >= 0) {
            throw usage_failure(
                "the service manager gives two sockets of a kind; one Unix socket, one of TCP and "
                "one with the name http are possible");
        }
        place = fd;
    }
    return given;
}

void tell_service_manager(std::string_view state) {
    const char* const path = std::getenv("NOTIFY_SOCKET");
    if (path == nullptr) {
        return;
    }
    const std::string_view name(path);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (name.size() < 2 || name.size() >= sizeof address.sun_path ||
        (name.front() != '/' && name.front() != '@')) {
        return;
    }
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name.front() == '@') {
        address.sun_path[0] = '\0';  // a name that is no file
    }
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    // If it is not heard, the manager says so itself, and the service goes on.
    static_cast<void>(::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
                               reinterpret_cast<const sockaddr*>(&address), size));
    ::close(fd);
}

}  // namespace dedupctl
