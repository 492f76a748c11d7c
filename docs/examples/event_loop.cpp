// Claims from an event loop: one thread, epoll, and no call that waits for the disk.
//
//     event_loop STORE < keys
//
// Each line of the input is a key. It is claimed and completed with "line N"; prints what each line
// came to. The loop waits for the input and for answers, which come on threads of the library and
// are handed to it through an eventfd. Exit status: 0; 1 an error.

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <functional>
#include <iostream>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dedup/async.hpp"
#include "dedup/log_store.hpp"

namespace {

// What other threads want to be done on the loop's.
class Posted {
  public:
    [[nodiscard]] int descriptor() const { return descriptor_; }

    void post(std::move_only_function<void()> todo) {
        const std::lock_guard lock(mutex_);
        todo_.push_back(std::move(todo));
        ::eventfd_write(descriptor_, 1);
    }

    void run_all() {
        eventfd_t ignored = 0;
        ::eventfd_read(descriptor_, &ignored);
        std::vector<std::move_only_function<void()>> todo;
        {
            const std::lock_guard lock(mutex_);
            todo.swap(todo_);
        }
        for (auto& one : todo) {
            one();
        }
    }

  private:
    const int descriptor_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    std::mutex mutex_;
    std::vector<std::move_only_function<void()>> todo_;
};

class Lines {
  public:
    explicit Lines(dedup::AsyncCache& async) : async_(async) {}

    // Until the input has ended and every line has come to something.
    int run() {
        const int poll = ::epoll_create1(EPOLL_CLOEXEC);
        watch(poll, posted_.descriptor());
        watch(poll, STDIN_FILENO);
        while (reading_ || open_ > 0) {
            epoll_event event{};
            if (::epoll_wait(poll, &event, 1, -1) != 1) {
                continue;
            }
            if (event.data.fd == posted_.descriptor()) {
                posted_.run_all();
            } else if (!read_some()) {
                ::epoll_ctl(poll, EPOLL_CTL_DEL, STDIN_FILENO, nullptr);
                reading_ = false;
            }
        }
        ::close(poll);
        return failed_ ? 1 : 0;
    }

  private:
    static void watch(int poll, int descriptor) {
        epoll_event event{.events = EPOLLIN, .data = {.fd = descriptor}};
        ::epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event);
    }

    bool read_some() {
        char bytes[4096];
        const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
        for (ssize_t i = 0; i < count; ++i) {
            if (bytes[i] != '\n') {
                line_ += bytes[i];
            } else {
                handle(std::exchange(line_, {}), ++lines_);
            }
        }
        return count > 0;
    }

    void handle(std::string key, int line) {
        ++open_;
        const auto given =
            async_.claim_async(key, {}, [this, line](dedup::Result<dedup::ClaimOutcome> outcome) {
                posted_.post([this, line, outcome = std::move(outcome)] {
                    claimed(outcome, line);  // on the loop's thread
                });
            });
        if (!given) {
            ended(line, given.error().message, true);
        }
    }

    void claimed(const dedup::Result<dedup::ClaimOutcome>& outcome, int line) {
        if (!outcome) {
            return ended(line, outcome.error().message, true);
        }
        if (const auto* done = outcome->completed()) {
            return ended(line, "as " + done->receipt);
        }
        const auto* mine = outcome->claimed();
        if (mine == nullptr) {
            return ended(line, "in flight");
        }
        const auto given = async_.complete_async(
            {mine->claim, "line " + std::to_string(line), {}},
            [this, line](dedup::Result<void> done) {
                posted_.post([this, line, done = std::move(done)] {
                    done ? ended(line, "done") : ended(line, done.error().message, true);
                });
            });
        if (!given) {
            ended(line, given.error().message, true);
        }
    }

    void ended(int line, const std::string& how, bool failed = false) {
        std::cout << "line " << line << ": " << how << '\n';
        failed_ = failed_ || failed;
        --open_;
    }

    dedup::AsyncCache& async_;
    Posted posted_;
    std::string line_;
    int lines_ = 0;
    int open_ = 0;
    bool reading_ = true;
    bool failed_ = false;
};

int fail(const dedup::Error& error) {
    std::cerr << "event_loop: " << error.message << '\n';
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: event_loop STORE < keys\n";
        return 2;
    }
    auto store = dedup::open(argv[1]);
    if (!store) {
        return fail(store.error());
    }
    dedup::Cache cache(**store);
    auto async = dedup::AsyncCache::start(cache);
    if (!async) {
        return fail(async.error());
    }
    const int status = Lines(**async).run();
    async->reset();  // before the cache and the store
    const auto closed = (*store)->close();
    return closed ? status : fail(closed.error());
}
