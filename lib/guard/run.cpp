#include "guard/run.hpp"

#include <algorithm>

#include "cache/reconcile.hpp"
#include "guard/attempt.hpp"
#include "guard/heartbeat.hpp"

namespace dedup {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

AlreadyProcessed already(Completed&& done) {
    const bool kept = done.metadata != kResultNotKept;
    return {.result = std::move(done.receipt),
            .processed_at_ms = done.completed_at_ms,
            .metadata = kept ? std::move(done.metadata) : std::string(),
            .result_kept = kept};
}

std::optional<Result<ProcessOutcome>> failed(const Error& error) {
    return Result<ProcessOutcome>(std::unexpected(error));
}

}  // namespace

Guard::Run::Run(Guard& guard, std::span<const BatchEvent> events, WorkRef work,
                const RunOptions& options)
    : guard_(guard),
      events_(events),
      work_(work),
      options_(options),
      start_(steady_clock::now()),
      deadline_ms_(retry_deadline_ms(guard.options_.retry, guard.store_)),
      outcomes_(events.size()),
      completing_(options.stream == nullptr ? 0 : events.size()) {}

std::vector<Result<ProcessOutcome>> Guard::Run::run() {
    std::vector<std::size_t> open;
    for (std::size_t i = 0; i < events_.size(); ++i) {
        if (Result<void> checked = check_event_id(events_[i].id); checked) {
            open.push_back(i);
        } else {
            outcomes_[i] = std::unexpected(std::move(checked).error());
        }
    }
    while (!open.empty()) {
        std::vector<std::size_t> in_flight = claim_and_work(take_turns(open));
        decide_held(in_flight);
        const std::vector<std::size_t> again = wait(in_flight);
        open.insert(open.end(), again.begin(), again.end());
        std::ranges::sort(open);
    }
    move_offset();
    return std::move(outcomes_);
}

// Takes out of `open` what is to be claimed next. Of equal ids that is the first one; and once that
// has its outcome, all others, or again only the first of them if it has failed: then the event is
// free, and each of them is a delivery of its own.
std::vector<std::size_t> Guard::Run::take_turns(std::vector<std::size_t>& open) {
    std::vector<std::size_t> turn;
    std::vector<std::size_t> later;
    for (const std::size_t i : open) {
        std::size_t& ahead = ahead_.try_emplace(events_[i].id, i).first->second;
        if (ahead != i && std::ranges::binary_search(open, ahead)) {
            later.push_back(i);
            continue;
        }
        if (has_failed(ahead)) {
            ahead = i;
        }
        turn.push_back(i);
    }
    open = std::move(later);
    return turn;
}

bool Guard::Run::has_failed(std::size_t index) const {
    return outcomes_[index] && outcomes_[index]->failed() != nullptr;
}

// Returns what is in flight elsewhere.
std::vector<std::size_t> Guard::Run::claim_and_work(std::span<const std::size_t> turn) {
    Beating beating(*guard_.heartbeat_);
    std::vector<std::size_t> in_flight = claim(turn, beating);
    work_all(beating);
    return in_flight;
}

// Fills mine_ and held_; returns what is in flight elsewhere. What is claimed beats at once, as
// trying again what the store was unavailable for may take longer than a lease.
std::vector<std::size_t> Guard::Run::claim(std::span<const std::size_t> turn, Beating& beating) {
    std::vector<ClaimRequest> requests;
    requests.reserve(turn.size());
    for (const std::size_t i : turn) {
        requests.push_back(
            {std::string(events_[i].id),
             {.owner = guard_.options_.owner,
              .fingerprint = std::string(events_[i].fingerprint),
              .lease = guard_.options_.lease,
              .reclaim_before_ms = guard_.options_.reclaim_own ? guard_.started_ms_ : 0}});
    }
    auto claims = until_available(std::move(requests), [&](auto span) {
        auto some = guard_.cache_.claim_many(span);
        beating.add(some);
        return some;
    });
    std::vector<std::size_t> in_flight;
    for (std::size_t j = 0; j < turn.size(); ++j) {
        const std::size_t i = turn[j];
        if (!claims[j]) {
            outcomes_[i] = std::unexpected(std::move(claims[j]).error());
        } else if (auto* claimed = std::get_if<Claimed>(&*claims[j])) {
            mine_.push_back({i, std::move(claimed->claim), std::move(claimed->previous)});
        } else if (auto* done = std::get_if<Completed>(&*claims[j])) {
            outcomes_[i] = already(std::move(*done));
        } else if (auto* other = std::get_if<Mismatch>(&*claims[j])) {
            outcomes_[i] = std::move(*other);
        } else if (auto* held = std::get_if<Held>(&*claims[j])) {
            held_.emplace_back(i, std::move(*held));
        } else {
            in_flight.push_back(i);
        }
    }
    return in_flight;
}

