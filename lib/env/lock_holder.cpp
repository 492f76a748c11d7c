#include "env/lock_holder.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <fstream>
#include <vector>

namespace dedup {
namespace {

constexpr std::size_t kProcessesNamed = 5;
constexpr std::time_t kTimeMax = 253'402'300'799;  // the last that is written in four digits

template <class Number>
Number number_in(std::string_view text) {
    Number number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

std::string first_line_of(const std::string& path) {
    std::string line;
    std::ifstream file(path);
    std::getline(file, line);
    return line;
}

// When a process was started, in ticks since the machine was; 0 if there is none, or it is hidden.
// A pid that has been given to another process since has another.
std::uint64_t start_of(pid_t pid) {
    constexpr int kFieldsBetween = 20;  // behind the name, which is in parentheses
    const std::string stat = first_line_of(fmt::format("/proc/{}/stat", pid));
    std::size_t at = stat.rfind(')');
    for (int i = 0; i < kFieldsBetween && at != std::string::npos; ++i) {
        at = stat.find(' ', at + 1);
    }
    return at == std::string::npos ? 0 : number_in<std::uint64_t>(stat.substr(at + 1));
}

std::string name_of(pid_t pid) {
    const std::string name = first_line_of(fmt::format("/proc/{}/comm", pid));
    return name.empty() ? std::string() : fmt::format(" ({})", name);
}

std::string host_name() {
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

// Pids mean something within one pid namespace, of which a container has its own.
std::uint64_t pid_namespace() {
    struct stat status {};
    return ::stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

// The value behind `name` and a space at the beginning of a line.
std::string_view field(std::string_view text, std::string_view name) {
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        if (line.starts_with(name) && line.substr(name.size()).starts_with(' ')) {
            return line.substr(name.size() + 1);
        }
        text.remove_prefix(std::min(line.size() + 1, text.size()));
    }
    return {};
}

bool lives(const Holder& holder) {
    if (::kill(holder.pid, 0) != 0 && errno != EPERM) {
        return false;
    }
    return holder.start == 0 || start_of(holder.pid) == 0 || start_of(holder.pid) == holder.start;
}

// The process that took the lock, as the system knows it; 0 if it does not, or will not say.
pid_t locker_of(const struct stat& status) {
    const std::string file =
        fmt::format("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
        // "1: FLOCK  ADVISORY  WRITE 1435 fe:00:10952707 0 EOF"
        const std::size_t at = line.find(' ' + file + ' ');
        if (at == std::string::npos || line.find(" FLOCK ") == std::string::npos) {
            continue;
        }
        const std::size_t before = line.rfind(' ', at - 1);
        return std::max(number_in<pid_t>(line.substr(before + 1)), 0);
    }
    return 0;
}

// The processes that have the file open, as far as this user may know.
std::vector<pid_t> users_of(const struct stat& status) {
    std::vector<pid_t> users;
    std::error_code error;
    for (std::filesystem::directory_iterator at("/proc", error), end; !error && at != end;
         at.increment(error)) {
        const auto pid = number_in<pid_t>(at->path().filename().string());
        if (pid <= 0 || pid == ::getpid()) {
            continue;
        }
        std::error_code hidden;
        for (std::filesystem::directory_iterator fd(at->path() / "fd", hidden);
             !hidden && fd != end; fd.increment(hidden)) {
            struct stat open_file {};
            if (::stat(fd->path().c_str(), &open_file) == 0 && open_file.st_ino == status.st_ino &&
                open_file.st_dev == status.st_dev) {
                users.push_back(pid);
                break;
            }
        }
    }
    return users;
}

std::string list_of(const std::vector<pid_t>& pids) {
    std::string list;
    for (std::size_t i = 0; i < pids.size() && i < kProcessesNamed; ++i) {
        list += fmt::format("{}{}{}", i == 0 ? "" : ", ", pids[i], name_of(pids[i]));
    }
    return pids.size() > kProcessesNamed ? list + " and others" : list;
}

// "42s", "3m7s", "2h5m", "3d4h".
std::string age_text(std::time_t seconds) {
    if (seconds < 60) {
        return fmt::format("{}s", std::max<std::time_t>(seconds, 0));
    }
    if (seconds < 3'600) {
        return fmt::format("{}m{}s", seconds / 60, seconds % 60);
    }
    return seconds < 86'400 ? fmt::format("{}h{}m", seconds / 3'600, seconds % 3'600 / 60)
                            : fmt::format("{}d{}h", seconds / 86'400, seconds % 86'400 / 3'600);
}

std::string since_text(const Holder& holder) {
    return holder.since == 0
               ? std::string()
               : fmt::format(" since {:%Y-%m-%d %H:%M:%SZ} ({} ago)", fmt::gmtime(holder.since),
                             age_text(std::time(nullptr) - holder.since));
}

// What follows "store ... ".
std::string describe(const Holder& holder, const struct stat& status) {
    if (holder.pid_namespace != 0 && holder.pid_namespace != pid_namespace()) {
        return fmt::format(
            "is open for writing{} in process {} of another container or machine, "
            "whose name is {}; wait for it or stop it there",
            since_text(holder), holder.pid, holder.host);
    }
    const pid_t locker = locker_of(status);
    if (holder.pid != 0 && lives(holder) && (locker == 0 || locker == holder.pid)) {
        return holder.pid == ::getpid()
                   ? fmt::format(
                         "is open for writing in process {}, which is this one{}; use that "
                         "store, or close it first",
                         holder.pid, since_text(holder))
                   : fmt::format("is open for writing in process {}{}{}; wait for it or stop it",
                                 holder.pid, name_of(holder.pid), since_text(holder));
    }
    if (locker != 0 && start_of(locker) != 0) {
        return fmt::format("is locked by process {}{}; wait for it or stop it", locker,
                           name_of(locker));
    }
    const std::vector<pid_t> users = users_of(status);
    const std::string writer =
        fmt::format("is locked, and the writer is gone: process {} has ended",
                    holder.pid != 0 ? std::to_string(holder.pid)
                    : locker != 0   ? std::to_string(locker)
                                    : "");
    if (holder.pid == 0 && locker == 0) {
        return users.empty()
                   ? "is open for writing in another process; wait for it or stop it"
                   : fmt::format("is locked by process {}; wait for it or stop it", list_of(users));
    }
    return users.empty()
               ? writer + ", and one that inherited the lock from it still lives; stop that one"
               : fmt::format("{}, but {}, which inherited the lock from it, still lives; stop {}",
                             writer, list_of(users), users.size() == 1 ? "it" : "them");
}

}  // namespace

Holder holder_in(std::string_view text) {
    Holder holder;
    holder.pid = std::max(number_in<pid_t>(text), 0);
    holder.start = number_in<std::uint64_t>(field(text, "start"));
    holder.pid_namespace = number_in<std::uint64_t>(field(text, "pid_namespace"));
    holder.since = number_in<std::time_t>(field(text, "since"));
    if (holder.since < 0 || holder.since > kTimeMax) {
        holder.since = 0;
    }
    holder.host = field(text, "host");
    return holder;
}

std::string lock_text() {
    return fmt::format("{}\nstart {}\npid_namespace {}\nsince {}\nhost {}\n", ::getpid(),
                       start_of(::getpid()), pid_namespace(), std::time(nullptr), host_name());
}

Error busy_error(const Path& store, int locked_fd, std::string_view text) {
    struct stat status {};
    (void)::fstat(locked_fd, &status);
    return {Code::busy,
            fmt::format("store {} {}", store.string(), describe(holder_in(text), status))};
}

}  // namespace dedup
