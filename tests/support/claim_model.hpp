// The claim protocol of a single key, as a few plain fields.
//
// Written from the protocol's description, not from its implementation: it knows no records, no
// sequences of its own, no batches and no races. Of a new claim it is told the fence.
#pragma once

#include <algorithm>
#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "dedup/cache.hpp"

namespace dedup::test {

// A note as the model keeps it: how it begins, and its length.
inline std::string brief(const std::string& note) {
    return note.substr(0, 16) + "/" + std::to_string(note.size());
}

// Outcomes as text, so that one comparison covers all of their fields.
inline std::string show(const Previous& o) {
    return std::string(name(o.end)) + " of " + o.owner + " began " + std::to_string(o.began_ms) +
           " ended " + std::to_string(o.ended_ms) + " fence " + std::to_string(o.claim_sequence) +
           " attempt " + std::to_string(o.attempt) + " note " + brief(o.note) + " reason " +
           o.reason + " by " + o.by;
}
inline std::string show(const Claim& o) {
    return "claimed " + o.ns + " " + o.key + " fence " + std::to_string(o.claim_sequence) +
           " deadline " + std::to_string(o.deadline_ms) + " attempt " + std::to_string(o.attempt);
}
inline std::string show(const Claimed& o) {
    return show(o.claim) + " note " + brief(o.metadata) +
           (o.previous ? " after " + show(*o.previous) : "");
}
inline std::string show(const Held& o) {
    return "held " + show(o.previous);
}
inline std::string show(const Completed& o) {
    return "completed " + o.receipt + " at " + std::to_string(o.completed_at_ms) + " fence " +
           std::to_string(o.claim_sequence) + " expires " + std::to_string(o.expires_at_ms) +
           " attempt " + std::to_string(o.attempt) + " note " + brief(o.metadata);
}
inline std::string show(const InFlight& o) {
    return "in flight " + o.owner + " since " + std::to_string(o.since_ms) + " lease " +
           std::to_string(o.lease_until_ms) + " expires " + std::to_string(o.expires_at_ms) +
           " fence " + std::to_string(o.claim_sequence) + " attempt " + std::to_string(o.attempt) +
           " note " + brief(o.metadata) + (o.unanswered == Unanswered::hold ? " holds" : "") +
           (o.held ? " held" : "");
}
inline std::string show(const Mismatch& o) {
    return "mismatch " + o.fingerprint + " " + std::string(name(o.state)) + " since " +
           std::to_string(o.since_ms) + " conflicts " + std::to_string(o.conflicts);
}
inline std::string show(const New& o) {
    return "new fence " + std::to_string(o.claim_sequence);
}
inline std::string show(const Absent&) {
    return "absent";
}
inline std::string show(bool released) {
    return released ? "released" : "nothing to release";
}

template <class... T>
std::string show(const std::variant<T...>& outcome) {
    return std::visit([](const auto& o) { return show(o); }, outcome);
}
template <class T>
std::string show(const Result<T>& result) {
    if (!result) {
        return std::string(name(result.error().code));
    }
    if constexpr (std::is_void_v<T>) {
        return "ok";
    } else {
        return show(*result);
    }
}

// The fence in an outcome that says it made one, else 0.
inline std::uint64_t new_fence(const Result<ClaimOutcome>& result) {
    const auto* made = result ? std::get_if<Claimed>(&*result) : nullptr;
    return made == nullptr ? 0 : made->claim.claim_sequence;
}
inline std::uint64_t new_fence(const Result<RememberOutcome>& result) {
    const auto* made = result ? std::get_if<New>(&*result) : nullptr;
    return made == nullptr ? 0 : made->claim_sequence;
}

// What is known of a key. Each operation gives its outcome as text, and is told the time that it
// sees.
class KeyModel {
  public:
    KeyModel(std::string ns, std::string key, std::int64_t cache_ttl_ms)
        : ns_(std::move(ns)), key_(std::move(key)), cache_ttl_ms_(cache_ttl_ms) {}

    // As CacheOptions::attempts_max.
    static constexpr std::uint32_t kAttemptsMax = 5;

