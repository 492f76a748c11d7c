// What a count looks for, and what it finds.
#pragma once

#include <cstdint>
#include <map>

#include "store/log_store.hpp"

namespace dedup {

struct LogStore::Count {
    // Claims in flight to be listed, by sequence.
    struct Unanswered {
        std::size_t claims_max = 0;
        std::map<std::uint64_t, UnansweredClaim> claims;

        [[nodiscard]] bool wants(std::uint64_t sequence) const {
            return claims.size() < claims_max ||
                   (claims_max != 0 && sequence < claims.rbegin()->first);
        }
        void offer(const Located& at);
    };

    const View& view;
    const TailNumbers& tail;
    Horizon from;  // what this removes has been counted before
    Horizon to;
    std::uint64_t as_of = 0;  // the last sequence when `to` was set
    // The catalog is being rebuilt: segments are counted one stream at a time, since links to
    // segments that are gone leave the censuses of older ones too high.
    bool rebuilt = false;
    SweepReport& report;
    Unanswered unanswered = {};
    std::map<std::uint64_t, Counted> counted = {};
    Tally removed = {};
    Tally retained = {};
    StateCounts newest_live = {};  // of the streams retained, those in the newest segment

    Result<void> remove(const Located& at);
};

}  // namespace dedup
