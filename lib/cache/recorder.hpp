// What one call does to the metrics, and who is told of its changes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <variant>

#include "cache/decide.hpp"

namespace dedup {

struct Recorder {
    const TransitionObserver& observer;
    CacheCounts counts = {};
    bool appended = false;

    // An append of the call has landed as `sequence`.
    void landed(Append& item, std::uint64_t sequence, std::optional<Change> change) {
        appended = true;
        if (!observer || !change) {
            return;
        }
        Record& record = item.record;
        record.sequence = sequence;
        if (record.claim_sequence == 0) {
            record.claim_sequence = sequence;
        }
        observer({*change, record});
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
        } else if constexpr (std::is_same_v<Answer, bool>) {
            ++counts.released_nothing;
        } else if constexpr (std::is_same_v<Answer, LookupOutcome>) {
            ++(std::holds_alternative<Absent>(*answer)      ? counts.lookups_absent
               : std::holds_alternative<Completed>(*answer) ? counts.lookups_completed
                                                            : counts.lookups_in_flight);
        } else if constexpr (!std::is_same_v<Answer, Claim>) {
            ++(std::holds_alternative<Completed>(*answer)  ? counts.duplicates
               : std::holds_alternative<InFlight>(*answer) ? counts.in_flight
                                                           : counts.mismatches);
        }
    }

  private:
    [[nodiscard]] std::uint64_t& count_of(Change change) {
        switch (change) {
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
            case Change::renewed:
                break;
        }
        return counts.renewed;
    }
};

}  // namespace dedup
