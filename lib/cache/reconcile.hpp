// What Guard and http::serve share about claims that nobody answered.
#pragma once

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "dedup/reconcile.hpp"

namespace dedup {

[[nodiscard]] inline bool was_unanswered(const Previous& previous) {
    return previous.end == End::lease_ran_out || previous.end == End::expired ||
           previous.end == End::restarted;
}

// Whether a decision failed with this because somebody else was quicker, or the holder lives.
[[nodiscard]] inline bool decided_by_others(Code code) {
    return code == Code::stale_claim || code == Code::receipt_mismatch || code == Code::busy;
}

// As much of a reason as is kept.
[[nodiscard]] inline std::string kept_reason(std::string reason) {
    reason.resize(std::min(reason.size(), kReasonBytesMax));
    return reason;
}

// What an exception says of itself. Precondition: one is being handled.
[[nodiscard]] inline std::string what_was_thrown() {
    try {
        throw;
    } catch (const std::exception& error) {
        return kept_reason(error.what());
    } catch (...) {
        return "an exception that is no std::exception";
    }
}

[[nodiscard]] inline Finding ask(const Reconcile& reconcile, std::string_view key,
                                 const Previous& previous) {
    try {
        Finding finding = reconcile(key, previous);
        if (finding.what != Finding::What::done) {
            finding.text = kept_reason(std::move(finding.text));
        }
        return finding;
    } catch (...) {
        return Finding::unknown("asking failed: " + what_was_thrown());
    }
}

// Precondition: `finding` is not unknown.
[[nodiscard]] inline Resolution resolution_of(Finding finding, const std::string& by) {
    if (finding.what == Finding::What::done) {
        return {.receipt = std::move(finding.text), .reason = "reconciled: done", .by = by};
    }
    return {.reason = finding.text.empty() ? "reconciled: not done" : std::move(finding.text),
            .by = by};
}

}  // namespace dedup
