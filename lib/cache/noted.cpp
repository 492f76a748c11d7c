// Whether the holder of a claim has noted something since he claimed the key. A claim may begin
// with what the one before it had noted, so a note that stands is not always its holder's own.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/ending.hpp"
#include "dedup/cache.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// Of a key's newest versions. A renewal is one, too.
constexpr HistoryLimits kLimits{.versions_max = 256, .bytes_max = std::size_t{4} * 1024 * 1024};

// `record` is the version after `before` of one claim. The same words once more change nothing.
bool is_note(const Record& record, const Record& before) {
    if (record.metadata != before.metadata) {
        return true;
    }
    Record repeated = before;
    repeated.sequence = record.sequence;
    return record == repeated;
}

// Whether a version between the two may have been swept: with a whole segment, or moved past one.
bool may_miss(const Version& before, const Version& after) {
    return after.segment != before.segment && after.segment != before.segment + 1;
}

// `history` ends with a version of the claim.
bool any_note(std::span<const Version> history, std::uint64_t claim_sequence) {
    const Version* before = nullptr;
    for (const Version& version : history) {
        if (version.record.claim_sequence != claim_sequence) {
            continue;
        }
        if (before == nullptr
                ? version.record.sequence != claim_sequence
                : may_miss(*before, version) || is_note(version.record, before->record)) {
            return true;
        }
        before = &version;
    }
    return false;
}

}  // namespace

Result<bool> Cache::may_have_noted(const Claim& claim) {
    DEDUP_TRY(check_claim(options_, claim.key, &claim));
    const StreamKey stream{options_.ns, claim.key};
    const std::optional<Record> head = DEDUP_TRY(store_.head(stream));
    if (!head || head->claim_sequence != claim.claim_sequence ||
        head->state() != State::in_flight || head->metadata.empty() ||
        head->sequence == claim.claim_sequence) {
        return false;
    }
    const std::vector<Version> history = DEDUP_TRY(store_.history(stream, kLimits));
    return !history.empty() && history.back().record.claim_sequence == claim.claim_sequence &&
           any_note(history, claim.claim_sequence);
}

}  // namespace dedup
