// Keeps the leases of claims alive whose work is running.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <thread>
#include <vector>

#include "dedup/cache.hpp"
#include "env/process.hpp"

namespace dedup {

// Whether a heartbeat can keep such a lease: it sleeps for a third of it.
[[nodiscard]] Result<void> check_lease(std::chrono::milliseconds lease);

// Owns a thread that renews every claim which it finds at two beats in a row, a third of a lease
// apart; so a claim is renewed when between one and two thirds of its lease have gone, and work
// that is done sooner costs nothing. A renewal that fails is tried again at the next beat: if the
// claim is lost, its completion will say so.
class Heartbeat {
  public:
    // Precondition: check_lease(lease) succeeds. Errors: io (there is no thread to be had).
    [[nodiscard]] static Result<std::unique_ptr<Heartbeat>> start(Cache& cache,
                                                                  std::chrono::milliseconds lease);
    ~Heartbeat();
    // In a forked child there is no thread to stop.
    static void operator delete(Heartbeat* heartbeat, std::destroying_delete_t);
    Heartbeat(const Heartbeat&) = delete;
    Heartbeat& operator=(const Heartbeat&) = delete;

    // A claim that was added several times is renewed until it has been removed as often. All of
    // them are added, or none, if memory runs out.
    void add(std::span<const Claim> claims);
    void remove(std::span<const std::uint64_t> fences);

  private:
    struct Entry {
        Claim claim;
        std::size_t users = 0;  // how often it was added
        bool due = false;       // it was there at the last beat
    };

    Heartbeat(Cache& cache, std::chrono::milliseconds lease);

    void drop(std::span<const std::uint64_t> fences);
    void run();
    void renew_due(std::unique_lock<std::mutex>& lock);
    std::vector<Claim> due_claims();

    const ProcessMark mark_;
    Cache& cache_;
    const std::chrono::milliseconds lease_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Entry> by_fence_;
    bool idle_ = false;  // waits for a claim
    bool stop_ = false;
    std::thread thread_;
};

// The claims of one run or request. From when they are made until they are done, or this ends, the
// heartbeat renews them.
class Beating {
  public:
    explicit Beating(Heartbeat& heartbeat) : heartbeat_(heartbeat) {}
    ~Beating() { done(fences_); }  // again what is done; no one else knows these fences
    Beating(const Beating&) = delete;
    Beating& operator=(const Beating&) = delete;

    void add(const Claim& claim);
    void add(std::span<const Result<ClaimOutcome>> outcomes);  // those that are claims
    void done(std::span<const std::uint64_t> fences) { heartbeat_.remove(fences); }

  private:
    Heartbeat& heartbeat_;
    std::vector<std::uint64_t> fences_;
};

}  // namespace dedup
