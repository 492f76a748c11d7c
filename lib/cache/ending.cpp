#include "cache/ending.hpp"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "record/check.hpp"
#include "record/invalid.hpp"

namespace dedup {

using std::chrono::milliseconds;

namespace {

constexpr std::int64_t kTimeMax = std::numeric_limits<std::int64_t>::max();

// A tombstone carries nothing worth keeping forever, even in a cache whose keys are.
constexpr milliseconds kTombstoneTtl = std::chrono::hours{24};

std::string who(const Verdict& verdict) {
    return verdict.by.empty() ? "somebody" : quoted_bytes(verdict.by);
}

}  // namespace

std::int64_t later(std::int64_t now_ms, milliseconds by) {
    return by.count() > kTimeMax - now_ms ? kTimeMax : now_ms + by.count();
}

std::int64_t expiry_after(std::int64_t now_ms, milliseconds ttl) {
    return ttl == kForever ? 0 : later(now_ms, ttl);
}

Result<void> check_sizes(std::initializer_list<Limit> limits) {
    for (const auto& [field, bytes, bytes_max] : limits) {
        if (bytes > bytes_max) {
            return invalid(fmt::format("{} is {} bytes; at most {} are allowed", field,
                                       grouped(bytes), grouped(bytes_max)));
        }
    }
    return {};
}

Result<void> check_duration(std::string_view field, std::optional<milliseconds> value) {
    if (value && *value < milliseconds{1}) {
        return invalid(fmt::format("{} is {} ms; it must be at least 1", field, value->count()));
    }
    return {};
}

Result<void> check_claim(const CacheOptions& cache, std::string_view key, const Claim* claim) {
    if (claim != nullptr && claim->ns != cache.ns) {
        return invalid(fmt::format("the claim on key {} is of namespace {}, the cache's is {}",
                                   quoted_bytes(key), quoted_bytes(claim->ns),
                                   quoted_bytes(cache.ns)));
    }
    return check_key(key);
}

std::unexpected<Error> stale(const Claim& claim, const Seen& seen) {
    std::string end;
    if (!seen.head) {
        end =
            "the store knows nothing of it: it has expired, or this store was put back from a copy "
            "that is older; find out whether your work was done before you claim the key again";
    } else if (seen.head->claim_sequence < claim.claim_sequence) {
        // A store does not forget its newest claim.
        end = fmt::format(
            "the newest that the store knows is {}: yours is mistyped, of another store, or this "
            "one was put back from a copy that is older; find out whether your work was done "
            "before you claim the key again",
            seen.head->claim_sequence);
    } else if (!seen.current()) {
        end = "it has expired; find out whether your work was done before you claim the key again";
    } else if (const Verdict& verdict = seen.head->verdict;
               verdict.kind == Verdict::Kind::resolved &&
               seen.head->claim_sequence == claim.claim_sequence) {
        end = fmt::format(
            "{} decided that it was {} ({}); {}", who(verdict),
            seen.completed() ? "done" : "not done", quoted_bytes(verdict.reason),
            seen.completed() ? "look its receipt up" : "the key was released, and can be claimed");
    } else if (verdict.kind == Verdict::Kind::forgotten) {
        end = fmt::format(
            "claim {} was completed, and {} took that back ({}); the key can be "
            "claimed",
            seen.head->claim_sequence, who(verdict), quoted_bytes(verdict.reason));
    } else if (seen.head->kind == Kind::tombstone) {
        end = "the key was released; claim it again";
    } else if (seen.in_flight() && seen.head->claim_sequence == claim.claim_sequence) {
        end = "it is held until somebody decides; complete it, release it, or have it resolved";
    } else if (seen.head->claim_sequence == claim.claim_sequence) {
        end = "it is already completed; look its receipt up";
    } else if (seen.completed()) {
        end = fmt::format("claim {} replaced it and is completed; look its receipt up",
                          seen.head->claim_sequence);
    } else {
        end = fmt::format("claim {} by {} replaced it; drop this attempt and wait for that one",
                          seen.head->claim_sequence, quoted_bytes(seen.head->owner));
    }
    return std::unexpected(error(
        Code::stale_claim,
        fmt::format("claim {} on key {}: {}", claim.claim_sequence, quoted_bytes(claim.key), end)));
}

std::unexpected<Error> other_receipt(std::string_view key, const Seen& seen) {
    return std::unexpected(
        error(Code::receipt_mismatch,
              fmt::format("key {} is completed with another receipt, of {} bytes; that one is "
                          "final, look it up",
                          quoted_bytes(key), seen.head->receipt->size())));
}

std::unexpected<Error> held_error(std::string_view key, const Seen& seen) {
    return std::unexpected(error(
        Code::stale_claim,
        fmt::format("key {} is held: nobody has answered claim {} by {}, and somebody has to "
                    "decide; resolve it, or answer under that claim_sequence",
                    quoted_bytes(key), seen.head->claim_sequence, quoted_bytes(seen.head->owner))));
}

Record completed(Record head, std::int64_t now_ms, std::string_view receipt,
                 std::optional<milliseconds> ttl) {
    head.timestamp_ms = now_ms;
    if (ttl) {
        head.expires_at_ms = expiry_after(now_ms, *ttl);
    } else if (head.ttl_ms != 0) {
        head.expires_at_ms = later(now_ms, milliseconds{head.ttl_ms});
    }
    head.ttl_ms = 0;
    head.lease_until_ms = 0;
    head.receipt = receipt;
    head.hold = false;
    head.verdict = {};
    return head;
}

Record released(Record head, std::int64_t now_ms, const CacheOptions& cache) {
    milliseconds ttl{head.ttl_ms};
    if (ttl == milliseconds{0}) {
        ttl = cache.ttl == kForever ? kTombstoneTtl : cache.ttl;
    }
    head.kind = Kind::tombstone;
    head.began_ms = head.timestamp_ms;
    head.timestamp_ms = now_ms;
    head.expires_at_ms = later(now_ms, ttl);
    head.ttl_ms = 0;
    head.lease_until_ms = 0;
    // What the next claim is told stays. The request does not: the next one may be another.
    head.fingerprint.clear();
    head.conflict = {};
    head.hold = false;
    head.verdict = {};
    return head;
}

Previous previous_from(Record&& head, std::int64_t now_ms) {
    const bool ended = head.kind == Kind::tombstone;
    const std::int64_t lost_ms =
        head.lease_until_ms != 0 ? head.lease_until_ms : head.expires_at_ms;
    const bool lost = lost_ms != 0 && lost_ms < now_ms;
    Previous previous{.owner = std::move(head.owner),
                      .began_ms = ended ? head.began_ms : head.timestamp_ms,
                      .ended_ms = ended  ? head.timestamp_ms
                                  : lost ? lost_ms
                                         : now_ms,
                      .attempt = head.attempt,
                      .note = std::move(head.metadata),
                      .event_id = std::move(head.event_id),
                      .claim_sequence = head.claim_sequence,
                      .reason = std::move(head.verdict.reason),
                      .by = std::move(head.verdict.by)};
    switch (head.verdict.kind) {
        case Verdict::Kind::none:
            previous.end = ended                      ? End::released
                           : !lost                    ? End::restarted
                           : head.lease_until_ms != 0 ? End::lease_ran_out
                                                      : End::expired;
            break;
        case Verdict::Kind::held:
            previous.end = End::held;
            previous.ended_ms = head.lease_until_ms;
            break;
        case Verdict::Kind::resolved:
            previous.end = End::resolved;
            break;
        case Verdict::Kind::forgotten:
            previous.end = End::forgotten;
            break;
    }
    return previous;
}

}  // namespace dedup
