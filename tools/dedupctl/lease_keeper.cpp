#include "lease_keeper.hpp"

#include <algorithm>

namespace dedupctl {
LeaseKeeper::LeaseKeeper(const Context& context, dedup::Claim claim, milliseconds lease)
    : context_(context), claim_(std::move(claim)), lease_(lease), thread_([this] { run(); }) {}

LeaseKeeper::~LeaseKeeper() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
}

void LeaseKeeper::run() {
    const milliseconds pause = std::max(lease_ / 3, milliseconds{1});
    while (sleep(pause)) {
        if (!renew()) {
            return;
        }
    }
}

// While another process holds the store, nobody else can take the claim over either: so waiting
// loses nothing but time. What runs out meanwhile is still renewed, if it was not taken over first.
bool LeaseKeeper::renew() {
    auto store = context_.try_open_writer(milliseconds::max(), [this] { return !stops(); });
    if (!store && store.error().code == dedup::Code::busy) {
        return false;  // it is time to stop
    }
    const dedup::Result<dedup::Claim> renewed =
        store ? context_.cache(**store).renew(claim_, lease_)
              : dedup::Result<dedup::Claim>(std::unexpected(store.error()));
    if (renewed) {
        said_failed_ = false;
        return true;
    }
    if (renewed.error().code == dedup::Code::stale_claim) {
        note("the lease is not renewed any more: " + renewed.error().message);
        return false;
    }
    if (!said_failed_) {
        said_failed_ = true;
        note("cannot renew the lease, will try again: " + renewed.error().message);
    }
    return true;
}

bool LeaseKeeper::stops() {
    const std::lock_guard lock(mutex_);
    return stop_;
}

bool LeaseKeeper::sleep(milliseconds time) {
    std::unique_lock lock(mutex_);
    return !wake_.wait_for(lock, time, [this] { return stop_; });
}

}  // namespace dedupctl
