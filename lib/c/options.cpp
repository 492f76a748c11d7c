#include "c/options.hpp"

#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "cache/decide.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;

// 0: not said.
std::optional<milliseconds> duration(std::int64_t ms) {
    return ms == 0 ? std::nullopt : std::optional(milliseconds{ms});
}

Result<std::optional<Unanswered>> unanswered_of(std::uint32_t value) {
    switch (value) {
        case 0:
            return std::nullopt;
        case DEDUP_RERUN:
            return Unanswered::rerun;
        case DEDUP_HOLD:
            return Unanswered::hold;
        default:
            return invalid(
                fmt::format("unanswered is {}; it must be 0, DEDUP_RERUN or DEDUP_HOLD", value));
    }
}

std::optional<std::uint32_t> attempts_of(std::uint32_t value) {
    if (value == 0) {
        return std::nullopt;
    }
    return value == DEDUP_NEVER ? 0 : value;
}

Result<std::string> text(dedup_bytes given, std::string_view name) {
    return std::string(DEDUP_TRY(bytes(given, name)));
}

Result<void> check_reserved(std::uint32_t value) {
    return value == 0 ? Result<void>() : invalid("a reserved field is not 0");
}

}  // namespace

Result<CacheOptions> cache_options(const dedup_cache_options* given) {
    const dedup_cache_options taken = DEDUP_TRY(take_struct(given, "dedup_cache_options"));
    CacheOptions options;
    if (const auto ns = DEDUP_TRY(bytes(taken.ns, "ns")); !ns.empty()) {
        options.ns = ns;
    }
    options.ttl = duration(taken.ttl_ms).value_or(options.ttl);
    options.unanswered = DEDUP_TRY(unanswered_of(taken.unanswered)).value_or(options.unanswered);
    options.attempts_max = attempts_of(taken.attempts_max).value_or(0);
    DEDUP_TRY(check_options(options));
    return options;
}

Result<ClaimOptions> claim_options(const dedup_claim_options& given) {
    ClaimOptions options;
    options.owner = DEDUP_TRY(text(given.owner, "owner"));
    options.fingerprint = DEDUP_TRY(text(given.fingerprint, "fingerprint"));
    options.event_id = DEDUP_TRY(text(given.event_id, "event_id"));
    options.metadata = DEDUP_TRY(text(given.metadata, "metadata"));
    options.lease = duration(given.lease_ms);
    options.ttl = duration(given.ttl_ms);
    if (given.expires_at_ms != 0) {
        options.expires_at_ms = given.expires_at_ms;
    }
    options.unanswered = DEDUP_TRY(unanswered_of(given.unanswered));
    options.attempts_max = attempts_of(given.attempts_max);
    options.reclaim_before_ms = given.reclaim_before_ms;
    return options;
}

Result<ClaimOptions> claim_options(const dedup_claim_options* given) {
    return claim_options(DEDUP_TRY(take_struct(given, "dedup_claim_options")));
}

Result<CompleteOptions> complete_options(const dedup_complete_options& given) {
    DEDUP_TRY(check_reserved(given.reserved));
    CompleteOptions options;
    options.ttl = duration(given.ttl_ms);
    const std::string_view metadata = DEDUP_TRY(bytes(given.metadata, "metadata"));
    if (DEDUP_TRY(flag(given.set_metadata, "set_metadata"))) {
        options.metadata = metadata;
    } else if (!metadata.empty()) {
        return invalid("metadata is given, and set_metadata is 0");
    }
    return options;
}

Result<CompleteOptions> complete_options(const dedup_complete_options* given) {
    return complete_options(DEDUP_TRY(take_struct(given, "dedup_complete_options")));
}

Result<Resolution> resolution_of(const dedup_resolution* given) {
    DEDUP_TRY(needs(given, "resolution"));
    const dedup_resolution taken = DEDUP_TRY(take_struct(given, "dedup_resolution"));
    DEDUP_TRY(check_reserved(taken.reserved));
    Resolution resolution;
    std::string receipt = DEDUP_TRY(text(taken.receipt, "receipt"));
    if (taken.decision == DEDUP_WAS_DONE) {
        resolution.receipt = std::move(receipt);
    } else if (taken.decision != DEDUP_WAS_NOT_DONE) {
        return invalid(fmt::format(
            "decision is {}; it must be DEDUP_WAS_DONE or DEDUP_WAS_NOT_DONE", taken.decision));
    } else if (!receipt.empty()) {
        return invalid("a receipt is given, and the decision is DEDUP_WAS_NOT_DONE");
    }
    resolution.reason = DEDUP_TRY(text(taken.reason, "reason"));
    resolution.by = DEDUP_TRY(text(taken.by, "by"));
    resolution.ttl = duration(taken.ttl_ms);
    return resolution;
}

Result<Claim> claim_of(std::string_view ns, dedup_bytes key, std::uint64_t claim_sequence) {
    if (claim_sequence == 0) {
        return invalid("claim_sequence is 0; it must be that of a claim's answer");
    }
    return Claim{.ns = std::string(ns),
                 .key = DEDUP_TRY(text(key, "key")),
                 .claim_sequence = claim_sequence};
}

}  // namespace dedup
