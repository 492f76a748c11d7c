// Processes that fight for the right to write.
//
// Each tries to open the store again and again. Whoever gets it writes until it is killed, in the
// middle of whatever it does; the others are told its pid meanwhile, and one of them comes next. No
// two ever hold the store at a time, and each finds all that those before it had acknowledged.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <random>
#include <string>
#include <thread>

#include "dedup/cache.hpp"
#include "support/child_process.hpp"
#include "support/environment.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr std::size_t kContenders = 3;
constexpr std::uint64_t kLookedBack = 40;  // keys that each new holder looks for

struct Contest {
    std::atomic<pid_t> holder{0};
    std::atomic<pid_t> dying{0};  // the holder that is being killed
    std::atomic<std::uint64_t> acknowledged{0};
    struct Contender {
        std::atomic<pid_t> told{0};  // the holder that the last refusal has named
        std::atomic<bool> wrong{false};
        std::array<char, 300> what{};
    };
    std::array<Contender, kContenders> contenders;
};

int fail(Contest::Contender& contender, const std::string& what) {
    what.copy(contender.what.data(), contender.what.size() - 1);
    contender.wrong = true;
    return 1;
}

// The pid that a refusal names; 0 if none, as in the moment between a lock and its note.
pid_t pid_in(const std::string& message) {
    constexpr std::string_view kBefore = "process ";
    const auto at = message.find(kBefore);
    pid_t pid = 0;
    if (at != std::string::npos) {
        const char* text = message.data() + at + kBefore.size();
        std::from_chars(text, message.data() + message.size(), pid);
    }
    return pid;
}

std::string key_of(std::uint64_t number) {
    return "key-" + std::to_string(number);
}

// Some receipts are long, so that segments fill up and are sealed.
std::string receipt_of(std::uint64_t number) {
    return std::to_string(number) + std::string(number % 7 == 0 ? 9'000 : 0, '.');
}

bool has(Cache& cache, std::uint64_t number) {
    const auto found = cache.lookup(key_of(number));
    const auto* completed = found ? std::get_if<Completed>(&*found) : nullptr;
    return completed != nullptr && completed->receipt == receipt_of(number);
}

// Writes until killed.
int hold(StreamStore& store, Contest& contest, Contest::Contender& self) {
    const pid_t before = contest.holder.exchange(getpid());
    if (before != 0 && before != contest.dying) {
        return fail(self, "process " + std::to_string(before) + " held the store");
    }
    Cache cache(store);
    const std::uint64_t last = contest.acknowledged;
    for (std::uint64_t i = last > kLookedBack ? last - kLookedBack : 1; i <= last; ++i) {
        if (!has(cache, i)) {
            return fail(self, key_of(i) + " is lost");
        }
    }
    for (std::uint64_t i = last + 1;; ++i) {
        const auto remembered = cache.remember(key_of(i), receipt_of(i));
        // The first may be there: its writer was killed before it could tell.
        if (!remembered || (i != last + 1 && !std::holds_alternative<New>(*remembered)) ||
            !has(cache, i)) {
            return fail(self,
                        key_of(i) + ": " + (remembered ? "not new" : remembered.error().message));
        }
        contest.acknowledged = i;
    }
}

int contend(const std::filesystem::path& path, Contest& contest, std::size_t place) {
    Contest::Contender& self = contest.contenders[place];
    while (true) {
        auto store = open(path, small_segments());
        if (store) {
            return hold(**store, contest, self);
        }
        if (store.error().code != Code::busy) {
            return fail(self, store.error().message);
        }
        self.told = pid_in(store.error().message);
    }
}

class Fight {
  public:
    Fight() {
        for (std::size_t place = 0; place < kContenders; ++place) {
            start(place);
        }
    }
    ~Fight() { end(); }

    void end() {
        for (pid_t& pid : pids_) {
            if (pid > 0) {  // or it would be everybody
                kill(pid, SIGKILL);
                waitpid(pid, nullptr, 0);
            }
            pid = 0;
        }
    }

    // Waits until one has the store and the others know whose it is; kills it some time later.
    void round() {
        std::size_t winner = kContenders;
        const bool settled = wait_until([&] {
            const pid_t holder = contest_->holder;
            winner = static_cast<std::size_t>(std::ranges::find(pids_, holder) - pids_.begin());
            return holder != 0 && std::ranges::all_of(pids_, [&](const pid_t& pid) {
                       const auto place = static_cast<std::size_t>(&pid - pids_.data());
                       return place == winner || contest_->contenders[place].told == holder;
                   });
        });
        REQUIRE(settled);
        REQUIRE(winner < kContenders);
        std::this_thread::sleep_for(std::chrono::microseconds(random_() % 3'000));
        const pid_t pid = pids_[winner];
        contest_->dying = pid;
        REQUIRE(kill(pid, SIGKILL) == 0);
        REQUIRE(exit_code(pid) == 128 + SIGKILL);
        // Unless the next has taken it already.
        pid_t still = pid;
        contest_->holder.compare_exchange_strong(still, 0);
        start(winner);
    }

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::uint64_t acknowledged() const { return contest_->acknowledged; }

  private:
    void start(std::size_t place) {
        contest_->contenders[place].told = 0;
        pids_[place] = in_child([&] { return contend(path_, *contest_, place); });
    }

    // False: something is wrong, or it takes for ever.
    template <class Condition>
    bool wait_until(Condition condition) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (std::chrono::steady_clock::now() < end) {
            for (const auto& contender : contest_->contenders) {
                if (contender.wrong) {
                    FAIL_CHECK(std::string(contender.what.data()));
                    return false;
                }
            }
            if (condition()) {
                return true;
            }
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
        return false;
    }

    const TempDir dir_{fast_directory()};
    const std::filesystem::path path_ = dir_.path() / "store";
    Shared<Contest> contest_;
    std::array<pid_t, kContenders> pids_{};
    std::minstd_rand random_{44};
};

TEST_CASE(
    "processes that fight for a store: one holds it, the others are told who, kill -9 ends it") {
    const auto rounds = number_from_environment("DEDUP_LOCK_ROUNDS", 300);
    Fight fight;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        fight.round();
    }
    const std::uint64_t acknowledged = fight.acknowledged();
    MESSAGE(rounds << " holders killed; " << acknowledged << " keys");
    CHECK(acknowledged > rounds);
    // Or the last holder may fill segments faster than a busy machine reads them.
    fight.end();
    const auto store = must_open(fight.path(), read_only());
    Cache cache(*store);
    std::uint64_t missing = 0;
    for (std::uint64_t i = 1; i <= acknowledged; ++i) {
        missing += has(cache, i) ? 0U : 1U;
    }
    CHECK(missing == 0);
}

}  // namespace
}  // namespace dedup::test
