#include "dedup/reservations.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "cache/ending.hpp"
#include "cache/inside.hpp"
#include "keys/netstring.hpp"
#include "record/check.hpp"
#include "record/invalid.hpp"
#include "record/sha256.hpp"
#include "record/try.hpp"
#include "reservations/reservation_record.hpp"

namespace dedup {

// What is counted of an answer that was no reservation.
inline std::uint64_t& unchanged(CacheCounts& counts, const Reservations::ReserveOutcome& outcome) {
    const auto* duplicate = outcome.duplicate();
    return outcome.held() != nullptr                    ? counts.held
           : duplicate == nullptr                       ? counts.mismatches
           : duplicate->known.state == State::completed ? counts.duplicates
                                                        : counts.in_flight;
}

namespace {

using std::chrono::milliseconds;

// When the stream's key was first and last seen, by a request that comes now. Leaves the note alone
// in the head's metadata, where the protocol has it. Errors: those of decode_stamps, so that
// nothing is written over what a newer version wrote.
Result<Stamps> take_stamps(const Seen& seen) {
    Stamps stamps{seen.now_ms, seen.now_ms};
    if (!seen.current() && !seen.unanswered()) {
        return stamps;
    }
    auto known = decode_stamps(*seen.head);
    if (known) {
        stamps.first_seen_ms = known->first_seen_ms;
        seen.head->metadata = std::move(known->note);
    } else if (seen.current()) {
        return std::unexpected(std::move(known).error());
    }
    return stamps;
}

// The inverse, of what is to be appended.
void put_stamps(Record& record, Stamps stamps) {
    stamps.note = std::move(record.metadata);
    record.metadata = encode_stamps(stamps);
}

// An operation of the claim protocol that writes down in what it appends when the key was seen.
template <class Op>
struct Stamped {
    using Answer = typename Op::Answer;
    static constexpr bool kDecides = Op::kDecides;
    const CacheOptions& cache;
    std::string_view key;
    Op op;

    [[nodiscard]] Result<void> check() const { return op.check(); }

    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const {
        auto stamps = take_stamps(seen);
        if (!stamps) {
            return {std::unexpected(std::move(stamps).error()), {}};
        }
        auto decision = op.decide(seen);
        if (decision.append) {
            put_stamps(decision.append->record, *std::move(stamps));
        }
        return decision;
    }

    static void landed(Result<Answer>& answer, std::uint64_t sequence) {
        Op::landed(answer, sequence);
    }
};

template <class Op>
Stamped<Op> stamped(const Op& op) {
    return {op.cache, op.key, op};
}

struct ReserveOp {
    using Answer = Reservations::ReserveOutcome;
    static constexpr bool kDecides = false;
    const CacheOptions& cache;
    std::string_view key;
    std::string_view tenant_key;
    const ClaimOptions& options;

    [[nodiscard]] Result<void> check() const {
        if (options.fingerprint.empty()) {
            return invalid("fingerprint is empty; conflicts are told by it");
        }
        return claim().check();
    }

    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const {
        Result<KnownReservation> known;
        if (seen.live()) {
            known = known_from(*seen.head, seen.now_ms);
            if (!known) {
                return {std::unexpected(std::move(known).error()), {}};
            }
        }
        auto decision = stamped(claim()).decide(seen);
        if (!decision.answer) {
            return {std::unexpected(std::move(decision.answer).error()), {}};
        }
        if (auto* claimed = std::get_if<Claimed>(&*decision.answer)) {
            const auto& [ns, store_key, fence, deadline_ms, attempt, since_ms] = claimed->claim;
            return {Reservations::Reserved{{std::string(tenant_key), fence, deadline_ms, attempt},
                                           std::move(claimed->previous)},
                    std::move(decision.append), decision.change};
        }
        if (auto* held = std::get_if<Held>(&*decision.answer)) {
            return {Reservations::Held{*std::move(known), std::move(held->previous)}, {}};
        }
        if (std::holds_alternative<Mismatch>(*decision.answer)) {
            if (decision.append) {
                known = known_from(decision.append->record, seen.now_ms);
            }
            return {Reservations::Conflict{*std::move(known)}, std::move(decision.append)};
        }
        return {Reservations::Duplicate{*std::move(known)}, {}};
    }

