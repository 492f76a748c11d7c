// The part of a sweep's report that is the same on every store, counted head by head.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "dedup/record.hpp"
#include "dedup/sweep.hpp"

namespace dedup {

// Of a Record or a RecordView.
UnansweredClaim unanswered_claim(const auto& head) {
    return {
        .ns = std::string(head.ns),
        .key = std::string(head.key),
        .owner = std::string(head.owner),
        .claim_sequence = head.claim_sequence,
        .claimed_at_ms = head.timestamp_ms,
        .expired_at_ms = head.expires_at_ms,
        .attempt = head.attempt,
        .event_id = std::string(head.event_id),
        .note = std::string(std::string_view(head.metadata).substr(0, kUnansweredNoteBytesMax))};
}

class SweepTally {
  public:
    explicit SweepTally(std::size_t unanswered_max) : unanswered_max_(unanswered_max) {}

    void remove(const Record& head, bool evicted) {
        ++of(head.ns).removed[head.state()];
        evicted_ += evicted ? 1 : 0;
        if (head.state() == State::in_flight) {
            list_unanswered(head);
        }
    }

    // Streams whose claims in flight are listed apart.
    void remove(std::string_view ns, State state, std::uint64_t streams) {
        of(ns).removed[state] += streams;
    }
    // Of those removed. The lowest sequences are kept.
    void list_unanswered(const Record& head) {
        unanswered_.try_emplace(head.sequence, unanswered_claim(head));
        if (unanswered_.size() > unanswered_max_) {
            unanswered_.erase(std::prev(unanswered_.end()));
        }
    }

    void retain(const Record& head) {
        retain(head.ns, head.state(), 1);
        if (head.expires_at_ms != 0) {
            expires(head.expires_at_ms);
        }
    }
    void retain(std::string_view ns, State state, std::uint64_t streams) {
        of(ns).retained[state] += streams;
    }
    // A retained stream expires then.
    void expires(std::int64_t expires_at_ms) {
        const std::int64_t earliest = next_expiry_ms_.value_or(expires_at_ms);
        next_expiry_ms_ = std::min(earliest, expires_at_ms);
    }

    void write(SweepReport& report) const {
        for (const auto& [ns, row] : namespaces_) {
            report.removed += row.removed;
            report.retained += row.retained;
            if (row.removed.total() != 0) {
                report.namespaces.push_back(row);
            }
        }
        for (const auto& [sequence, claim] : unanswered_) {
            report.unanswered.push_back(claim);
        }
        report.evicted = evicted_;
        report.next_expiry_ms = next_expiry_ms_;
    }

  private:
    SweptNamespace& of(std::string_view ns) {
        auto at = namespaces_.find(ns);
        if (at == namespaces_.end()) {
            at = namespaces_.try_emplace(std::string(ns)).first;
            at->second.ns = ns;
        }
        return at->second;
    }

    std::size_t unanswered_max_;
    std::map<std::string, SweptNamespace, std::less<>> namespaces_;
    std::map<std::uint64_t, UnansweredClaim> unanswered_;  // by the sequence of the head
    std::optional<std::int64_t> next_expiry_ms_;
    std::uint64_t evicted_ = 0;
};

}  // namespace dedup