    auto operator<=>(const KeyModel&) const = default;

    // The fence of the newest claim, whatever became of it; 0 before the first.
    [[nodiscard]] std::uint64_t fence() const { return fence_; }

    std::string claim(std::int64_t now_ms, const ClaimOptions& options, std::uint64_t fence) {
        if (auto duplicate = refuse(now_ms, options); !duplicate.empty()) {
            return duplicate;
        }
        const std::string before = remembered(now_ms) || unanswered() ? previous() : "";
        begin(now_ms, options, fence);
        if (!options.expires_at_ms && options.ttl != kForever) {
            ttl_ms_ = options.ttl.value_or(std::chrono::milliseconds{cache_ttl_ms_}).count();
        }
        if (options.lease) {
            lend(now_ms, *options.lease);
        }
        if (options.unanswered == Unanswered::hold || attempt_ >= kAttemptsMax) {
            holds_ = true;
            ttl_ms_ = options.expires_at_ms ? *options.expires_at_ms - now_ms : ttl_ms_;
            expires_at_ms_ = 0;
        }
        return show(handle()) + " note " + note_ + (before.empty() ? "" : " after " + before);
    }

    std::string remember(std::int64_t now_ms, const std::string& receipt,
                         const ClaimOptions& options, std::uint64_t fence) {
        if (auto duplicate = refuse(now_ms, options); !duplicate.empty()) {
            return duplicate;
        }
        begin(now_ms, options, fence);
        state_ = State::completed;
        receipt_ = receipt;
        return show(New{fence});
    }

    // `fence`: of the caller's claim; 0 for callers that have none.
    std::string complete(std::int64_t now_ms, std::uint64_t fence, const std::string& receipt,
                         std::optional<std::chrono::milliseconds> ttl = {}) {
        if (!alive(now_ms) || (fence != 0 && fence != fence_)) {
            return fence != 0 ? "stale_claim" : "not_claimed";
        }
        if (state_ == State::completed) {
            return receipt_ == receipt ? "ok" : "receipt_mismatch";
        }
        if (fence == 0 && held(now_ms)) {
            return "stale_claim";
        }
        finish(now_ms, receipt, ttl);
        return "ok";
    }

    std::string note(std::int64_t now_ms, std::uint64_t fence, const std::string& text) {
        if (!in_flight(now_ms) || fence_ != fence || held(now_ms)) {
            return "stale_claim";
        }
        note_ = brief(text);
        return "ok";
    }

    std::string hold(std::int64_t now_ms, std::uint64_t fence, const std::string& reason) {
        if (!in_flight(now_ms) || fence_ != fence) {
            return "stale_claim";
        }
        if (!holds_ && ttl_ms_ == 0 && expires_at_ms_ != 0) {
            ttl_ms_ = std::max<std::int64_t>(expires_at_ms_ - now_ms, 1);
        }
        holds_ = true;
        expires_at_ms_ = 0;
        lease_until_ms_ = now_ms;
        said(End::held, reason, owner_);
        return "ok";
    }

    std::string resolve(std::int64_t now_ms, std::uint64_t fence, const Resolution& resolution) {
        if (!remembered(now_ms) || fence_ != fence) {
            return "stale_claim";
        }
        if (state_ == State::completed) {
            return resolution.receipt == receipt_ ? "ok" : "receipt_mismatch";
        }
        if (state_ == State::released) {
            return !resolution.receipt && end_ == End::resolved ? "ok" : "stale_claim";
        }
        if (lease_until_ms_ != 0 && !ran_out(now_ms)) {
            return "busy";
        }
        if (resolution.receipt) {
            finish(now_ms, *resolution.receipt, resolution.ttl);
        } else {
            bury(now_ms);
        }
        said(End::resolved, resolution.reason, resolution.by);
        return "ok";
    }

    std::string forget(std::int64_t now_ms, std::uint64_t fence, const std::string& reason) {
        if (!alive(now_ms) || state_ != State::completed) {
            return show(false);
        }
        if (fence != 0 && fence != fence_) {
            return "stale_claim";
        }
        ttl_ms_ = 0;
        bury(now_ms);
        began_ms_ = 0;
        said(End::forgotten, reason, "");
        return show(true);
    }

