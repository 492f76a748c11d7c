#include "measure.hpp"

#include <atomic>
#include <barrier>
#include <mutex>
#include <optional>
#include <thread>

#include "zipf.hpp"

namespace bench {
namespace {

using dedupctl::BenchKeys;
using dedupctl::mix;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kFirstClaimed = std::uint64_t{1} << 40U;  // of keys; the loaded are below
constexpr std::size_t kLoadGroup = 16'384;
constexpr std::size_t kCycleGroup = 1024;
constexpr std::size_t kLookupPool = 1U << 20U;  // drawn beforehand, a thread
constexpr std::size_t kLookupsPerCheck = 256;   // a multiple of how many one call looks up
constexpr std::size_t kLookupsPerSample = 16;   // reading the clock costs a good part of a lookup

std::uint64_t since_ns(Clock::time_point started) {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - started).count());
}

// Keys in one piece of memory.
class KeyGroup {
  public:
    explicit KeyGroup(std::size_t count) : bytes_(count * BenchKeys::kKeyBytes, '\0') {
        for (std::size_t i = 0; i < count; ++i) {
            views_.emplace_back(bytes_.data() + i * BenchKeys::kKeyBytes, BenchKeys::kKeyBytes);
        }
    }
    KeyGroup(const KeyGroup&) = delete;
    KeyGroup& operator=(const KeyGroup&) = delete;

    void set(std::size_t i, const BenchKeys& keys, std::uint64_t index) {
        keys.write(index, bytes_.data() + i * BenchKeys::kKeyBytes);
    }
    [[nodiscard]] Keys views() const { return views_; }

  private:
    std::string bytes_;
    std::vector<std::string_view> views_;
};

// Times `call` as one group of `operations`.
template <class Call>
void timed(Measured& measured, std::uint64_t operations, const Call& call) {
    const Clock::time_point started = Clock::now();
    call();
    const std::uint64_t ns = since_ns(started);
    measured.latency.add(ns);
    measured.seconds += static_cast<double>(ns) * 1e-9;
    measured.operations += operations;
}

void expect_claimed(std::size_t claimed, std::size_t expected) {
    if (claimed != expected) {
        throw failure("claimed " + std::to_string(claimed) + " keys instead of " +
                      std::to_string(expected));
    }
}

}  // namespace

Work::Work(Adapter& adapter, std::uint64_t seed, std::uint64_t loaded, std::uint64_t claimed)
    : adapter_(adapter), keys_(seed), loaded_(loaded), next_(kFirstClaimed + claimed) {}

std::uint64_t Work::claimed() const {
    return next_ - kFirstClaimed;
}

Session& Work::session(std::size_t index) {
    while (sessions_.size() <= index) {
        sessions_.push_back(adapter_.session());
    }
    return *sessions_[index];
}

void Work::probe() {
    std::string receipt;
    if (!session(0).lookup(keys_.at(loaded_ - 1), receipt)) {
        throw failure("a loaded key is not there");
    }
}

Measured Work::load(std::uint64_t until, milliseconds budget, std::size_t receipt_bytes,
                    std::int64_t ttl_ms) {
    const std::string receipt(receipt_bytes, 'r');
    const Clock::time_point started = Clock::now();
    Measured measured;
    while (loaded_ < until && Clock::now() - started < budget) {
        KeyGroup group(std::min<std::uint64_t>(kLoadGroup, until - loaded_));
        for (std::size_t i = 0; i < group.views().size(); ++i) {
            group.set(i, keys_, loaded_ + i);
        }
        timed(measured, group.views().size(),
              [&] { adapter_.load(group.views(), receipt, ttl_ms); });
        loaded_ += group.views().size();
    }
    adapter_.loaded();
    return measured;
}

Measured Work::load_claimed(std::uint64_t until) {
    Measured measured;
    Session& own = session(0);
    while (loaded_ < until) {
        KeyGroup group(std::min<std::uint64_t>(kCycleGroup, until - loaded_));
        for (std::size_t i = 0; i < group.views().size(); ++i) {
            group.set(i, keys_, loaded_ + i);
        }
        timed(measured, group.views().size(), [&] {
            expect_claimed(own.claim(group.views()), group.views().size());
            own.complete_claimed({});
        });
        loaded_ += group.views().size();
    }
    return measured;
}

Measured Work::claims_while(std::size_t group_size, const std::function<bool()>& go_on) {
    Session& own = session(0);
    KeyGroup group(group_size);
    Measured measured;
    while (go_on()) {
        for (std::size_t i = 0; i < group_size; ++i) {
            group.set(i, keys_, next_++);
        }
        timed(measured, group_size, [&] { expect_claimed(own.claim(group.views()), group_size); });
    }
    return measured;
}

Measured Work::claims(std::size_t group, milliseconds time) {
    const Clock::time_point started = Clock::now();
    return claims_while(group, [&] { return Clock::now() - started < time; });
}

