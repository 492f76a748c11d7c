#include "cache/async_waits.hpp"

#include <algorithm>
#include <utility>

#include "env/process.hpp"

namespace dedup {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kTimeoutMax = std::chrono::years{100};  // what a clock can add

}  // namespace

AsyncWaits::AsyncWaits(Cache& cache)
    : cache_(cache),
      sleeper_(CacheInside::waiters(CacheInside::store(cache))),
      thread_(start_thread("dedup-waits", [this] { run(); })) {}

AsyncWaits::~AsyncWaits() {
    const NoCancel no_cancel;
    {
        const MutexLock lock(mutex_);
        stop_ = true;
    }
    sleeper_.wake();
    thread_.join();
}

void AsyncWaits::add(std::string key, milliseconds timeout, Answered<LookupOutcome> answered) {
    std::list<Wait> one;
    Wait& wait = one.emplace_back();
    wait.key = std::move(key);
    wait.end = steady_clock::now() + std::clamp(timeout, milliseconds{0}, kTimeoutMax);
    wait.answered = std::move(answered);
    // Before the first look, so that no decision is missed.
    wait.place.emplace(sleeper_, StreamKey{CacheInside::options(cache_).ns, wait.key});
    {
        const MutexLock lock(mutex_);
        come_.splice(come_.end(), one);
    }
    sleeper_.wake();
}

void AsyncWaits::run() {
    while (take_up()) {
        look(false);
        sleeper_.sleep(until_next());
    }
    look(true);
}

bool AsyncWaits::take_up() {
    const MutexLock lock(mutex_);
    waits_.splice(waits_.end(), come_);
    return !stop_;
}

milliseconds AsyncWaits::until_next() const {
    Time next = steady_clock::now() + kTimeoutMax / 2;
    for (const Wait& wait : waits_) {
        next = std::min(next, wait.next);
    }
    const auto pause = std::chrono::ceil<milliseconds>(next - steady_clock::now());
    return std::max(pause, milliseconds{0});
}

// Answers those whose wait is over; all of them if `at_all`.
void AsyncWaits::look(bool at_all) {
    for (auto wait = waits_.begin(); wait != waits_.end();) {
        const Time now = steady_clock::now();
        const bool over = at_all || now >= wait->end;
        if (!wait->place->take_decided() && !over && now < wait->next) {
            ++wait;
            continue;
        }
        auto outcome = cache_.lookup(wait->key);
        if (!over && CacheInside::goes_on(outcome, CacheInside::store(cache_).now_ms())) {
            wait->poll = std::clamp(2 * wait->poll, CacheInside::kPollMin, CacheInside::kPollMax);
            wait->next = std::min(now + wait->poll, wait->end);
            ++wait;
            continue;
        }
        Answered<LookupOutcome> answered = std::move(wait->answered);
        wait = waits_.erase(wait);
        answered(std::move(outcome));
    }
}

}  // namespace dedup
