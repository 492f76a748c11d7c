#include "env/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <vector>

#include "env/descriptor.hpp"

namespace dedup {
namespace {

using Cell = std::atomic<std::uint64_t>;

// Nothing here is ever destroyed: a store in a global variable outlives it.
struct Process {
    std::mutex mutex;  // held while a fork is under way
    std::vector<int> close_in_children;
    std::atomic<std::uint64_t> generations{0};
    Cell* cell;  // the generation of this process; 0: just forked
};

Process* shared_process = nullptr;  // set before there is anything to fork

void before_fork() {
    shared_process->mutex.lock();
}

void after_fork_in_parent() {
    shared_process->mutex.unlock();
}

void close_inherited(Process& process) {
    for (const int fd : process.close_in_children) {
        ::close(fd);
    }
    process.close_in_children.clear();
}

void after_fork_in_child() {
    shared_process->cell->store(0, std::memory_order_relaxed);
    close_inherited(*shared_process);
    shared_process->mutex.unlock();
}

Cell* make_cell() {
    const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    void* page = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return new Cell(0);  // then only the handler empties it
    }
    (void)::madvise(page, bytes, MADV_WIPEONFORK);
    return new (page) Cell(0);
}

Process& this_process() {
    static Process& process = *[] {
        auto* made = new Process;
        made->cell = make_cell();
        shared_process = made;
        // (The C library takes the handlers out again when a library that set them is unloaded.)
        (void)::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
        return made;
    }();
    return process;
}

// The generation of this process. Never that of one that it was forked from: the counter is
// inherited.
std::uint64_t generation(Process& process) {
    std::uint64_t now = process.cell->load();
    if (now != 0) {
        return now;
    }
    // The mutex may have been held when this process was forked past the C library, and is then
    // held for good.
    if (const std::unique_lock lock(process.mutex, std::try_to_lock); lock) {
        if (process.generations != 0) {
            close_inherited(process);
        }
    }
    const std::uint64_t next = ++process.generations;
    return process.cell->compare_exchange_strong(now, next) ? next : now;
}

struct Left {
    void* object;
    Left* next;
};
std::atomic<Left*> left{nullptr};

}  // namespace

ProcessMark::ProcessMark() {
    Process& process = this_process();
    cell_ = process.cell;
    generation_ = generation(process);
    pid_ = ::getpid();
}

Error ProcessMark::inherited_error(std::string_view what) const {
    return {Code::closed,
            fmt::format("{} was opened by process {}, and this is process {}, a fork of it: a "
                        "forked process cannot use what was opened before the fork; open it again "
                        "here",
                        what, pid_, ::getpid())};
}

void close_in_children(std::initializer_list<int> fds) {
    Process& process = this_process();
    const std::lock_guard lock(process.mutex);
    std::vector<int>& all = process.close_in_children;
    all.insert(all.end(), fds);  // all of them, or none if memory runs out
}

void forget_in_children(int fd) {
    Process& process = this_process();
    const std::lock_guard lock(process.mutex);
    std::erase(process.close_in_children, fd);
}

void leave_to_parent(void* object) {
    auto* const entry = new Left{object, left.load()};
    while (!left.compare_exchange_weak(entry->next, entry)) {
    }
}

SignalsBlocked::SignalsBlocked() {
    sigset_t blocked;
    ::sigfillset(&blocked);
    for (const int caused : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
        ::sigdelset(&blocked, caused);
    }
    ::pthread_sigmask(SIG_SETMASK, &blocked, &before_);
}

void fill_standard_descriptors() {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
        if (::fcntl(fd, F_GETFD) == -1 && errno == EBADF) {
            // Gets the lowest number, which is this one. A program that is started has it closed,
            // as it would have without us.
            (void)::open("/dev/null", O_RDWR | O_CLOEXEC);
        }
    }
}

int open_high(int directory, const char* name, int flags, mode_t mode) {
    const NoCancel no_cancel;
    fill_standard_descriptors();
    int fd = retry([&] { return ::openat(directory, name, flags | O_CLOEXEC, mode); });
    if (fd >= 0 && fd <= STDERR_FILENO) {  // somebody has closed one just now
        const Descriptor low(fd);
        fd = ::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    }
    return fd;
}

}  // namespace dedup
