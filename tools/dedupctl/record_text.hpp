// A stored record in words and as JSON, for the commands that show records.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "dedup/store.hpp"
#include "output.hpp"

namespace dedupctl {

// The store's idea of now, by which a record is judged.
struct Moment {
    std::int64_t now_ms = 0;
    std::chrono::milliseconds grace{0};

    [[nodiscard]] bool expired(const dedup::Record& record) const {
        return dedup::expired(record.expires_at_ms, now_ms, grace);
    }
    [[nodiscard]] bool held(const dedup::Record& record) const {
        return dedup::held(record, now_ms);
    }
    [[nodiscard]] bool past_lease(const dedup::Record& record) const {
        return dedup::past_lease(record, now_ms, grace);
    }
};

// "in-flight", "held", "completed", "released" or "expired": the words of `ls --state`.
[[nodiscard]] std::string state_word(const dedup::Record& record, const Moment& moment);

// The same word as it is in JSON: "in_flight" as in outcomes, not "in-flight".
[[nodiscard]] std::string json_state(std::string state);

// The same with what it means now: "in flight, lease ran out 3m ago: the next claim takes it over".
[[nodiscard]] std::string state_sentence(const dedup::Record& record, const Moment& moment);

// "resolved by ada: in the bank's list"; empty if nobody has said anything.
[[nodiscard]] std::string verdict_text(const dedup::Verdict& verdict, std::size_t columns_max);

// `kind`, `by` and `reason`; of one that somebody has given.
[[nodiscard]] Json verdict_json(const dedup::Verdict& verdict);

// Every field of the record, and where it lies.
[[nodiscard]] Json version_json(const dedup::Version& version);

}  // namespace dedupctl