Measured Work::cycles(std::size_t group_size, milliseconds time) {
    Session& own = session(0);
    const std::string receipt(kReceiptBytes, 'r');
    const std::size_t duplicates = group_size / 10;
    KeyGroup group(group_size);
    const std::uint64_t series = mix(++draws_);
    std::uint64_t drawn = 0;
    Measured measured;
    const Clock::time_point started = Clock::now();
    while (Clock::now() - started < time) {
        for (std::size_t i = 0; i < group_size; ++i) {
            const bool known = i < duplicates;
            group.set(i, keys_, known ? mix(series ^ drawn++) % loaded_ : next_++);
        }
        timed(measured, group_size, [&] {
            const std::size_t claimed = own.claim(group.views());
            if (adapter_.knows_keys()) {
                expect_claimed(claimed, group_size - duplicates);
            }
            own.complete_claimed(receipt);
        });
    }
    return measured;
}

Measured Work::in_threads(
    unsigned threads, milliseconds time,
    const std::function<void(unsigned, const std::function<bool()>&, Measured&)>& work) {
    for (unsigned i = 0; i < threads; ++i) {
        session(i);
    }
    std::mutex mutex;
    std::optional<Failure> failed;
    Measured all;
    Clock::time_point started;
    std::barrier ready(threads, [&]() noexcept { started = Clock::now(); });
    std::atomic<bool> stop{false};
    {
        std::vector<std::jthread> running;
        for (unsigned i = 0; i < threads; ++i) {
            running.emplace_back([&, i] {
                Measured own;
                std::optional<Failure> own_failure;
                bool waited = false;
                const auto go_on = [&] {
                    if (!waited) {
                        waited = true;
                        ready.arrive_and_wait();
                    }
                    return !stop && Clock::now() - started < time;
                };
                try {
                    work(i, go_on, own);
                } catch (const Failure& thrown) {
                    own_failure = thrown;
                    stop = true;
                }
                const std::lock_guard lock(mutex);
                all.add(own);
                failed = own_failure ? own_failure : failed;
            });
        }
    }
    if (failed) {
        throw Failure{*failed};
    }
    all.seconds = static_cast<double>(since_ns(started)) * 1e-9;
    return all;
}

Measured Work::claims_by_threads(unsigned threads, milliseconds time) {
    std::atomic<std::uint64_t> next{next_};
    Measured measured = in_threads(
        threads, time, [&](unsigned thread, const std::function<bool()>& go_on, Measured& own) {
            Session& mine = *sessions_[thread];
            KeyGroup group(1);
            while (go_on()) {
                group.set(0, keys_, next.fetch_add(1));
                timed(own, 1, [&] { expect_claimed(mine.claim(group.views()), 1); });
            }
        });
    next_ = next;
    return measured;
}

Measured Work::lookups(unsigned threads, Draw draw, std::size_t together, milliseconds time) {
    const std::uint64_t series = mix(++draws_);
    return in_threads(
        threads, time, [&](unsigned thread, const std::function<bool()>& go_on, Measured& own) {
            std::uint64_t state = mix(series + thread);
            const Zipf ranks(loaded_);
            const auto uniform = [&state] {
                state = mix(state);
                return static_cast<double>(state >> 11U) * 0x1p-53;
            };
            const auto next_key = [&] {
                if (draw == Draw::zipf) {
                    return mix(ranks(uniform)) % loaded_;
                }
                state = mix(state);
                return draw == Draw::uniform ? state % loaded_
                                             : loaded_ - 1 - state % std::min(loaded_, kRecentKeys);
            };
            KeyGroup pool(kLookupPool);
            for (std::size_t i = 0; i < kLookupPool; ++i) {
                pool.set(i, keys_, next_key());
            }
            Session& mine = *sessions_[thread];
            std::string receipt;
            const auto look_up = [&](std::size_t i) {
                const Keys keys = pool.views().subspan(i * together % kLookupPool, together);
                const std::size_t found = together == 1 ? mine.lookup(keys.front(), receipt)
                                                        : mine.lookup_many(keys, receipt);
                if (found != together || receipt.size() != kReceiptBytes) {
                    throw failure("a loaded key has not its receipt");
                }
            };
            std::size_t i = 0;
            while (go_on()) {
                for (const std::size_t end = i + kLookupsPerCheck / together; i < end; ++i) {
                    if (i * together % kLookupsPerSample == 0) {
                        const Clock::time_point started = Clock::now();
                        look_up(i);
                        own.latency.add(since_ns(started));
                    } else {
                        look_up(i);
                    }
                }
                own.operations += kLookupsPerCheck;
            }
        });
}

Measured Work::sweep(std::int64_t ahead_ms) {
    Measured measured;
    std::uint64_t removed = 0;
    timed(measured, 0, [&] { removed = adapter_.sweep(ahead_ms); });
    measured.operations = removed;
    return measured;
}

Measured Work::claims_beside_sweep(std::size_t group, std::int64_t ahead_ms, Measured& swept) {
    std::atomic<bool> done{false};
    std::optional<Failure> failed;
    Measured measured;
    {
        const std::jthread sweeping([&] {
            try {
                swept = sweep(ahead_ms);
            } catch (const Failure& thrown) {
                failed = thrown;
            }
            done = true;
        });
        measured = claims_while(group, [&] { return !done; });
    }
    if (failed) {
        throw Failure{*failed};
    }
    return measured;
}

}  // namespace bench
