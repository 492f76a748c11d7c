// What one call does to the metrics, and who is told of its changes.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cache/decide.hpp"

namespace dedup {

// What is counted of an answer that needed no append. Layers have their own, for their answers.
[[nodiscard]] inline std::uint64_t& unchanged(CacheCounts& counts, const bool&) {
    return counts.released_nothing;
}
[[nodiscard]] inline std::uint64_t& unchanged(CacheCounts& counts, const LookupOutcome& outcome) {
    return outcome.absent()                 ? counts.lookups_absent
           : outcome.completed() != nullptr ? counts.lookups_completed
                                            : counts.lookups_in_flight;
}
template <class Outcome>
requires std::is_same_v<Outcome, ClaimOutcome> || std::is_same_v<Outcome, RememberOutcome>
[[nodiscard]] std::uint64_t& unchanged(CacheCounts& counts, const Outcome& outcome) {
    return outcome.completed() != nullptr   ? counts.duplicates
           : outcome.in_flight() != nullptr ? counts.in_flight
           : outcome.held() != nullptr      ? counts.held
                                            : counts.mismatches;
}

struct Recorder {
    // `mostly_new`: what to expect of the keys; null for operations that begin no streams.
    Recorder(const TransitionObserver& told, std::atomic<bool>* mostly_new)
        : observer(told), mostly_new_(mostly_new) {}

    const TransitionObserver& observer;
    CacheCounts counts = {};
    bool appended = false;

    // Up to `appends` more are about to land. They are durable then, so nothing may fail.
    void expect(std::size_t appends) {
        if (observer) {
            changes_.reserve(changes_.size() + appends);
        }
    }

    // The append of operation `op` has landed as `sequence`.
    void landed(std::size_t op, Append& item, std::uint64_t sequence,
                std::optional<Change> change) {
        appended = true;
        if (!observer || !change) {
            return;
        }
        Record& record = item.record;
        record.sequence = sequence;
        if (record.claim_sequence == 0) {
            record.claim_sequence = sequence;
        }
        changes_.push_back({op, *change, std::move(record)});
    }

    // All operations of a batch have their final answers. What lost a race has landed later than
    // what stands behind it in the span, so the observer is told only now.
    void settled() {
        std::ranges::sort(changes_, {}, &Made::op);  // one change an operation
        for (const auto& [op, change, record] : changes_) {
            observer({change, record});
        }
        changes_.clear();
    }

    void lost_race() { ++counts.races_lost; }

    // Whether most keys will be new: as it was last.
    [[nodiscard]] bool expects_new() const { return mostly_new_ != nullptr && *mostly_new_; }
    void found_new(std::size_t fresh, std::size_t asked) {
        const bool most = 2 * fresh >= asked;
        if (mostly_new_ != nullptr && *mostly_new_ != most) {
            *mostly_new_ = most;
        }
    }

    // An operation of the call has its final answer; `change` if that needed an append.
    template <class Answer>
    void answered(const Result<Answer>& answer, std::optional<Change> change = {}) {
        if (!answer) {
            ++(answer.error().code == Code::stale_claim ? counts.stale : counts.errors);
        } else if (change) {
            ++count_of(*change);
        } else if constexpr (std::is_void_v<Answer>) {
            ++counts.completed_again;
        } else if constexpr (!std::is_same_v<Answer, Claim>) {
            ++unchanged(counts, *answer);
        }
    }

  private:
    struct Made {
        std::size_t op;
        Change change;
        Record record;
    };

    [[nodiscard]] std::uint64_t& count_of(Change change) {
        switch (change) {
            case Change::committed:
                return counts.offsets_committed;
            case Change::claimed:
                return counts.claimed;
            case Change::taken_over:
                return counts.taken_over;
            case Change::completed:
                return counts.completed;
            case Change::remembered:
                return counts.remembered;
            case Change::released:
                return counts.released;
            case Change::noted:
                return counts.noted;
            case Change::held:
                return counts.put_on_hold;
            case Change::resolved:
                return counts.resolved;
            case Change::forgotten:
                return counts.forgotten;
            case Change::renewed:
                break;
        }
        return counts.renewed;
    }

    std::atomic<bool>* mostly_new_;
    std::vector<Made> changes_ = {};  // that the observer is still to be told of
};

}  // namespace dedup
