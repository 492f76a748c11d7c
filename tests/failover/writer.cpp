// Writes to a store in a cluster without a pause until its input ends, and then checks that what
// was acknowledged is there. Prints what is wrong, and in its last line counts as JSON.
//
// Each thread takes turns: a key that all threads fight for, claimed by one of them for ever; and a
// key of its own that is claimed, released and claimed again, whose fences must rise.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"

namespace {

using namespace std::chrono_literals;
using dedup::Code;

constexpr int kThreads = 16;
constexpr std::uint64_t kTurnsAKey = 8;  // so many threads, on average, fight for one

struct Won {
    std::uint64_t fence = 0;
    std::string receipt = {};  // that was acknowledged
    bool attempted = false;    // somebody has tried to complete it
};

class Ledger {
  public:
    std::atomic<std::uint64_t> turns = 0;
    std::atomic<std::uint64_t> claimed = 0;
    std::atomic<std::uint64_t> completed = 0;
    std::atomic<std::uint64_t> failed = 0;   // errors that say that nothing happened
    std::atomic<std::uint64_t> unknown = 0;  // that say that nobody knows

    void complain(const std::string& what) {
        const std::lock_guard lock(mutex_);
        std::puts(what.c_str());
        ++wrong_;
    }
    // Two winners of one key, and one fence twice, are found here.
    void won(const std::string& key, std::uint64_t fence) {
        std::unique_lock lock(mutex_);
        const bool first = won_.try_emplace(key, Won{.fence = fence}).second;
        lock.unlock();
        if (!first) {
            complain(fmt::format("{} was claimed twice", key));
        }
        fenced(key, fence);
    }
    void fenced(const std::string& key, std::uint64_t fence) {
        std::unique_lock lock(mutex_);
        const bool first = fences_.insert(fence).second;
        lock.unlock();
        if (!first) {
            complain(fmt::format("{}: fence {} was given twice", key, fence));
        }
        ++claimed;
    }
    void attempts(const std::string& key) {
        const std::lock_guard lock(mutex_);
        won_.at(key).attempted = true;
    }
    void answered(const std::string& key, const std::string& receipt) {
        const std::lock_guard lock(mutex_);
        won_.at(key).receipt = receipt;
        ++completed;
    }
    // Counts an error; whether nobody knows what became of the call.
    bool failed_unknown(const dedup::Error& error, const std::string& key) {
        const bool open = error.code == Code::outcome_unknown;
        ++(open ? unknown : failed);
        if (!open && error.code != Code::unavailable && error.code != Code::stale_claim) {
            complain(fmt::format("{}: {}", key, error.message));
        }
        return open;
    }
    [[nodiscard]] const std::map<std::string, Won>& all() const { return won_; }
    [[nodiscard]] std::uint64_t wrong() const { return wrong_; }

