#include "cache/async_waits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "env/process.hpp"

namespace dedup {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kTimeoutMax = std::chrono::years{100};  // what a clock can add

}  // namespace

struct AsyncWaits::Wait {
    struct Place : Waiters::Place {
        Place(Waiters::Sleeper& sleeper, StreamKey stream, Wait& its_wait)
            : Waiters::Place(sleeper, stream), wait(its_wait) {}
        Wait& wait;
    };

    std::string key;
    Time end;
    Answered<LookupOutcome> answered;
    Result<LookupOutcome> seen =
        std::unexpected(Error{.code = Code::outcome_unknown, .message = {}});
    Waits::iterator at = {};          // where it is among the waits
    std::optional<Place> place = {};  // goes first: the key outlives it
};

AsyncWaits::AsyncWaits(Cache& cache, std::size_t waits_max)
    : cache_(cache),
      waits_max_(waits_max),
      sleeper_(CacheInside::waiters(CacheInside::store(cache))),
      thread_(start_thread("dedup-waits", [this] { run(); })) {}

AsyncWaits::~AsyncWaits() {
    end();
}

void AsyncWaits::close() {
    const MutexLock lock(mutex_);
    closed_ = true;
}

void AsyncWaits::end() {
    const NoCancel no_cancel;
    if (!thread_.joinable()) {
        return;
    }
    {
        const MutexLock lock(mutex_);
        closed_ = true;
        stop_ = true;
    }
    sleeper_.wake();
    thread_.join();
}

Result<void> AsyncWaits::add(std::string key, milliseconds timeout,
                             Answered<LookupOutcome> answered) {
    Waits one;
    const auto at = one.emplace(Time{}, std::make_unique<Wait>());  // due at once
    Wait& wait = *at->second;
    wait.key = std::move(key);
    wait.end = steady_clock::now() + std::clamp(timeout, milliseconds{0}, kTimeoutMax);
    wait.answered = std::move(answered);
    wait.at = at;
    // Before the first look, so that no decision is missed.
    wait.place.emplace(sleeper_, StreamKey{CacheInside::options(cache_).ns, wait.key}, wait);
    {
        const MutexLock lock(mutex_);
        if (closed_) {
            return std::unexpected(Error{.code = Code::closed,
                                         .message = "what is being destroyed takes no more waits"});
        }
        if (count_ >= waits_max_) {
            return std::unexpected(
                Error{.code = Code::busy,
                      .message = fmt::format("{} waits have not been answered yet; let some of "
                                             "them come to their end, or raise waits_max",
                                             count_)});
        }
        come_.merge(one);
        ++count_;
    }
    sleeper_.wake();
    return {};
}

void AsyncWaits::run() {
    while (take_up()) {
        const Time now = steady_clock::now();
        look(take_due(now), now);
        sleeper_.sleep(until_next());
    }
    const Time now = steady_clock::now();
    look(take_due(now), now);
    while (!waits_.empty()) {
        answer(std::move(waits_.extract(waits_.begin()).mapped()));
    }
}

bool AsyncWaits::take_up() {
    const MutexLock lock(mutex_);
    waits_.merge(come_);
    return !stop_;
}

milliseconds AsyncWaits::until_next() const {
    if (waits_.empty()) {
        return kTimeoutMax / 2;
    }
    const auto pause = std::chrono::ceil<milliseconds>(waits_.begin()->first - steady_clock::now());
    return std::clamp(pause, milliseconds{0}, kTimeoutMax / 2);
}

// Takes those whose time has come or whose stream was decided.
AsyncWaits::Waits AsyncWaits::take_due(Time now) {
    sleeper_.take_decided([&](Waiters::Place& place) {
        const auto at = static_cast<Wait::Place&>(place).wait.at;
        if (at->first > now) {  // else it is due anyway, and may not have been taken up yet
            look_again(waits_.extract(at), now);
        }
    });
    Waits due;
    while (!waits_.empty() && waits_.begin()->first <= now) {
        due.insert(waits_.extract(waits_.begin()));
    }
    return due;
}

// Answers those whose wait is over. If memory runs out the others are looked at again.
void AsyncWaits::look(Waits due, Time now) {
    auto outcomes = look_up(due);
    const bool looked = !outcomes.empty();
    const std::int64_t now_ms = looked ? CacheInside::store(cache_).now_ms() : 0;
    for (std::size_t i = 0; !due.empty(); ++i) {
        auto node = due.extract(due.begin());
        Wait& wait = *node.mapped();
        if (looked) {
            wait.seen = std::move(outcomes[i]);
        }
        const milliseconds left =
            looked ? CacheInside::time_to_wait(wait.seen, now_ms) : Waiters::kPauseMax;
        if (now < wait.end && left != left.zero()) {
            look_again(std::move(node), now + pause(wait, now, left));
        } else {
            answer(std::move(node.mapped()));
        }
    }
}

// Nothing if there is nothing to look up, or memory runs out.
std::vector<Result<LookupOutcome>> AsyncWaits::look_up(const Waits& due) {
    if (due.empty()) {
        return {};
    }
    try {
        std::vector<std::string_view> keys;
        keys.reserve(due.size());
        for (const auto& [next, wait] : due) {
            keys.push_back(wait->key);
        }
        return cache_.lookup_many(keys);
    } catch (...) {
        return {};
    }
}

milliseconds AsyncWaits::pause(Wait& wait, Time now, milliseconds at_most) {
    return wait.place->pause(std::min(at_most, std::chrono::ceil<milliseconds>(wait.end - now)));
}

void AsyncWaits::look_again(Waits::node_type node, Time next) {
    Wait& wait = *node.mapped();
    node.key() = next;
    wait.at = waits_.insert(std::move(node));
}

void AsyncWaits::answer(std::unique_ptr<Wait> wait) {
    {
        const MutexLock lock(mutex_);
        --count_;
    }
    Answered<LookupOutcome> answered = std::move(wait->answered);
    Result<LookupOutcome> outcome = std::move(wait->seen);
    wait.reset();  // with its place
    answered(std::move(outcome));
}

}  // namespace dedup
