#include "claim_and_wait.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "common/text.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

using Store = std::unique_ptr<dedup::StreamStore>;

// How often it is asked whether to go on with a wait that does not end by itself.
constexpr milliseconds kStopEvery{500};

// Whether claiming it again would give the same answer.
bool is_worked_on(const dedup::LookupOutcome& found, std::int64_t now_ms) {
    const auto* in_flight = std::get_if<dedup::InFlight>(&found);
    return in_flight != nullptr && !in_flight->held &&
           (in_flight->lease_until_ms == 0 || in_flight->lease_until_ms >= now_ms);
}

// Watches the key through read-only openings until claiming it again may give another answer, or
// until `until`. An opening reads the log's unsealed tail, so the next one comes after a pause
// that is a few times as long as the last one took.
void watch_key(const Context& context, const std::string& key, SteadyTime until,
               const std::function<bool()>& stopped) {
    milliseconds pause{20};
    while (std::chrono::steady_clock::now() < until && !(stopped && stopped())) {
        std::this_thread::sleep_until(std::min(until, std::chrono::steady_clock::now() + pause));
        const SteadyTime started = std::chrono::steady_clock::now();
        const auto store = context.open_reader();
        if (!is_worked_on(take(context.cache(*store).lookup(key)), store->now_ms())) {
            return;
        }
        const auto took =
            std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - started);
        pause = std::clamp(pause * 2, took * 4, std::max(milliseconds{500}, took * 4));
    }
}

// The same in a store that others may write to meanwhile: it stays open, and who serves it says
// when. One that fails is opened again.
void wait_for_key(const Context& context, Store& store, const std::string& key, SteadyTime until,
                  const std::function<bool()>& stopped) {
    for (auto now = std::chrono::steady_clock::now(); now < until && !(stopped && stopped());
         now = std::chrono::steady_clock::now()) {
        const auto left = std::chrono::ceil<milliseconds>(until - now);
        const auto found =
            context.cache(*store).wait(key, stopped ? std::min(left, kStopEvery) : left);
        if (!found) {
            store.reset();
            return;
        }
        if (!is_worked_on(*found, store->now_ms())) {
            return;
        }
    }
}

}  // namespace

void set_policy(dedup::ClaimOptions& claim, bool hold, const std::string& attempts_max) {
    if (hold) {
        claim.unanswered = dedup::Unanswered::hold;
    }
    if (!attempts_max.empty()) {
        claim.attempts_max =
            static_cast<std::uint32_t>(parse_number(attempts_max, "--attempts-max", 1, UINT32_MAX));
    }
}

ClaimAnswer claim_and_wait(const Context& context, const std::string& key,
                           const dedup::ClaimOptions& options, milliseconds wait,
                           const std::function<bool()>& stopped) {
    // A wait beyond a century is one for good; the sum below must not overflow.
    const SteadyTime until = std::chrono::steady_clock::now() +
                             std::min<milliseconds>(wait, std::chrono::hours{24 * 36'500});
    const auto is_stopped = [&] { return stopped && stopped(); };
    Store store;
    for (;;) {
        if (!store) {
            store = context.open_writer([&] { return !is_stopped(); });
        }
        ClaimAnswer answer{take(context.cache(*store).claim(key, options)), store->now_ms()};
        const bool waits = std::holds_alternative<dedup::InFlight>(answer.outcome) &&
                           std::chrono::steady_clock::now() < until && !is_stopped();
        if (waits && store->reads_are_remote()) {
            wait_for_key(context, store, key, until, stopped);
        } else {
            take(store->close());
            store.reset();
            if (waits) {
                watch_key(context, key, until, stopped);
            }
        }
        if (!waits || is_stopped()) {
            return answer;
        }
    }
}

}  // namespace dedupctl
