#include "races/race.hpp"

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <thread>
#include <utility>

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

constexpr const char* kKey = "k";
constexpr std::int64_t kCacheTtlMs = 3'000;
constexpr std::size_t kPaddingMax = 6'000;  // a dozen records fill a segment

// An order of its own for the notes must not order what the sanitizer is to find unordered.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr auto kOrder = std::memory_order_relaxed;
#else
constexpr auto kOrder = std::memory_order_seq_cst;
#endif
#else
constexpr auto kOrder = std::memory_order_seq_cst;
#endif

// Now and then gives way to other threads.
void dawdle() {
    static std::atomic<unsigned> threads = 0;
    thread_local std::minstd_rand random(++threads);
    const auto choice = random() % 60;
    if (choice == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } else if (choice < 8) {
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
    } else if (choice < 16) {
        std::this_thread::yield();
    }
}

// The first words of an outcome, up to what differs each time.
std::string kind_of(const std::string& outcome) {
    for (const char* kind : {"claimed", "completed", "in flight", "mismatch", "new", "held"}) {
        if (outcome.starts_with(kind)) {
            return kind;
        }
    }
    return outcome;
}

}  // namespace

Clock RaceClock::clock() {
    return [this] {
        dawdle();
        const std::int64_t now_ms = now_ms_;
        dawdle();
        return now_ms;
    };
}

// One thread. It knows the fences that it got itself, and those of others that it was told.
class Race::Worker {
  public:
    Worker(Race& race, StreamStore& store, std::uint64_t seed)
        : race_(race), store_(store), random_(seed), fences_(race.plan_.keys) {
        for (std::size_t key = 0; key < race.plan_.keys; ++key) {
            caches_.push_back(std::make_unique<Cache>(
                store, CacheOptions{.ns = race.ns(key),
                                    .ttl = milliseconds{kCacheTtlMs},
                                    .attempts_max = KeyModel::kAttemptsMax}));
        }
    }

    void run(bool closes) {
        const auto last = static_cast<int>(pick(static_cast<std::size_t>(race_.plan_.steps)));
        for (int i = 0; i < race_.plan_.steps; ++i) {
            if (closes && i == last) {
                close();
            }
            step();
        }
    }

    std::vector<Noted> noted;
    std::vector<Advance> advances;

  private:
    std::size_t pick(std::size_t below) { return random_() % below; }
    milliseconds some_ms(std::size_t max) {
        return milliseconds{1 + static_cast<std::int64_t>(pick(max))};
    }
    bool one_in(std::size_t times) { return pick(times) == 0; }

    void step() {
        struct Choice {
            std::size_t weight;
            void (Worker::*run)();
        };
        static constexpr std::array<Choice, 9> kChoices = {{{30, &Worker::claim},
                                                            {11, &Worker::complete},
                                                            {8, &Worker::release},
                                                            {10, &Worker::say},
                                                            {9, &Worker::renew},
                                                            {12, &Worker::look},
                                                            {6, &Worker::remember},
                                                            {5, &Worker::sweep},
                                                            {9, &Worker::let_time_pass}}};
        std::size_t at = pick(100);
        for (const auto& [weight, run] : kChoices) {
            if (at < weight) {
                (this->*run)();
                return;
            }
            at -= weight;
        }
    }

    [[nodiscard]] Operation begin(std::string what) {
        Operation operation;
        operation.what = std::move(what);
        operation.invoked = race_.moment();
        return operation;
    }
    void end(std::optional<std::size_t> key, Operation& operation, std::string outcome) {
        operation.returned = race_.moment();
        operation.outcome = std::move(outcome);
        noted.push_back({key, std::move(operation)});
    }

