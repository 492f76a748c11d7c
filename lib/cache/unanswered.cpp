// What is said of claims beside their answer: notes, holds, and decisions from outside.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cache/ending.hpp"
#include "record/check.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

bool holds_fence(const Seen& seen, std::uint64_t claim_sequence) {
    return seen.head && seen.head->claim_sequence == claim_sequence;
}

Result<void> check_reason(std::string_view reason, std::string_view by) {
    if (reason.empty()) {
        return invalid("reason is empty; say why, for those who come later");
    }
    return check_sizes(
        {{"reason", reason.size(), kReasonBytesMax}, {"by", by.size(), kLabelBytesMax}});
}

// People and other systems act upon what is said here.
Append flushed(std::uint64_t expected_sequence, Record&& record) {
    return {expected_sequence, std::move(record), true};
}

// As the errors name a claim of which only the fence is known.
Claim named(const CacheOptions& cache, std::string_view key, std::uint64_t claim_sequence) {
    return {.ns = cache.ns, .key = std::string(key), .claim_sequence = claim_sequence};
}

}  // namespace

Result<void> NoteOp::check() const {
    if (Result<void> checked = check_claim(cache, key, claim); !checked) {
        return checked;
    }
    return check_sizes({{"metadata", metadata.size(), kMetadataBytesMax}});
}

Decision<void> NoteOp::decide(const Seen& seen) const {
    // Whoever finds a key held decides by the note that he sees, so none may come later.
    if (!seen.in_flight() || !holds_fence(seen, claim->claim_sequence) || seen.held()) {
        return {stale(*claim, seen), {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record record = *std::move(seen.head);
    record.metadata = metadata;
    return {{}, flushed(sequence, std::move(record)), Change::noted};
}

Result<void> HoldOp::check() const {
    if (Result<void> checked = check_claim(cache, key, claim); !checked) {
        return checked;
    }
    return check_sizes({{"reason", reason.size(), kReasonBytesMax}});
}

Decision<void> HoldOp::decide(const Seen& seen) const {
    if (!seen.in_flight() || !holds_fence(seen, claim->claim_sequence)) {
        return {stale(*claim, seen), {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record record = *std::move(seen.head);
    if (!record.hold && record.ttl_ms == 0 && record.expires_at_ms != 0) {
        record.ttl_ms = std::max<std::int64_t>(record.expires_at_ms - seen.now_ms, 1);
    }
    record.hold = true;
    record.expires_at_ms = 0;
    record.lease_until_ms = seen.now_ms;
    record.verdict = {Verdict::Kind::held, record.owner, std::string(reason)};
    return {{}, flushed(sequence, std::move(record)), Change::held};
}

Result<void> ResolveOp::check() const {
    if (Result<void> checked = check_key(key); !checked) {
        return checked;
    }
    if (claim_sequence == 0) {
        return invalid("claim_sequence is 0; name the claim that you have looked at");
    }
    if (Result<void> checked = check_duration("ttl", resolution.ttl); !checked) {
        return checked;
    }
    const std::size_t receipt_bytes = resolution.receipt ? resolution.receipt->size() : 0;
    if (Result<void> checked = check_sizes({{"receipt", receipt_bytes, kReceiptBytesMax}});
        !checked) {
        return checked;
    }
    return check_reason(resolution.reason, resolution.by);
}

Decision<void> ResolveOp::decide(const Seen& seen) const {
    const auto& [receipt, reason, by, ttl] = resolution;
    const Claim claim = named(cache, key, claim_sequence);
    if (!seen.current() || !holds_fence(seen, claim_sequence)) {
        return {stale(claim, seen), {}};
    }
    if (seen.completed()) {
        if (receipt == seen.head->receipt) {
            return {};
        }
        return {other_receipt(key, seen), {}};
    }
    if (seen.head->kind == Kind::tombstone) {
        if (!receipt && seen.head->verdict.kind == Verdict::Kind::resolved) {
            return {};
        }
        return {stale(claim, seen), {}};
    }
    if (seen.running() && seen.head->lease_until_ms != 0) {
        return {std::unexpected(error(
                    Code::busy,
                    fmt::format("claim {} on key {} by {} has a lease that runs for {} ms more, "
                                "so its holder may still answer; wait for that",
                                claim_sequence, quoted_bytes(key), quoted_bytes(seen.head->owner),
                                seen.head->lease_until_ms - seen.now_ms))),
                {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record head = *std::move(seen.head);
    Record record = receipt ? completed(std::move(head), seen.now_ms, *receipt, ttl)
                            : released(std::move(head), seen.now_ms, cache);
    record.verdict = {Verdict::Kind::resolved, by, reason};
    return {{}, flushed(sequence, std::move(record)), Change::resolved};
}

Result<void> ForgetOp::check() const {
    if (Result<void> checked = check_key(key); !checked) {
        return checked;
    }
    return check_reason(reason, by);
}

Decision<bool> ForgetOp::decide(const Seen& seen) const {
    if (!seen.completed()) {
        return {false, {}};
    }
    if (claim_sequence != 0 && !holds_fence(seen, claim_sequence)) {
        return {stale(named(cache, key, claim_sequence), seen), {}};
    }
    const std::uint64_t sequence = seen.sequence();
    Record record = released(*std::move(seen.head), seen.now_ms, cache);
    record.receipt.reset();
    record.began_ms = 0;  // the head says when it was completed, and not when that claim began
    record.verdict = {Verdict::Kind::forgotten, std::string(by), std::string(reason)};
    return {true, flushed(sequence, std::move(record)), Change::forgotten};
}

}  // namespace dedup