// When no claim of this run is open any more, as asking may take longer than a lease. Adds to
// `in_flight` what is decided, and to be looked at again.
void Guard::Run::decide_held(std::vector<std::size_t>& in_flight) {
    for (auto& [i, held] : std::exchange(held_, {})) {
        if (auto outcome = decide(events_[i].id, std::move(held))) {
            outcomes_[i] = *std::move(outcome);
        } else {
            in_flight.push_back(i);
        }
    }
}

// Has a held event decided, if anybody can; nullopt if it is decided.
std::optional<Result<ProcessOutcome>> Guard::Run::decide(std::string_view event_id,
                                                         Held held) const {
    const GuardOptions& options = guard_.options_;
    const Claim left{.ns = options.ns,
                     .key = std::string(event_id),
                     .claim_sequence = held.previous.claim_sequence};
    if (held.previous.end == End::restarted) {  // so far only this run knows that it is held
        const auto kept = guard_.cache_.hold(left, "its consumer has started again");
        if (!kept) {
            return decided_by_others(kept.error().code) ? std::nullopt : failed(kept.error());
        }
    }
    if (!options.reconcile) {
        return held;
    }
    Finding finding = ask(options.reconcile, event_id, held.previous);
    if (finding.what == Finding::What::unknown) {
        held.previous.reason = std::move(finding.text);
        return held;
    }
    if (finding.what == Finding::What::not_done && was_last(held.previous.attempt)) {
        return held;
    }
    const bool keeps_text = finding.what != Finding::What::done || fits(finding.text);
    const auto resolved =
        keeps_text ? guard_.cache_.resolve(event_id, left.claim_sequence,
                                           resolution_of(std::move(finding), options.owner))
                   : guard_.cache_.complete(left, {}, {.metadata = std::string(kResultNotKept)});
    return resolved || decided_by_others(resolved.error().code) ? std::nullopt
                                                                : failed(resolved.error());
}

// Whether an event that failed at this attempt is not to be tried again.
bool Guard::Run::was_last(std::uint32_t attempt) const {
    return is_last(attempt, guard_.options_.attempts_max);
}

// Waits for those that are in flight elsewhere; returns those that are to be claimed again: they
// are free, or completed, by now, perhaps for another event under the same id.
std::vector<std::size_t> Guard::Run::wait(std::span<const std::size_t> in_flight) {
    std::vector<std::size_t> open;
    for (const std::size_t i : in_flight) {
        const auto waited = std::chrono::duration_cast<milliseconds>(steady_clock::now() - start_);
        auto found = guard_.cache_.wait(events_[i].id, guard_.options_.wait - waited);
        if (!found) {
            outcomes_[i] = std::unexpected(std::move(found).error());
        } else if (auto* held = std::get_if<InFlight>(&*found); held && holds(*held)) {
            outcomes_[i] = std::move(*held);
        } else {
            open.push_back(i);
        }
    }
    return open;
}

bool Guard::Run::holds(const InFlight& held) const {
    return !held.held &&
           (held.lease_until_ms == 0 || guard_.store_.now_ms() <= held.lease_until_ms);
}

}  // namespace dedup
