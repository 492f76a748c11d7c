#include "cache/decide.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "cache/ending.hpp"
#include "record/check.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;

// A claim whose lease runs must not expire, or somebody else could claim its key.
std::int64_t not_before_lease(std::int64_t expires_at_ms, std::int64_t lease_until_ms) {
    return expires_at_ms == 0 ? 0 : std::max(expires_at_ms, lease_until_ms);
}

Result<void> check_request(std::string_view key, const ClaimOptions& options) {
    if (Result<void> checked = check_key(key); !checked) {
        return checked;
    }
    if (options.reclaim_before_ms != 0 && options.owner.empty()) {
        return invalid("reclaim_before_ms is given without an owner, whose claims it is about");
    }
    if (options.ttl && options.expires_at_ms) {
        return invalid("ttl and expires_at_ms are both given; a key has one expiry");
    }
    if (Result<void> checked = check_duration("ttl", options.ttl); !checked) {
        return checked;
    }
    return check_sizes({{"owner", options.owner.size(), kLabelBytesMax},
                        {"fingerprint", options.fingerprint.size(), kLabelBytesMax},
                        {"event_id", options.event_id.size(), kLabelBytesMax},
                        {"metadata", options.metadata.size(), kMetadataBytesMax}});
}

// Answers.

Completed completed_from(Record&& head) {
    return {.receipt = *std::move(head.receipt),
            .completed_at_ms = head.timestamp_ms,
            .claim_sequence = head.claim_sequence,
            .event_id = std::move(head.event_id),
            .metadata = std::move(head.metadata),
            .attempt = head.attempt,
            .expires_at_ms = head.expires_at_ms};
}

InFlight in_flight_from(const Seen& seen) {
    const bool held = seen.held();
    Record& head = *seen.head;
    return {.owner = std::move(head.owner),
            .since_ms = head.timestamp_ms,
            .lease_until_ms = head.lease_until_ms,
            .expires_at_ms = head.expires_at_ms,
            .claim_sequence = head.claim_sequence,
            .attempt = head.attempt,
            .event_id = std::move(head.event_id),
            .metadata = std::move(head.metadata),
            .unanswered = head.hold ? Unanswered::hold : Unanswered::rerun,
            .held = held};
}

