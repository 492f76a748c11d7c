#include "dedup/guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

#include "cache/decide.hpp"
#include "cache/reconcile.hpp"
#include "cache/settle.hpp"
#include "guard/heartbeat.hpp"
#include "guard/retry.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kDeadlineMax = std::chrono::years{100};

Result<void> check_event_id(std::string_view event_id) {
    if (const Result<void> checked = check_key(event_id); !checked) {
        return invalid("event id: " + checked.error().message);
    }
    return {};
}

Result<void> check_guard_options(const GuardOptions& options) {
    DEDUP_TRY(check_lease(options.lease));
    if (options.owner.size() > kLabelBytesMax) {
        return invalid(fmt::format("owner is {} bytes; at most {} are allowed",
                                   options.owner.size(), kLabelBytesMax));
    }
    const Retry& retry = options.retry;
    if (retry.pause_min < milliseconds{1} || retry.pause_max < retry.pause_min) {
        return invalid(
            fmt::format("retry: pauses are {} to {} ms; the first must be at least 1 "
                        "and no more than the second",
                        retry.pause_min.count(), retry.pause_max.count()));
    }
    if (options.reclaim_own && options.owner.empty()) {
        return invalid("reclaim_own is set without an owner, whose events it is about");
    }
    return check_options({.ns = options.ns, .ttl = options.retention});
}

// Completes an event, whoever has it in flight. The answer: it was not completed before.
struct MarkOp {
    using Answer = bool;
    const CacheOptions& cache;
    std::string_view key;
    ClaimOptions options;

    [[nodiscard]] Result<void> check() const { return remember().check(); }

    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const {
        if (seen.completed()) {
            return {false, {}};
        }
        if (seen.in_flight()) {
            const CompleteOptions completion{.metadata = options.metadata};
            auto decision = CompleteOp{cache, key, nullptr, "", completion}.decide(seen);
            return {true, std::move(decision.append), decision.change};
        }
        auto decision = remember().decide(seen);
        return {true, std::move(decision.append), decision.change};
    }

    static void landed(Result<bool>&, std::uint64_t) {}

  private:
    [[nodiscard]] RememberOp remember() const { return {cache, key, "", options}; }
};

AlreadyProcessed already(Completed&& done) {
    const bool kept = done.metadata != kResultNotKept;
    return {.result = std::move(done.receipt),
            .processed_at_ms = done.completed_at_ms,
            .metadata = kept ? std::move(done.metadata) : std::string(),
            .result_kept = kept};
}

}  // namespace

Guard::Guard(StreamStore& store, GuardOptions options)
    : store_(store),
      options_(std::move(options)),
      started_ms_(store.now_ms()),
      cache_(store, {.ns = options_.ns,
                     .ttl = options_.retention,
                     .unanswered = options_.reconcile ? Unanswered::hold : options_.unanswered,
                     .attempts_max = options_.attempts_max}) {}

Guard::~Guard() = default;

Result<std::unique_ptr<Guard>> Guard::start(StreamStore& store, GuardOptions options) {
    DEDUP_TRY(check_guard_options(options));
    std::unique_ptr<Guard> guard(new Guard(store, std::move(options)));
    guard->heartbeat_ = DEDUP_TRY(Heartbeat::start(guard->cache_, guard->options_.lease));
    return guard;
}

// One call of process_if_new or process_batch.
class Guard::Run {
  public:
    Run(Guard& guard, std::span<const std::string_view> event_ids, const Work& work,
        std::string_view fingerprint = {})
        : guard_(guard),
          event_ids_(event_ids),
          work_(work),
          fingerprint_(fingerprint),
          start_(steady_clock::now()),
          deadline_ms_(guard.store_.now_ms() +
                       std::min(guard.options_.retry.deadline, kDeadlineMax).count()),
          outcomes_(event_ids.size()) {}