    static void landed(Result<Answer>& answer, std::uint64_t sequence) {
        if (auto* reserved = std::get_if<Reservations::Reserved>(&*answer)) {
            reserved->reservation.fence = sequence;
        }
    }

  private:
    [[nodiscard]] ClaimOp claim() const { return {cache, key, options}; }
};

// Notes that the key was seen again.
struct TouchOp {
    using Answer = void;
    const CacheOptions& cache;
    std::string_view key;

    [[nodiscard]] static Result<void> check() { return {}; }

    [[nodiscard]] static Decision<void> decide(const Seen& seen) {
        auto stamps = take_stamps(seen);
        if (!seen.live() || !stamps) {
            return {};
        }
        const std::uint64_t sequence = seen.sequence();
        Record record = *std::move(seen.head);
        put_stamps(record, *std::move(stamps));
        return {{}, Append{sequence, std::move(record)}};
    }

    static void landed(Result<void>&, std::uint64_t) {}
};

// What is known of a request that came again; null if it did not.
const KnownReservation* repeated(const Reservations::ReserveOutcome& outcome) {
    const auto* duplicate = outcome.duplicate();
    const auto* held = outcome.held();
    return duplicate != nullptr ? &duplicate->known : held != nullptr ? &held->known : nullptr;
}

Result<void> check_outcome(const Outcome& outcome) {
    if (!outcome.details.empty() && !nlohmann::json::accept(outcome.details)) {
        return invalid("the outcome's details are not a JSON text");
    }
    if (outcome.kind.empty()) {
        return invalid("the outcome's kind is empty");
    }
    return {};
}

Result<Claim> claim_of(const CacheOptions& cache, const Scope& scope,
                       const Reservation& reservation) {
    auto key = DEDUP_TRY(scoped_key(scope, reservation.key));
    return Claim{cache.ns, std::move(key), reservation.fence, reservation.deadline_ms,
                 reservation.attempt};
}

}  // namespace

std::string request_fingerprint(std::span<const std::string_view> parts) {
    std::string text;
    for (const std::string_view part : parts) {
        append_netstring(text, part);
    }
    return sha256_hex(text);
}

Reservations::Reservations(StreamStore& store, const ReservationsOptions& options)
    : store_(store),
      cache_options_{.ns = options.ns,
                     .ttl = options.ttl,
                     .observer = options.observer,
                     .unanswered = options.unanswered,
                     .attempts_max = options.attempts_max},
      cache_(store, cache_options_),
      last_seen_step_(options.last_seen_step) {}

Result<Reservations::ReserveOutcome> Reservations::reserve(const ReservationRequest& request) {
    const auto key = scoped_key(request.scope, request.key);
    if (!key) {
        return std::unexpected(key.error());
    }
    const ClaimOptions options{.owner = request.owner,
                               .fingerprint = request.fingerprint,
                               .event_id = request.event_id,
                               .lease = request.lease,
                               .ttl = request.ttl,
                               .expires_at_ms = request.expires_at_ms,
                               .unanswered = request.unanswered,
                               .attempts_max = request.attempts_max};
    auto outcome =
        CacheInside::settle(cache_, ReserveOp{cache_options_, *key, request.key, options});
    const KnownReservation* known = outcome ? repeated(*outcome) : nullptr;
    if (known != nullptr && store_.now_ms() - known->last_seen_ms >= last_seen_step_.count()) {
        // The answer holds whether or not this can be written.
        const TouchOp touch{cache_options_, *key};
        (void)settle_span(store_, std::span(&touch, 1));
    }
    return outcome;
}

Result<void> Reservations::complete(const Scope& scope, const Reservation& reservation,
                                    const Outcome& outcome) {
    const auto claim = claim_of(cache_options_, scope, reservation);
    if (!claim) {
        return std::unexpected(claim.error());
    }
    if (Result<void> checked = check_outcome(outcome); !checked) {
        return checked;
    }
    const std::string receipt = encode_outcome(outcome);
    const CompleteOptions options;
    return CacheInside::settle(
        cache_, stamped(CompleteOp{cache_options_, claim->key, &*claim, receipt, options}));
}

Result<bool> Reservations::release(const Scope& scope, const Reservation& reservation) {
    const auto claim = claim_of(cache_options_, scope, reservation);
    if (!claim) {
        return std::unexpected(claim.error());
    }
    return CacheInside::settle(cache_, stamped(ReleaseOp{cache_options_, claim->key, &*claim}));
}

Result<Reservation> Reservations::renew(const Scope& scope, const Reservation& reservation,
                                        milliseconds lease) {
    const auto claim = claim_of(cache_options_, scope, reservation);
    if (!claim) {
        return std::unexpected(claim.error());
    }
    const auto renewed =
        CacheInside::settle(cache_, stamped(RenewOp{cache_options_, claim->key, &*claim, lease}));
    if (!renewed) {
        return std::unexpected(renewed.error());
    }
    return Reservation{reservation.key, reservation.fence, renewed->deadline_ms, renewed->attempt};
}

Result<void> Reservations::note(const Scope& scope, const Reservation& reservation,
                                std::string_view text) {
    const Claim claim = DEDUP_TRY(claim_of(cache_options_, scope, reservation));
    DEDUP_TRY(check_sizes({{"note", text.size(), kReservationNoteBytesMax}}));
    return CacheInside::settle(cache_, stamped(NoteOp{cache_options_, claim.key, &claim, text}));
}

Result<void> Reservations::hold(const Scope& scope, const Reservation& reservation,
                                std::string_view reason) {
    const Claim claim = DEDUP_TRY(claim_of(cache_options_, scope, reservation));
    return CacheInside::settle(cache_, stamped(HoldOp{cache_options_, claim.key, &claim, reason}));
}

Result<void> Reservations::resolve(const Scope& scope, std::string_view key, std::uint64_t fence,
                                   const ReservationResolution& resolution) {
    const std::string store_key = DEDUP_TRY(scoped_key(scope, key));
    Resolution decided{
        .receipt = {}, .reason = resolution.reason, .by = resolution.by, .ttl = resolution.ttl};
    if (resolution.outcome) {
        DEDUP_TRY(check_outcome(*resolution.outcome));
        decided.receipt = encode_outcome(*resolution.outcome);
    }
    return CacheInside::settle(cache_,
                               stamped(ResolveOp{cache_options_, store_key, fence, decided}));
}

Result<bool> Reservations::forget(const Scope& scope, std::string_view key, std::uint64_t fence,
                                  std::string_view reason, std::string_view by) {
    const std::string store_key = DEDUP_TRY(scoped_key(scope, key));
    return CacheInside::settle(cache_,
                               stamped(ForgetOp{cache_options_, store_key, fence, reason, by}));
}

Result<std::optional<KnownReservation>> Reservations::find(const Scope& scope,
                                                           std::string_view key) {
    DEDUP_TRY(check_options(cache_options_));
    const auto store_key = scoped_key(scope, key);
    if (!store_key) {
        return std::unexpected(store_key.error());
    }
    auto head = store_.head({cache_options_.ns, *store_key});
    if (!head) {
        return std::unexpected(head.error());
    }
    const std::int64_t now_ms = store_.now_ms();
    if (!Seen{*head, now_ms, store_.grace()}.live()) {
        return std::nullopt;
    }
    return known_from(**head, now_ms);
}

}  // namespace dedup