    std::string release(std::int64_t now_ms, std::uint64_t fence) {
        if (known_ && fence > fence_) {
            return "stale_claim";
        }
        if (!alive(now_ms) || state_ == State::completed) {
            return show(false);
        }
        if (fence == 0 ? held(now_ms) : fence != fence_) {
            return "stale_claim";
        }
        bury(now_ms);
        return show(true);
    }

    std::string renew(std::int64_t now_ms, std::uint64_t fence, std::chrono::milliseconds lease) {
        if (!in_flight(now_ms) || fence_ != fence || end_ == End::held) {
            return "stale_claim";
        }
        lend(now_ms, lease);
        return show(handle());
    }

    [[nodiscard]] std::string lookup(std::int64_t now_ms) const {
        return alive(now_ms) ? describe(now_ms) : show(Absent{});
    }

    // Whether it waits for a decision.
    [[nodiscard]] bool held(std::int64_t now_ms) const {
        return in_flight(now_ms) && holds_ && ran_out(now_ms);
    }
    // Whether the newest claim ended so: resolved, with or without a receipt, or forgotten.
    [[nodiscard]] bool ended(std::int64_t now_ms, End end) const {
        return remembered(now_ms) && state_ != State::in_flight && end_ == end;
    }

    // Forgets what has expired; gives the state that it was in, or nothing.
    std::string sweep(std::int64_t now_ms) {
        if (!known_ || remembered(now_ms)) {
            return "";
        }
        known_ = false;
        return std::string(name(state_));
    }

  private:
    // Whether it is known and has not expired, be it released.
    [[nodiscard]] bool remembered(std::int64_t now_ms) const {
        return known_ && (expires_at_ms_ == 0 || now_ms <= expires_at_ms_ + kGraceMs);
    }

    [[nodiscard]] bool alive(std::int64_t now_ms) const {
        return remembered(now_ms) && state_ != State::released;
    }

    [[nodiscard]] bool unanswered() const { return known_ && state_ == State::in_flight; }
    [[nodiscard]] bool in_flight(std::int64_t now_ms) const {
        return alive(now_ms) && state_ == State::in_flight;
    }
    [[nodiscard]] bool ran_out(std::int64_t now_ms) const {
        return end_ == End::held || (lease_until_ms_ != 0 && now_ms > lease_until_ms_);
    }

    void finish(std::int64_t now_ms, const std::string& receipt,
                std::optional<std::chrono::milliseconds> ttl) {
        state_ = State::completed;
        receipt_ = receipt;
        since_ms_ = now_ms;
        if (ttl || ttl_ms_ != 0) {
            expires_at_ms_ = now_ms + (ttl ? ttl->count() : ttl_ms_);
        }
        holds_ = false;
        said(End::lease_ran_out, "", "");
    }

    void bury(std::int64_t now_ms) {
        state_ = State::released;
        expires_at_ms_ = now_ms + (ttl_ms_ != 0 ? ttl_ms_ : cache_ttl_ms_);
        began_ms_ = since_ms_;
        since_ms_ = now_ms;
        holds_ = false;
        said(End::released, "", "");
    }

    void said(End end, std::string reason, std::string by) {
        end_ = end;
        reason_ = std::move(reason);
        by_ = std::move(by);
    }

    // What the next claim is told, or whoever finds the key held.
    [[nodiscard]] std::string previous() const {
        const bool ended = state_ == State::released;
        const bool leased = lease_until_ms_ != 0;
        const End end = ended || end_ == End::held ? end_
                        : leased                   ? End::lease_ran_out
                                                   : End::expired;
        const std::int64_t lost_ms = leased ? lease_until_ms_ : expires_at_ms_;
        return std::string(name(end)) + " of " + owner_ + " began " +
               std::to_string(ended ? began_ms_ : since_ms_) + " ended " +
               std::to_string(ended ? since_ms_ : lost_ms) + " fence " + std::to_string(fence_) +
               " attempt " + std::to_string(attempt_) + " note " + note_ + " reason " + reason_ +
               " by " + by_;
    }