    std::vector<Result<ProcessOutcome>> run() {
        std::vector<std::size_t> open;
        for (std::size_t i = 0; i < event_ids_.size(); ++i) {
            if (Result<void> checked = check_event_id(event_ids_[i]); checked) {
                open.push_back(i);
            } else {
                outcomes_[i] = std::unexpected(std::move(checked).error());
            }
        }
        while (!open.empty()) {
            std::vector<std::size_t> in_flight = claim(open);
            work_all();
            decide_held(in_flight);
            open = wait(in_flight);
        }
        return std::move(outcomes_);
    }

  private:
    // Of an event that this run has claimed.
    struct Mine {
        std::size_t index;
        Claim claim;
        std::optional<Previous> previous;
        std::optional<std::expected<std::string, Failure>> result = {};  // none: it did not run
        std::uint32_t retries = 0;
        bool noted = false;
        bool found_done = false;  // by the reconciling function, which gave the result
        std::optional<std::string> hold_reason = {};  // set: to be held, not released
    };

    template <class Request, class Call>
    auto until_available(std::vector<Request> requests, const Call& call) const {
        return call_until_available(
            std::move(requests), Backoff(guard_.options_.retry, guard_.store_, deadline_ms_), call);
    }

    // Fills mine_ and held_; returns what is in flight elsewhere, or earlier in the batch.
    std::vector<std::size_t> claim(std::span<const std::size_t> open) {
        std::vector<ClaimRequest> requests;
        requests.reserve(open.size());
        for (const std::size_t i : open) {
            requests.push_back(
                {std::string(event_ids_[i]),
                 {.owner = guard_.options_.owner,
                  .fingerprint = std::string(fingerprint_),
                  .lease = guard_.options_.lease,
                  .reclaim_before_ms = guard_.options_.reclaim_own ? guard_.started_ms_ : 0}});
        }
        auto claims = until_available(std::move(requests),
                                      [this](auto span) { return guard_.cache_.claim_many(span); });
        std::vector<std::size_t> in_flight;
        for (std::size_t j = 0; j < open.size(); ++j) {
            const std::size_t i = open[j];
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
    void decide_held(std::vector<std::size_t>& in_flight) {
        for (auto& [i, held] : std::exchange(held_, {})) {
            if (auto outcome = decide(event_ids_[i], std::move(held))) {
                outcomes_[i] = *std::move(outcome);
            } else {
                in_flight.push_back(i);
            }
        }
    }

    // Has a held event decided, if anybody can; nullopt if it is decided.
    std::optional<Result<ProcessOutcome>> decide(std::string_view event_id, Held held) const {
        const GuardOptions& options = guard_.options_;
        if (held.previous.end == End::restarted) {  // so far only this run knows that it is held
            const Claim left{.ns = options.ns,
                             .key = std::string(event_id),
                             .claim_sequence = held.previous.claim_sequence};
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
        const auto resolved =
            guard_.cache_.resolve(event_id, held.previous.claim_sequence,
                                  resolution_of(std::move(finding), options.owner));
        return resolved || decided_by_others(resolved.error().code) ? std::nullopt
                                                                    : failed(resolved.error());
    }

    static std::optional<Result<ProcessOutcome>> failed(const Error& error) {
        return Result<ProcessOutcome>(std::unexpected(error));
    }

    // Whether an event that failed at this attempt is not to be tried again.
    [[nodiscard]] bool was_last(std::uint32_t attempt) const {
        const std::uint32_t most = guard_.options_.attempts_max;
        return most != 0 && attempt >= most;
    }

    // Runs the function for what is claimed, and stores what came of it.
    void work_all() {
        if (mine_.empty()) {
            return;
        }
        const std::vector<Claim> claims = claims_of([](const Mine&) { return true; });
        const Beating beating(*guard_.heartbeat_, claims);
        Mine* running = nullptr;
        try {
            for (Mine& mine : mine_) {
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
            complete();  // of those before it
            give_up();
            throw;
        }
        complete();
        give_up();
        mine_.clear();
    }

    // False if it is known what had become of the attempt before, or if nobody can know: an event
    // that was taken over from a consumer with another policy.
    bool goes_ahead(Mine& mine) const {
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

    [[nodiscard]] bool must_ask(const Mine& mine) const {
        return guard_.options_.reconcile && mine.previous && was_unanswered(*mine.previous);
    }

    Result<void> note(Mine& mine, std::string_view text) const {
        auto noted = guard_.cache_.note(mine.claim, text);
        mine.noted = mine.noted || noted || noted.error().code == Code::outcome_unknown;
        return noted;
    }

    std::expected<std::string, Failure> attempt(Mine& mine) {
        Backoff backoff(guard_.options_.retry, guard_.store_, deadline_ms_);
        while (true) {
            auto result = work_({.event_id = mine.claim.key,
                                 .index = mine.index,
                                 .number = mine.claim.attempt,
                                 .retries = mine.retries,
                                 .fence = mine.claim.claim_sequence,
                                 .note = [&](std::string_view text) { return note(mine, text); },
                                 .previous = mine.previous ? &*mine.previous : nullptr});
            if (result || !result.error().transient || !backoff.pause()) {
                return result;
            }
            ++mine.retries;
        }
    }

    // The work is done, so nothing about its result may keep it from being recorded.
    void complete() {
        std::vector<Completion> completions;
        std::vector<Mine*> done;
        for (Mine& mine : mine_) {
            if (!mine.result || !*mine.result) {
                continue;
            }
            Completion& completion = completions.emplace_back(Completion{mine.claim, {}, {}});
            if (kept(**mine.result)) {
                completion.receipt = std::move(**mine.result);
            } else {
                completion.options.metadata = kResultNotKept;
            }
            done.push_back(&mine);
        }
        if (done.empty()) {
            return;
        }
        const auto stored = until_available(
            completions, [this](auto span) { return guard_.cache_.complete_many(span); });
        for (std::size_t j = 0; j < done.size(); ++j) {
            std::string& result = **done[j]->result;
            if (!stored[j]) {
                const Error& error = stored[j].error();
                if (done[j]->noted && !decided_by_others(error.code)) {
                    done[j]->hold_reason = kept_reason("completing it failed: " + error.message);
                }
                outcomes_[done[j]->index] = std::unexpected(error);
            } else if (done[j]->found_done) {
                outcomes_[done[j]->index] = AlreadyProcessed{
                    .result = result.empty() ? completions[j].receipt : std::move(result),
                    .processed_at_ms = guard_.store_.now_ms(),
                    .metadata = {}};
            } else if (completions[j].options.metadata) {
                outcomes_[done[j]->index] = Success{std::move(result), false};
            } else {
                outcomes_[done[j]->index] = Success{std::move(completions[j].receipt)};
            }
        }
    }

    static bool kept(const std::string& result) { return result.size() <= kReceiptBytesMax; }

    // Frees what failed or did not run; holds that of which nobody can say whether it was done, and
    // what has failed for the last time.
    void give_up() {
        for (Mine& mine : mine_) {
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
        auto claims = claims_of(unfinished);
        if (claims.empty()) {
            return;
        }
        const auto released = until_available(
            std::move(claims), [this](auto span) { return guard_.cache_.release_many(span); });
        std::size_t j = 0;
        for (Mine& mine : mine_) {
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

    void hold(Mine& mine) {
        const auto held = until_available(std::vector<Mine*>{&mine}, [this](auto span) {
            const Mine& held_mine = *span.front();
            return std::vector<Result<void>>{
                guard_.cache_.hold(held_mine.claim, *held_mine.hold_reason)};
        });
        if (mine.result && *mine.result) {
            return;  // the outcome says why it is not completed
        }
        if (!held.front() && held.front().error().code != Code::stale_claim) {
            outcomes_[mine.index] = std::unexpected(held.front().error());
        } else if (mine.result) {
            outcomes_[mine.index] = Failed{std::move(mine.result->error()), mine.retries};
        } else if (mine.previous) {
            mine.previous->reason = std::move(*mine.hold_reason);
            outcomes_[mine.index] = Held{std::move(*mine.previous)};
        }
    }

    // Waits for those that are in flight elsewhere; returns those that are free now.
    std::vector<std::size_t> wait(std::span<const std::size_t> in_flight) {
        std::vector<std::size_t> free;
        for (const std::size_t i : in_flight) {
            const auto waited =
                std::chrono::duration_cast<milliseconds>(steady_clock::now() - start_);
            auto found = guard_.cache_.wait(event_ids_[i], guard_.options_.wait - waited);
            if (!found) {
                outcomes_[i] = std::unexpected(std::move(found).error());
            } else if (auto* done = std::get_if<Completed>(&*found)) {
                outcomes_[i] = already(std::move(*done));
            } else if (auto* held = std::get_if<InFlight>(&*found); held && holds(*held)) {
                outcomes_[i] = std::move(*held);
            } else {
                free.push_back(i);
            }
        }
        return free;
    }

    [[nodiscard]] bool holds(const InFlight& held) const {
        return !held.held &&
               (held.lease_until_ms == 0 || guard_.store_.now_ms() <= held.lease_until_ms);
    }

    template <class Which>
    [[nodiscard]] std::vector<Claim> claims_of(const Which& which) const {
        std::vector<Claim> claims;
        claims.reserve(mine_.size());
        for (const Mine& mine : mine_) {
            if (which(mine)) {
                claims.push_back(mine.claim);
            }
        }
        return claims;
    }

    // While it lives, the claims' leases are renewed.
    class Beating {
      public:
        Beating(Heartbeat& heartbeat, std::span<const Claim> claims)
            : heartbeat_(heartbeat), claims_(claims) {
            try {
                heartbeat_.add(claims_);
            } catch (const std::bad_alloc&) {
                heartbeat_.remove(claims_);  // or those that it has would be renewed for ever
                throw;
            }
        }
        ~Beating() { heartbeat_.remove(claims_); }
        Beating(const Beating&) = delete;
        Beating& operator=(const Beating&) = delete;

      private:
        Heartbeat& heartbeat_;
        std::span<const Claim> claims_;
    };

    Guard& guard_;
    std::span<const std::string_view> event_ids_;
    const Work& work_;
    std::string_view fingerprint_;  // of every event
    steady_clock::time_point start_;
    std::int64_t deadline_ms_;
    std::vector<Result<ProcessOutcome>> outcomes_;
    std::vector<Mine> mine_;
    std::vector<std::pair<std::size_t, Held>> held_;  // by index; not decided yet
};

Result<ProcessOutcome> Guard::process_if_new(std::string_view event_id, const Work& work,
                                             std::string_view fingerprint) {
    return std::move(Run(*this, {&event_id, 1}, work, fingerprint).run().front());
}

std::vector<Result<ProcessOutcome>> Guard::process_batch(
    std::span<const std::string_view> event_ids, const Work& work) {
    return Run(*this, event_ids, work).run();
}

Result<bool> Guard::is_processed(std::string_view event_id) {
    if (Result<void> checked = check_event_id(event_id); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    auto found = cache_.lookup(event_id);
    if (!found) {
        return std::unexpected(std::move(found).error());
    }
    return std::holds_alternative<Completed>(*found);
}

Result<bool> Guard::mark_processed(std::string_view event_id, std::string_view metadata) {
    if (Result<void> checked = check_event_id(event_id); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    if (metadata == kResultNotKept) {
        return std::unexpected(invalid("metadata says that a result was too long to keep, which "
                                       "only the guard may say; use other words")
                                   .error());
    }
    const CacheOptions cache{.ns = options_.ns, .ttl = options_.retention};
    const MarkOp op{cache, event_id, {.owner = options_.owner, .metadata = std::string(metadata)}};
    return std::move(settle_span(store_, std::span(&op, 1)).front());
}

Result<std::uint64_t> Guard::cleanup_old_events() {
    const auto report = store_.sweep();
    if (!report) {
        return std::unexpected(report.error());
    }
    const auto own = std::ranges::find(report->namespaces, options_.ns, &SweptNamespace::ns);
    return own == report->namespaces.end() ? 0 : own->removed.total();
}

}  // namespace dedup
