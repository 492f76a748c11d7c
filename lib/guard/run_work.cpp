// What a run does with the events that it has claimed.
#include <algorithm>

#include "cache/reconcile.hpp"
#include "guard/heartbeat.hpp"
#include "guard/run.hpp"

namespace dedup {

// Runs the function for what is claimed, and stores what came of it, part by part.
void Guard::Run::work_all(Beating& beating) {
    const std::size_t every = options_.complete_every == 0 ? mine_.size() : options_.complete_every;
    for (std::size_t at = 0; at < mine_.size();) {
        const std::size_t count = std::min(every, mine_.size() - at);
        const auto part = std::span(mine_).subspan(at, count);
        work_on(part);
        std::vector<std::uint64_t> fences;
        for (const Mine& mine : part) {
            fences.push_back(mine.claim.claim_sequence);
        }
        beating.done(fences);
        at += count;
    }
    mine_.clear();
}

void Guard::Run::work_on(std::span<Mine> part) {
    Mine* running = nullptr;
    try {
        for (Mine& mine : part) {
            running = &mine;
            if (goes_ahead(mine)) {
                mine.result = attempt(mine);
            }
        }
    } catch (...) {
        if (running->noted || was_last(running->claim.attempt)) {
            running->hold_reason = what_was_thrown();
        }
        for (Mine* rest = running + 1; rest != mine_.data() + mine_.size(); ++rest) {
            if (must_ask(*rest)) {  // the next claim would not know that
                rest->hold_reason = "nobody was asked yet what had become of it";
            }
        }
        complete(part);  // of those before it
        give_up({part.data(), mine_.data() + mine_.size()});
        throw;
    }
    complete(part);
    give_up(part);
}

// False if it is known what had become of the attempt before, or if nobody can know: an event
// that was taken over from a consumer with another policy.
bool Guard::Run::goes_ahead(Mine& mine) const {
    if (!must_ask(mine)) {
        return true;
    }
    Finding finding = ask(guard_.options_.reconcile, mine.claim.key, *mine.previous);
    mine.found_done = finding.what == Finding::What::done;
    if (mine.found_done) {
        mine.result = std::move(finding.text);
    } else if (finding.what == Finding::What::unknown) {
        mine.hold_reason = std::move(finding.text);
    }
    return finding.what == Finding::What::not_done;
}

bool Guard::Run::must_ask(const Mine& mine) const {
    return guard_.options_.reconcile && mine.previous && was_unanswered(*mine.previous);
}

Result<void> Guard::Run::note(Mine& mine, std::string_view text) const {
    auto noted = guard_.cache_.note(mine.claim, text);
    mine.noted = mine.noted || noted || noted.error().code == Code::outcome_unknown;
    return noted;
}

std::expected<std::string, Failure> Guard::Run::attempt(Mine& mine) {
    Backoff pauses = backoff();
    while (true) {
        auto result = work_({.event_id = mine.claim.key,
                             .index = mine.index,
                             .number = mine.claim.attempt,
                             .retries = mine.retries,
                             .fence = mine.claim.claim_sequence,
                             .note = [&](std::string_view text) { return note(mine, text); },
                             .previous = mine.previous ? &*mine.previous : nullptr});
        if (result || !result.error().transient || !pauses.pause()) {
            return result;
        }
        ++mine.retries;
    }
}

// The work is done, so nothing about its result may keep it from being recorded.
void Guard::Run::complete(std::span<Mine> part) {
    std::vector<Completion> completions;
    std::vector<Mine*> done;
    for (Mine& mine : part) {
        if (!mine.result || !*mine.result) {
            continue;
        }
        Completion& completion = completions.emplace_back(Completion{mine.claim, {}, {}});
        if (fits(**mine.result)) {
            completion.receipt = std::move(**mine.result);
        } else {
            completion.options.metadata = kResultNotKept;
        }
        done.push_back(&mine);
    }
    if (done.empty()) {
        return;
    }
    const auto stored = store(done, completions);
    for (std::size_t j = 0; j < done.size(); ++j) {
        completed(*done[j], completions[j], stored[j]);
    }
}

std::vector<Result<void>> Guard::Run::store(std::span<Mine* const> done,
                                            const std::vector<Completion>& completions) {
    if (complete_and_move(done, completions)) {
        return std::vector<Result<void>>(done.size());
    }
    return until_available(completions,
                           [this](auto span) { return guard_.cache_.complete_many(span); });
}

void Guard::Run::completed(Mine& mine, Completion& completion, const Result<void>& stored) {
    auto& outcome = outcomes_[mine.index];
    std::string& result = **mine.result;
    if (!stored) {
        const Error& error = stored.error();
        if (mine.noted && !decided_by_others(error.code)) {
            mine.hold_reason = kept_reason("completing it failed: " + error.message);
        }
        outcome = std::unexpected(error);
    } else if (mine.found_done) {
        outcome =
            AlreadyProcessed{.result = result.empty() ? completion.receipt : std::move(result),
                             .processed_at_ms = guard_.store_.now_ms(),
                             .metadata = {}};
    } else if (completion.options.metadata) {
        outcome = Success{std::move(result), false};
    } else {
        outcome = Success{std::move(completion.receipt)};
    }
}

// Frees what failed or did not run; holds that of which nobody can say whether it was done, and
// what has failed for the last time.
void Guard::Run::give_up(std::span<Mine> part) {
    for (Mine& mine : part) {
        if (mine.result && !*mine.result && was_last(mine.claim.attempt)) {
            mine.hold_reason = kept_reason(mine.result->error().message);
        }
        if (mine.hold_reason) {
            hold(mine);
        }
    }
    const auto unfinished = [](const Mine& mine) {
        return !mine.hold_reason && (!mine.result || !*mine.result);
    };
    std::vector<Claim> claims;
    for (const Mine& mine : part) {
        if (unfinished(mine)) {
            claims.push_back(mine.claim);
        }
    }
    if (claims.empty()) {
        return;
    }
    const auto released = until_available(
        std::move(claims), [this](auto span) { return guard_.cache_.release_many(span); });
    std::size_t j = 0;
    for (Mine& mine : part) {
        if (!unfinished(mine)) {
            continue;
        }
        // If somebody else has the event by now, it is not this run's to free.
        const auto& freed = released[j++];
        if (!freed && freed.error().code != Code::stale_claim) {
            outcomes_[mine.index] = std::unexpected(freed.error());
        } else if (mine.result) {
            outcomes_[mine.index] = Failed{std::move(mine.result->error()), mine.retries};
        }
    }
}

void Guard::Run::hold(Mine& mine) {
    const auto held =
        until_available([&] { return guard_.cache_.hold(mine.claim, *mine.hold_reason); });
    if (mine.result && *mine.result) {
        return;  // the outcome says why it is not completed
    }
    if (!held && held.error().code != Code::stale_claim) {
        outcomes_[mine.index] = std::unexpected(held.error());
    } else if (mine.result) {
        outcomes_[mine.index] = Failed{std::move(mine.result->error()), mine.retries};
    } else if (mine.previous) {
        mine.previous->reason = std::move(*mine.hold_reason);
        outcomes_[mine.index] = Held{std::move(*mine.previous)};
    }
}

}  // namespace dedup
