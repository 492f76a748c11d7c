#include "guard/heartbeat.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "record/invalid.hpp"

namespace dedup {
namespace {

// However long a lease is.
constexpr std::chrono::milliseconds kPauseMax = std::chrono::hours{1};

}  // namespace

Result<void> check_lease(std::chrono::milliseconds lease) {
    constexpr std::chrono::milliseconds kLeaseMin{3};
    if (lease < kLeaseMin) {
        return invalid(fmt::format("lease is {} ms; it must be at least {}", lease.count(),
                                   kLeaseMin.count()));
    }
    return {};
}

Result<std::unique_ptr<Heartbeat>> Heartbeat::start(Cache& cache, std::chrono::milliseconds lease) {
    try {
        return std::unique_ptr<Heartbeat>(new Heartbeat(cache, lease));
    } catch (const std::system_error& error) {
        return std::unexpected(Error{.code = Code::io,
                                     .message = "cannot start the heartbeat's thread",
                                     .os_error = error.code().value()});
    }
}

Heartbeat::Heartbeat(Cache& cache, std::chrono::milliseconds lease)
    : cache_(cache), lease_(lease), thread_(start_thread("dedup-heartbeat", [this] { run(); })) {}

Heartbeat::~Heartbeat() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    changed_.notify_one();
    const NoCancel no_cancel;
    thread_.join();
}

void Heartbeat::operator delete(Heartbeat* heartbeat, std::destroying_delete_t) {
    delete_unless_inherited(heartbeat, heartbeat->mark_);
}

void Heartbeat::add(std::span<const Claim> claims) {
    bool wake = false;
    {
        const std::lock_guard lock(mutex_);
        wake = idle_;
        std::size_t added = 0;
        try {
            for (; added < claims.size(); ++added) {
                const Claim& claim = claims[added];
                ++by_fence_.try_emplace(claim.claim_sequence, Entry{claim}).first->second.users;
            }
        } catch (const std::bad_alloc&) {
            for (const Claim& claim : claims.first(added)) {
                drop({&claim.claim_sequence, 1});  // or they would be renewed for ever
            }
            throw;
        }
    }
    if (wake) {
        changed_.notify_one();
    }
}

void Heartbeat::remove(std::span<const std::uint64_t> fences) {
    if (mark_.inherited()) {
        return;  // forked by the work that was claimed
    }
    const std::lock_guard lock(mutex_);
    drop(fences);
}

// Precondition: mutex_ is held.
void Heartbeat::drop(std::span<const std::uint64_t> fences) {
    for (const std::uint64_t fence : fences) {
        const auto entry = by_fence_.find(fence);
        if (entry != by_fence_.end() && --entry->second.users == 0) {
            by_fence_.erase(entry);
        }
    }
}

// Precondition: mutex_ is held.
std::vector<Claim> Heartbeat::due_claims() {
    std::vector<Claim> claims;
    claims.reserve(by_fence_.size());
    for (auto& [fence, entry] : by_fence_) {
        if (entry.due) {
            claims.push_back(entry.claim);
        }
        entry.due = true;
    }
    return claims;
}

void Heartbeat::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        idle_ = true;
        changed_.wait(lock, [this] { return stop_ || !by_fence_.empty(); });
        idle_ = false;
        if (changed_.wait_for(lock, std::min(lease_ / 3, kPauseMax), [this] { return stop_; })) {
            return;
        }
        try {
            renew_due(lock);
        } catch (const std::bad_alloc&) {
            // The lease is three times as long as this pause: the next round may have memory.
        }
        if (!lock.owns_lock()) {
            lock.lock();
        }
    }
}

void Heartbeat::renew_due(std::unique_lock<std::mutex>& lock) {
    const std::vector<Claim> claims = due_claims();
    if (!claims.empty()) {
        lock.unlock();
        (void)cache_.renew_many(claims, lease_);
    }
}

// What is noted first is taken out again, should memory run out behind it.
void Beating::add(const Claim& claim) {
    fences_.push_back(claim.claim_sequence);
    heartbeat_.add({&claim, 1});
}

void Beating::add(std::span<const Result<ClaimOutcome>> outcomes) {
    std::vector<Claim> claims;
    for (const auto& outcome : outcomes) {
        if (const Claimed* claimed = outcome ? outcome->claimed() : nullptr) {
            claims.push_back(claimed->claim);
            fences_.push_back(claimed->claim.claim_sequence);
        }
    }
    if (!claims.empty()) {
        heartbeat_.add(claims);
    }
}

}  // namespace dedup