  private:
    std::mutex mutex_;
    std::map<std::string, Won> won_;
    std::set<std::uint64_t> fences_;
    std::uint64_t wrong_ = 0;
};

void fight(dedup::Cache& cache, Ledger& ledger) {
    const std::string key = fmt::format("fought-{}", ledger.turns++ / kTurnsAKey);
    auto outcome = cache.claim(key);
    if (!outcome) {
        ledger.failed_unknown(outcome.error(), key);
        std::this_thread::sleep_for(50ms);
        return;
    }
    const auto* claimed = std::get_if<dedup::Claimed>(&*outcome);
    if (claimed == nullptr) {
        return;
    }
    ledger.won(key, claimed->claim.claim_sequence);
    ledger.attempts(key);
    const std::string receipt = fmt::format("receipt of {}", claimed->claim.claim_sequence);
    for (int attempt = 0; attempt < 3; ++attempt) {
        const auto done = cache.complete(claimed->claim, receipt);
        if (done) {
            ledger.answered(key, receipt);
            return;
        }
        ledger.failed_unknown(done.error(), key);
        if (done.error().code == Code::stale_claim) {
            ledger.complain(fmt::format("{}: the claim was acknowledged and is stale: {}", key,
                                        done.error().message));
            return;
        }
    }
}

// Its fences rise, whatever became of the steps between.
void cycle(dedup::Cache& cache, Ledger& ledger, const std::string& key, std::uint64_t& last) {
    auto outcome = cache.claim(key);
    if (!outcome) {
        ledger.failed_unknown(outcome.error(), key);
        std::this_thread::sleep_for(50ms);
        return;
    }
    if (const auto* held = std::get_if<dedup::InFlight>(&*outcome)) {
        // Of an own claim or release whose end was unknown.
        if (held->claim_sequence < last) {
            ledger.complain(
                fmt::format("{}: fence {} is back, behind {}", key, held->claim_sequence, last));
        }
        if (const auto released = cache.release_current(key); !released) {
            ledger.failed_unknown(released.error(), key);
        }
        return;
    }
    const auto* claimed = std::get_if<dedup::Claimed>(&*outcome);
    if (claimed == nullptr) {
        ledger.complain(key + ": neither claimed nor in flight");
        return;
    }
    const std::uint64_t fence = claimed->claim.claim_sequence;
    if (fence <= last) {
        ledger.complain(fmt::format("{}: fence {} behind {}", key, fence, last));
    }
    last = std::max(last, fence);
    ledger.fenced(key, fence);
    if (const auto released = cache.release(claimed->claim); !released) {
        ledger.failed_unknown(released.error(), key);
    }
}

// Every key that was won must say what was acknowledged of it.
void check(dedup::Cache& cache, Ledger& ledger) {
    for (const auto& [key, won] : ledger.all()) {
        auto outcome = cache.lookup(key);
        for (int i = 0; i < 100 && !outcome && outcome.error().code == Code::unavailable; ++i) {
            std::this_thread::sleep_for(200ms);
            outcome = cache.lookup(key);
        }
        if (!outcome) {
            ledger.complain(fmt::format("{}: {}", key, outcome.error().message));
        } else if (const auto* completed = std::get_if<dedup::Completed>(&*outcome)) {
            const std::string ours = fmt::format("receipt of {}", won.fence);
            if (completed->receipt != ours || !won.attempted) {
                ledger.complain(fmt::format("{}: completed with '{}', and fence {} was given", key,
                                            completed->receipt, won.fence));
            }
        } else if (!won.receipt.empty()) {
            ledger.complain(key + ": its completion was acknowledged and is lost");
        } else if (const auto* held = std::get_if<dedup::InFlight>(&*outcome);
                   held == nullptr || held->claim_sequence != won.fence) {
            ledger.complain(key + ": its claim was acknowledged and is lost");
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("usage: failover_writer URL\n", stderr);
        return 2;
    }
    auto store = dedup::open(argv[1]);
    if (!store) {
        fmt::print("{}\n", store.error().message);
        return 1;
    }
    dedup::Cache cache(**store, {.ttl = 24h});
    Ledger ledger;
    {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < kThreads; ++thread) {
            threads.emplace_back([&, thread](const std::stop_token& stop) {
                const std::string own = fmt::format("own-{}", thread);
                std::uint64_t last = 0;
                while (!stop.stop_requested()) {
                    fight(cache, ledger);
                    cycle(cache, ledger, own, last);
                }
            });
        }
        char byte = 0;
        while (::read(STDIN_FILENO, &byte, 1) > 0) {
        }
    }
    check(cache, ledger);
    const auto closed = (*store)->close();
    if (!closed) {
        ledger.complain(closed.error().message);
    }
    fmt::print(R"({{"keys":{},"claimed":{},"completed":{},"failed":{},"unknown":{},"wrong":{}}})"
               "\n",
               ledger.all().size(), ledger.claimed.load(), ledger.completed.load(),
               ledger.failed.load(), ledger.unknown.load(), ledger.wrong());
    return ledger.wrong() == 0 ? 0 : 1;
}