    std::string refuse(std::int64_t now_ms, const ClaimOptions& options) {
        if (!alive(now_ms)) {
            return {};
        }
        if (!options.fingerprint.empty() && !fingerprint_.empty() &&
            options.fingerprint != fingerprint_) {
            conflicts_ += state_ == State::in_flight ? 1 : 0;
            return show(Mismatch{fingerprint_, state_, since_ms_, conflicts_});
        }
        if (state_ == State::completed || !ran_out(now_ms)) {
            return describe(now_ms);
        }
        return holds_ ? "held " + previous() : std::string();
    }

    void begin(std::int64_t now_ms, const ClaimOptions& options, std::uint64_t fence) {
        const bool goes_on = remembered(now_ms) || unanswered();
        const bool answered = end_ == End::resolved || end_ == End::forgotten;
        attempt_ = goes_on ? attempt_ + 1 : 1;
        if (!goes_on || answered || !options.metadata.empty()) {
            note_ = brief(options.metadata);
        }
        known_ = true;
        state_ = State::in_flight;
        fence_ = fence;
        since_ms_ = now_ms;
        lease_until_ms_ = 0;
        ttl_ms_ = 0;
        conflicts_ = 0;
        owner_ = options.owner;
        fingerprint_ = options.fingerprint;
        holds_ = false;
        said(End::lease_ran_out, "", "");
        receipt_.clear();
        expires_at_ms_ = 0;
        if (options.expires_at_ms) {
            expires_at_ms_ = *options.expires_at_ms;
        } else if (options.ttl != kForever) {
            expires_at_ms_ =
                now_ms + options.ttl.value_or(std::chrono::milliseconds{cache_ttl_ms_}).count();
        }
    }

    void lend(std::int64_t now_ms, std::chrono::milliseconds lease) {
        lease_until_ms_ = now_ms + lease.count();
        if (expires_at_ms_ != 0) {
            expires_at_ms_ = std::max(expires_at_ms_, lease_until_ms_);
        }
    }

    [[nodiscard]] Claim handle() const {
        return {ns_, key_, fence_, lease_until_ms_ != 0 ? lease_until_ms_ : expires_at_ms_,
                attempt_};
    }

    [[nodiscard]] std::string describe(std::int64_t now_ms) const {
        if (state_ == State::completed) {
            return "completed " + receipt_ + " at " + std::to_string(since_ms_) + " fence " +
                   std::to_string(fence_) + " expires " + std::to_string(expires_at_ms_) +
                   " attempt " + std::to_string(attempt_) + " note " + note_;
        }
        return "in flight " + owner_ + " since " + std::to_string(since_ms_) + " lease " +
               std::to_string(lease_until_ms_) + " expires " + std::to_string(expires_at_ms_) +
               " fence " + std::to_string(fence_) + " attempt " + std::to_string(attempt_) +
               " note " + note_ + (holds_ ? " holds" : "") +
               (holds_ && ran_out(now_ms) ? " held" : "");
    }

    static constexpr std::int64_t kGraceMs = 1'000;

    std::string ns_;
    std::string key_;
    std::int64_t cache_ttl_ms_;
    bool known_ = false;
    State state_ = State::in_flight;
    std::uint64_t fence_ = 0;
    std::int64_t since_ms_ = 0;
    std::int64_t expires_at_ms_ = 0;
    std::int64_t lease_until_ms_ = 0;
    std::int64_t ttl_ms_ = 0;
    std::uint32_t attempt_ = 1;
    std::uint64_t conflicts_ = 0;
    std::string owner_;
    std::string fingerprint_;
    std::string receipt_;
    std::string note_;
    bool holds_ = false;
    std::int64_t began_ms_ = 0;     // of what a release or the like has ended
    End end_ = End::lease_ran_out;  // what was said last; a lease may have run out or not
    std::string reason_;
    std::string by_;
};

}  // namespace dedup::test
