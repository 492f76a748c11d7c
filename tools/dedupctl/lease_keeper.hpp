// Keeps a claim's lease alive while somebody else works under it.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "context.hpp"

namespace dedupctl {

// Renews every third of the lease, from a thread of its own. The store is open for the renewal
// only. A renewal that fails is tried again; a lost claim is said once on standard error.
class LeaseKeeper {
  public:
    LeaseKeeper(const Context& context, dedup::Claim claim, milliseconds lease);
    LeaseKeeper(const LeaseKeeper&) = delete;
    LeaseKeeper& operator=(const LeaseKeeper&) = delete;
    ~LeaseKeeper();

  private:
    void run();
    // False once there is nothing left to renew.
    bool renew();
    bool stops();
    // False if it is time to stop.
    bool sleep(milliseconds time);

    const Context& context_;
    dedup::Claim claim_;
    milliseconds lease_;
    bool said_failed_ = false;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace dedupctl
