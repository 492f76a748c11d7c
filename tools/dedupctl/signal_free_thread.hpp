// Threads beside the main one, which signals are for.
#pragma once

#include <pthread.h>

#include <csignal>
#include <utility>

namespace dedupctl {

// A Thread (std::thread or std::jthread) that runs `run` and takes no signals.
template <class Thread, class Run>
[[nodiscard]] Thread start_signal_free(Run run) {
    sigset_t all{};
    sigset_t before{};
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    Thread thread(std::move(run));
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
}

}  // namespace dedupctl
