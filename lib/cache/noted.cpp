// Whether the holder of a claim has noted something since he claimed the key. A claim may begin
// with what the one before it had noted, so a note that stands is not always its holder's own.
#include <cstddef>
#include <cstdint>
#include <span>

#include "dedup/cache.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// A renewal is a version, too.
constexpr std::size_t kVersionsMax = 10'000;

// `record` is the version after `before` of one claim. The same words once more change nothing.
bool is_note(const Record& record, const Record& before) {
    if (record.metadata != before.metadata) {
        return true;
    }
    Record repeated = before;
    repeated.sequence = record.sequence;
    return record == repeated;
}

bool any_note(std::span<const Version> history, std::uint64_t claim_sequence) {
    const Record* before = nullptr;
    bool is_whole = false;
    for (const Version& version : history) {
        const Record& record = version.record;
        if (record.claim_sequence != claim_sequence) {
            continue;
        }
        if (before == nullptr) {
            is_whole = record.sequence == claim_sequence;
        } else if (is_note(record, *before)) {
            return true;
        }
        before = &record;
    }
    return !is_whole;
}

}  // namespace

Result<bool> Cache::may_have_noted(const Claim& claim) {
    const auto history = DEDUP_TRY(
        store_.history({options_.ns, claim.key}, HistoryLimits{.versions_max = kVersionsMax}));
    if (history.empty()) {
        return false;
    }
    const Record& head = history.back().record;
    return head.claim_sequence == claim.claim_sequence && head.state() == State::in_flight &&
           !head.metadata.empty() && any_note(history, claim.claim_sequence);
}

}  // namespace dedup
