#include "claim_and_wait.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "common/text.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

ClaimAnswer claim_once(const Context& context, const std::string& key,
                       const dedup::ClaimOptions& options, const std::function<bool()>& stopped) {
    const auto store = context.open_writer([&] { return !stopped || !stopped(); });
    ClaimAnswer answer{take(context.cache(*store).claim(key, options)), store->now_ms()};
    take(store->close());
    return answer;
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
        const dedup::LookupOutcome found = take(context.cache(*store).lookup(key));
        const auto* in_flight = std::get_if<dedup::InFlight>(&found);
        if (in_flight == nullptr || in_flight->held ||
            (in_flight->lease_until_ms != 0 && in_flight->lease_until_ms < store->now_ms())) {
            return;
        }
        const auto took =
            std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - started);
        pause = std::clamp(pause * 2, took * 4, std::max(milliseconds{500}, took * 4));
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
    ClaimAnswer answer = claim_once(context, key, options, stopped);
    while (std::holds_alternative<dedup::InFlight>(answer.outcome) &&
           std::chrono::steady_clock::now() < until && !(stopped && stopped())) {
        watch_key(context, key, until, stopped);
        if (!(stopped && stopped())) {
            answer = claim_once(context, key, options, stopped);
        }
    }
    return answer;
}

}  // namespace dedupctl