    ClaimOptions any_options(bool lease) {
        ClaimOptions options;
        options.owner = "w" + std::to_string(pick(3));
        if (one_in(5)) {
            options.fingerprint = one_in(2) ? "a" : "b";
        }
        if (one_in(2)) {
            options.ttl = some_ms(3'000);
        }
        if (lease && one_in(2)) {
            options.lease = some_ms(1'500);
        }
        if (one_in(4)) {
            options.unanswered = Unanswered::hold;
        }
        options.metadata.assign(pick(kPaddingMax), 'x');  // which fills segments
        return options;
    }

    // Mostly the newest that this thread knows; 0 now and then: without a handle.
    std::uint64_t any_fence(std::size_t key) {
        const auto& known = fences_[key];
        if (known.empty() || one_in(5)) {
            return 0;
        }
        return one_in(3) ? known[pick(known.size())] : known.back();
    }
    void learn(std::size_t key, std::uint64_t fence) {
        if (fence != 0) {
            fences_[key].push_back(fence);
        }
    }
    [[nodiscard]] Claim handle(std::size_t key, std::uint64_t fence) const {
        return {race_.ns(key), kKey, fence, 0, 1};
    }
    std::size_t any_key() { return pick(caches_.size()); }

    void claim() {
        const std::size_t key = any_key();
        const ClaimOptions options = any_options(true);
        Operation operation = begin("claim");
        const auto result = caches_[key]->claim(kKey, options);
        operation.apply = [options, fence = new_fence(result)](KeyModel& model, auto now_ms) {
            return model.claim(now_ms, options, fence);
        };
        end(key, operation, show(result));
        learn(key, new_fence(result));
        if (const auto* other = result ? std::get_if<InFlight>(&*result) : nullptr) {
            learn(key, other->claim_sequence);
        }
    }

    void complete() {
        const std::size_t key = any_key();
        const std::uint64_t fence = any_fence(key);
        const std::string receipt = "r" + std::to_string(pick(3));
        Operation operation = begin("complete " + std::to_string(fence) + " with " + receipt);
        const auto result = fence != 0 ? caches_[key]->complete(handle(key, fence), receipt)
                                       : caches_[key]->complete_current(kKey, receipt);
        operation.apply = [fence, receipt](KeyModel& model, auto now_ms) {
            return model.complete(now_ms, fence, receipt);
        };
        end(key, operation, show(result));
    }

    void release() {
        const std::size_t key = any_key();
        const std::uint64_t fence = any_fence(key);
        Operation operation = begin("release " + std::to_string(fence));
        const auto result = fence != 0 ? caches_[key]->release(handle(key, fence))
                                       : caches_[key]->release_current(kKey);
        operation.apply = [fence](KeyModel& model, auto now_ms) {
            return model.release(now_ms, fence);
        };
        end(key, operation, show(result));
    }

    void renew() {
        const std::size_t key = any_key();
        const std::uint64_t fence = std::max<std::uint64_t>(1, any_fence(key));
        const milliseconds lease = some_ms(1'500);
        Operation operation = begin("renew " + std::to_string(fence));
        const auto result = caches_[key]->renew(handle(key, fence), lease);
        operation.apply = [fence, lease](KeyModel& model, auto now_ms) {
            return model.renew(now_ms, fence, lease);
        };
        end(key, operation, show(result));
    }

    // What is said of a claim beside its answer.
    void say() {
        const std::size_t key = any_key();
        const std::uint64_t fence = std::max<std::uint64_t>(1, any_fence(key));
        const std::string text = "t" + std::to_string(pick(3));
        Cache& cache = *caches_[key];
        switch (pick(5)) {
            case 0:
            case 1: {
                Operation operation = begin("note " + std::to_string(fence) + " " + text);
                const auto result = cache.note(handle(key, fence), text);
                operation.apply = [fence, text](KeyModel& model, auto now_ms) {
                    return model.note(now_ms, fence, text);
                };
                return end(key, operation, show(result));
            }
            case 2: {
                Operation operation = begin("hold " + std::to_string(fence));
                const auto result = cache.hold(handle(key, fence), text);
                operation.apply = [fence, text](KeyModel& model, auto now_ms) {
                    return model.hold(now_ms, fence, text);
                };
                return end(key, operation, show(result));
            }
            case 3: {
                const Resolution resolution{
                    .receipt = one_in(2) ? std::optional<std::string>("r0") : std::nullopt,
                    .reason = text};
                Operation operation = begin("resolve " + std::to_string(fence));
                const auto result = cache.resolve(kKey, fence, resolution);
                operation.apply = [fence, resolution](KeyModel& model, auto now_ms) {
                    return model.resolve(now_ms, fence, resolution);
                };
                return end(key, operation, show(result));
            }
            default: {
                Operation operation = begin("forget " + std::to_string(fence));
                const auto result = cache.forget(kKey, fence, text);
                operation.apply = [fence, text](KeyModel& model, auto now_ms) {
                    return model.forget(now_ms, fence, text);
                };
                return end(key, operation, show(result));
            }
        }
    }

    void look() {
        const std::size_t key = any_key();
        Operation operation = begin("look");
        const auto result = caches_[key]->lookup(kKey);
        operation.apply = [](KeyModel& model, auto now_ms) { return model.lookup(now_ms); };
        end(key, operation, show(result));
        if (const auto* other = result ? std::get_if<InFlight>(&*result) : nullptr) {
            learn(key, other->claim_sequence);
        }
    }

    void remember() {
        const std::size_t key = any_key();
        const ClaimOptions options = any_options(false);
        const std::string receipt = "r" + std::to_string(pick(3));
        Operation operation = begin("remember " + receipt);
        const auto result = caches_[key]->remember(kKey, receipt, options);
        operation.apply = [options, receipt, fence = new_fence(result)](KeyModel& model,
                                                                        auto now_ms) {
            return model.remember(now_ms, receipt, options, fence);
        };
        end(key, operation, show(result));
    }

    void sweep() {
        Operation operation = begin("sweep");
        const auto report = store_.sweep();
        operation.apply = [](KeyModel& model, auto now_ms) { return model.sweep(now_ms); };
        end(std::nullopt, operation, report ? "swept" : std::string(name(report.error().code)));
        if (!report) {
            return;
        }
        noted.back().swept_at_ms = report->now_ms;
        noted.back().segments_given_up = report->segments_dropped + report->segments_compacted;
        for (const SweptNamespace& row : report->namespaces) {
            std::string& text = noted.back().swept[row.ns];
            for (const State state : {State::in_flight, State::completed, State::released}) {
                for (std::uint64_t i = 0; i < row.removed[state]; ++i) {
                    text += name(state);
                }
            }
        }
    }

    void let_time_pass() {
        Advance advance;
        advance.invoked = race_.moment();
        advance.now_ms = race_.clock_.advance(some_ms(one_in(3) ? 6'000 : 800).count());
        advance.returned = race_.moment();
        advances.push_back(advance);
    }

    void close() {
        Operation operation = begin("close");
        const auto closed = store_.close();
        operation.returned = race_.moment();
        operation.outcome = show(closed);
        const std::lock_guard lock(race_.mutex_);
        race_.close_ = std::move(operation);
    }

    Race& race_;
    StreamStore& store_;
    std::minstd_rand random_;
    std::vector<std::unique_ptr<Cache>> caches_;
    std::vector<std::vector<std::uint64_t>> fences_;
};

Race::Race(RaceClock& clock, const RacePlan& plan)
    : clock_(clock), plan_(plan), advances_{{clock.now_ms(), 0, 0}} {}

std::uint64_t Race::moment() {
    return moments_.fetch_add(1, kOrder) + 1;
}

std::string Race::ns(std::size_t key) const {
    return "race-" + std::to_string(plan_.seed) + "." + std::to_string(key);
}

void Race::run(StreamStore& store) {
    std::barrier start(static_cast<std::ptrdiff_t>(plan_.threads));
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < plan_.threads; ++t) {
        threads.emplace_back([&, t] {
            Worker worker(*this, store, plan_.seed * 101 + t);
            start.arrive_and_wait();
            worker.run(plan_.closes && t == 0);
            const std::lock_guard lock(mutex_);
            std::ranges::move(worker.noted, std::back_inserter(noted_));
            advances_.insert(advances_.end(), worker.advances.begin(), worker.advances.end());
        });
    }
    threads.clear();
    std::ranges::sort(advances_, {}, &Advance::now_ms);
}

void Race::read_all(StreamStore& store) {
    for (std::size_t key = 0; key < plan_.keys; ++key) {
        Cache cache(store, {.ns = ns(key), .ttl = milliseconds{kCacheTtlMs}});
        Operation operation;
        operation.what = "look at the end";
        operation.apply = [](KeyModel& model, auto now_ms) { return model.lookup(now_ms); };
        operation.invoked = moment();
        operation.outcome = show(cache.lookup(kKey));
        operation.returned = moment();
        noted_.push_back({key, std::move(operation)});
    }
}

// The times that held at some moment while the operation ran.
std::vector<std::int64_t> Race::times_seen(const Operation& operation) const {
    std::vector<std::int64_t> times_ms;
    for (std::size_t i = 0; i < advances_.size(); ++i) {
        const bool over = i + 1 < advances_.size() && advances_[i + 1].returned < operation.invoked;
        if (advances_[i].invoked < operation.returned && !over) {
            times_ms.push_back(advances_[i].now_ms);
        }
    }
    return times_ms;
}

std::vector<Operation> Race::history_of(std::size_t key) const {
    std::vector<Operation> history;
    for (const Noted& noted : noted_) {
        if (noted.key.value_or(key) != key) {
            continue;
        }
        Operation operation = noted.operation;
        operation.times_ms = times_seen(operation);
        if (!noted.key && operation.outcome == "closed") {
            // It may have removed what had expired, and not have come to the end.
            operation.apply = [](KeyModel& model, auto now_ms) {
                (void)model.sweep(now_ms);
                return std::string("closed");
            };
            operation.times_ms.push_back(0);
        } else if (operation.outcome == "closed") {
            continue;  // nothing was done
        } else if (!noted.key) {
            const auto swept = noted.swept.find(ns(key));
            operation.outcome = swept == noted.swept.end() ? "" : swept->second;
            std::erase_if(operation.times_ms,
                          [&](auto now_ms) { return now_ms != noted.swept_at_ms; });
        }
        history.push_back(std::move(operation));
    }
    return history;
}

// Only what had not returned when close() began may be told that the store is closed, and all that
// begins after close() is. (What a reopened store says is noted by read_all.)
std::string Race::wrong_beside_close() const {
    for (const Noted& noted : noted_) {
        const Operation& operation = noted.operation;
        const bool closed = operation.outcome == "closed";
        const bool read_later = operation.what == "look at the end";
        if (closed && (!close_ || operation.returned < close_->invoked || read_later)) {
            return operation.what + " says closed, and it is not";
        }
        if (!closed && close_ && operation.invoked > close_->returned && !read_later) {
            return operation.what + " after close: " + operation.outcome;
        }
    }
    return close_ && close_->outcome != "ok" ? "close: " + close_->outcome : "";
}

std::string Race::wrong() {
    if (std::string text = wrong_beside_close(); !text.empty()) {
        return text;
    }
    for (std::size_t key = 0; key < plan_.keys; ++key) {
        const auto history = history_of(key);
        const KeyModel start(ns(key), kKey, kCacheTtlMs);
        if (std::string text = why_not_linearizable(start, history); !text.empty()) {
            return "seed " + std::to_string(plan_.seed) + ", key " + ns(key) + ": " + text;
        }
    }
    return "";
}

void Race::count(Outcomes& outcomes) const {
    for (const Noted& noted : noted_) {
        ++outcomes[kind_of(noted.operation.outcome)];
        outcomes["removed by a sweep"] += noted.swept.size();
        outcomes["segments given up"] += noted.segments_given_up;
    }
}

}  // namespace dedup::test