// Counts the request in the stream's conflict record while the key is in flight. All else stays as
// it is, the times above all: whoever sends the wrong request again and again must not keep the key
// alive. A completed key gets no record: as its stream's newest it would make the completion the
// last to be evicted, and a stranger's requests would make the log grow for as long as the receipt
// is kept.
template <class Outcome>
Decision<Outcome> mismatch(const Seen& seen, const std::string& fingerprint) {
    if (seen.completed()) {
        return {Mismatch{.fingerprint = std::move(seen.head->fingerprint),
                         .state = State::completed,
                         .since_ms = seen.head->timestamp_ms,
                         .conflicts = seen.head->conflict.count},
                {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record record = *std::move(seen.head);
    auto& [count, fingerprints] = record.conflict;
    count = std::max(count, count + 1);  // stays at the highest number, should it get there
    if (fingerprints.size() < kConflictFingerprintsMax &&
        std::ranges::find(fingerprints, fingerprint) == fingerprints.end()) {
        fingerprints.push_back(fingerprint);
    }
    Mismatch outcome{.fingerprint = record.fingerprint,
                     .state = record.state(),
                     .since_ms = record.timestamp_ms,
                     .conflicts = count};
    return {std::move(outcome), Append{sequence, std::move(record)}};
}

// What claim and remember share: why the request gets no claim, if it gets none.
template <class Outcome>
std::optional<Decision<Outcome>> refuse(const Seen& seen, const ClaimOptions& options) {
    if (options.expires_at_ms && *options.expires_at_ms <= seen.now_ms) {
        return Decision<Outcome>{
            invalid(fmt::format("expires_at_ms is {}; it must be later than now, which is {}",
                                *options.expires_at_ms, seen.now_ms)),
            {}};
    }
    if (seen.live() && !options.fingerprint.empty() && !seen.head->fingerprint.empty() &&
        options.fingerprint != seen.head->fingerprint) {
        return mismatch<Outcome>(seen, options.fingerprint);
    }
    if (seen.completed()) {
        return Decision<Outcome>{completed_from(*std::move(seen.head)), {}};
    }
    const bool reclaims = seen.in_flight() && seen.head->owner == options.owner &&
                          seen.head->timestamp_ms < options.reclaim_before_ms;
    if (seen.running() && !reclaims) {
        return Decision<Outcome>{in_flight_from(seen), {}};
    }
    if (seen.in_flight() && seen.head->hold) {
        return Decision<Outcome>{Held{previous_from(*std::move(seen.head), seen.now_ms)}, {}};
    }
    return std::nullopt;
}

// Whether somebody has said what had become of the claim, and with that of what it had noted.
bool decided_from_outside(const Record& head) {
    return head.verdict.kind == Verdict::Kind::resolved ||
           head.verdict.kind == Verdict::Kind::forgotten;
}

// The start of a new claim on a key that nobody holds, with a fence of its own: where it will be
// sent from, as each move of a record takes as long as looking it up.
Record& begin_claim(std::optional<Append>& append, const CacheOptions& cache, std::string_view key,
                    const ClaimOptions& options, const Seen& seen) {
    append.emplace().expected_sequence = seen.sequence();
    Record& record = append->record;
    record.ns = cache.ns;
    record.key = key;
    record.timestamp_ms = seen.now_ms;
    record.expires_at_ms = options.expires_at_ms
                               ? *options.expires_at_ms
                               : expiry_after(seen.now_ms, options.ttl.value_or(cache.ttl));
    record.owner = options.owner;
    record.fingerprint = options.fingerprint;
    record.event_id = options.event_id;
    record.metadata = options.metadata;
    // Released or taken over. What has expired is forgotten, but not that nobody answered.
    if (seen.current() || seen.unanswered()) {
        const std::uint32_t attempt = seen.head->attempt;
        record.attempt = std::max(attempt, attempt + 1);  // likewise never wraps
        // Nobody may have looked for what was noted: it stays until a note takes its place.
        if (record.metadata.empty() && !decided_from_outside(*seen.head)) {
            record.metadata = seen.head->metadata;
        }
    }
    return record;
}

// Under which policy a claim with this attempt number is.
bool holds_unanswered(const CacheOptions& cache, const ClaimOptions& options,
                      std::uint32_t attempt) {
    const std::uint32_t attempts_max = options.attempts_max.value_or(cache.attempts_max);
    return options.unanswered.value_or(cache.unanswered) == Unanswered::hold ||
           (attempts_max != 0 && attempt >= attempts_max);
}

// The claim before `record`, a new one. Takes the head, but for its sequence.
std::optional<Previous> previous_of(const Record& record, const Seen& seen) {
    if (record.attempt == 1) {
        return std::nullopt;
    }
    return previous_from(*std::move(seen.head), seen.now_ms);
}

bool same_fence(const Claim* claim, const Record& head) {
    return claim == nullptr || claim->claim_sequence == head.claim_sequence;
}

}  // namespace

std::string_view name(Change change) {
    switch (change) {
        case Change::claimed:
            return "claimed";
        case Change::taken_over:
            return "taken_over";
        case Change::completed:
            return "completed";
        case Change::remembered:
            return "remembered";
        case Change::released:
            return "released";
        case Change::renewed:
            return "renewed";
        case Change::noted:
            return "noted";
        case Change::held:
            return "held";
        case Change::resolved:
            return "resolved";
        case Change::forgotten:
            return "forgotten";
        case Change::committed:
            return "committed";
    }
    return "unknown";
}

std::string_view name(End end) {
    switch (end) {
        case End::lease_ran_out:
            return "lease_ran_out";
        case End::expired:
            return "expired";
        case End::released:
            return "released";
        case End::resolved:
            return "resolved";
        case End::forgotten:
            return "forgotten";
        case End::held:
            return "held";
        case End::restarted:
            return "restarted";
    }
    return "unknown";
}

Result<void> check_options(const CacheOptions& options) {
    if (Result<void> checked = check_namespace(options.ns); !checked) {
        return checked;
    }
    return check_duration("CacheOptions::ttl", options.ttl);
}

Result<void> ClaimOp::check() const {
    if (Result<void> checked = check_duration("lease", options.lease); !checked) {
        return checked;
    }
    return check_request(key, options);
}

Decision<ClaimOutcome> ClaimOp::decide(const Seen& seen) const {
    if (auto refused = refuse<ClaimOutcome>(seen, options)) {
        return *std::move(refused);
    }
    Decision<ClaimOutcome> decision;
    decision.change = seen.unanswered() ? Change::taken_over : Change::claimed;
    Record& record = begin_claim(decision.append, cache, key, options, seen);
    const milliseconds ttl = options.ttl.value_or(cache.ttl);
    if (!options.expires_at_ms && ttl != kForever) {
        record.ttl_ms = ttl.count();
    }
    if (options.lease) {
        record.lease_until_ms = later(seen.now_ms, *options.lease);
        record.expires_at_ms = not_before_lease(record.expires_at_ms, record.lease_until_ms);
    }
    if (holds_unanswered(cache, options, record.attempt)) {
        record.hold = true;
        if (options.expires_at_ms) {
            record.ttl_ms = *options.expires_at_ms - seen.now_ms;
        }
        record.expires_at_ms = 0;
    }
    Claimed& claimed = decision.answer->emplace<Claimed>();
    claimed.claim = {.ns = cache.ns,
                     .key = record.key,
                     .deadline_ms = options.lease ? record.lease_until_ms : record.expires_at_ms,
                     .attempt = record.attempt,
                     .since_ms = seen.now_ms};
    claimed.metadata = record.metadata;
    claimed.previous = previous_of(record, seen);
    return decision;
}

void ClaimOp::landed(Result<ClaimOutcome>& answer, std::uint64_t sequence) {
    if (auto* claimed = std::get_if<Claimed>(&*answer)) {
        claimed->claim.claim_sequence = sequence;
    }
}

Result<void> RememberOp::check() const {
    if (options.lease) {
        return invalid("lease is given, but remember completes at once and holds no lease");
    }
    if (Result<void> checked = check_sizes({{"receipt", receipt.size(), kReceiptBytesMax}});
        !checked) {
        return checked;
    }
    return check_request(key, options);
}

Decision<RememberOutcome> RememberOp::decide(const Seen& seen) const {
    if (auto refused = refuse<RememberOutcome>(seen, options)) {
        return *std::move(refused);
    }
    Decision<RememberOutcome> decision;
    decision.change = Change::remembered;
    Record& record = begin_claim(decision.append, cache, key, options, seen);
    record.receipt = receipt;
    decision.answer->emplace<New>().previous = previous_of(record, seen);
    return decision;
}

void RememberOp::landed(Result<RememberOutcome>& answer, std::uint64_t sequence) {
    if (auto* remembered = std::get_if<New>(&*answer)) {
        remembered->claim_sequence = sequence;
    }
}

Result<void> CompleteOp::check() const {
    if (Result<void> checked = check_claim(cache, key, claim); !checked) {
        return checked;
    }
    if (Result<void> checked = check_duration("ttl", options.ttl); !checked) {
        return checked;
    }
    return check_sizes(
        {{"receipt", receipt.size(), kReceiptBytesMax},
         {"metadata", options.metadata ? options.metadata->size() : 0, kMetadataBytesMax}});
}

Decision<void> CompleteOp::decide(const Seen& seen) const {
    if (!seen.live() || !same_fence(claim, *seen.head)) {
        if (claim != nullptr) {
            return {stale(*claim, seen), {}};
        }
        return {std::unexpected(error(Code::not_claimed,
                                      fmt::format("key {} is not claimed; claim it, or remember it",
                                                  quoted_bytes(key)))),
                {}};
    }
    if (seen.completed()) {
        if (*seen.head->receipt == receipt) {
            return {};
        }
        return {other_receipt(key, seen), {}};
    }
    if (claim == nullptr && seen.held()) {
        return {held_error(key, seen), {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record record = completed(*std::move(seen.head), seen.now_ms, receipt, options.ttl);
    if (options.metadata) {
        record.metadata = *options.metadata;
    }
    return {{}, Append{sequence, std::move(record)}, Change::completed};
}

Result<void> ReleaseOp::check() const {
    return check_claim(cache, key, claim);
}

Decision<bool> ReleaseOp::decide(const Seen& seen) const {
    const bool newer = claim != nullptr && seen.head &&
                       claim->claim_sequence > seen.head->claim_sequence;  // than the store knows
    if (!seen.in_flight() && !newer) {
        return {false, {}};
    }
    if (!same_fence(claim, *seen.head)) {
        return {stale(*claim, seen), {}};
    }
    if (claim == nullptr && seen.held()) {
        return {held_error(key, seen), {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record record = released(*std::move(seen.head), seen.now_ms, cache);
    return {true, Append{sequence, std::move(record)}, Change::released};
}

Result<void> RenewOp::check() const {
    if (Result<void> checked = check_duration("lease", lease); !checked) {
        return checked;
    }
    return check_claim(cache, key, claim);
}

Decision<Claim> RenewOp::decide(const Seen& seen) const {
    if (!seen.in_flight() || !same_fence(claim, *seen.head) ||
        seen.head->verdict.kind == Verdict::Kind::held) {
        return {stale(*claim, seen), {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record record = *std::move(seen.head);
    record.lease_until_ms = later(seen.now_ms, lease);
    record.expires_at_ms = not_before_lease(record.expires_at_ms, record.lease_until_ms);
    Claim renewed = *claim;
    renewed.deadline_ms = record.lease_until_ms;
    renewed.attempt = record.attempt;
    return {std::move(renewed), Append{sequence, std::move(record)}, Change::renewed};
}

Result<void> LookupOp::check() const {
    return check_key(key);
}

LookupOutcome LookupOp::answer(const Seen& seen) {
    if (seen.completed()) {
        return completed_from(*std::move(seen.head));
    }
    if (seen.in_flight()) {
        return in_flight_from(seen);
    }
    return Absent{};
}

}  // namespace dedup
