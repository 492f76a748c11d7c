// The answers of the SQL functions, as the library's, to compare the two.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "dedup/cache.hpp"
#include "support/claim_model.hpp"

namespace dedup::test {

// One row of an answer, read column by column.
class AnswerRow {
  public:
    static constexpr const char* kColumns =
        "outcome, key, fence, attempt, receipt, owner, since_ms, lease_until_ms, expires_at_ms, "
        "fingerprint, event_id, metadata, unanswered, previous_fence, previous_attempt, "
        "previous_owner, previous_event_id, previous_began_ms, previous_ended_ms, previous_end, "
        "previous_note, previous_reason, previous_by";

    explicit AnswerRow(std::vector<std::string> row) : row_(std::move(row)) {
        outcome = text();
        claim.key = bytes();
        claim.claim_sequence = static_cast<std::uint64_t>(number());
        claim.attempt = static_cast<std::uint32_t>(number());
        receipt = bytes();
        in_flight.owner = bytes();
        in_flight.since_ms = number();
        in_flight.lease_until_ms = number();
        in_flight.expires_at_ms = number();
        in_flight.claim_sequence = claim.claim_sequence;
        in_flight.attempt = claim.attempt;
        fingerprint = bytes();
        in_flight.event_id = bytes();
        in_flight.metadata = bytes();
        in_flight.unanswered = text() == "hold" ? Unanswered::hold : Unanswered::rerun;
        in_flight.held = outcome == "held";
        claim.deadline_ms =
            in_flight.lease_until_ms != 0 ? in_flight.lease_until_ms : in_flight.expires_at_ms;
        read_previous();
    }

    [[nodiscard]] Completed completed() const {
        return {.receipt = receipt,
                .completed_at_ms = in_flight.since_ms,
                .claim_sequence = claim.claim_sequence,
                .event_id = in_flight.event_id,
                .metadata = in_flight.metadata,
                .attempt = claim.attempt,
                .expires_at_ms = in_flight.expires_at_ms};
    }

    std::string outcome;
    Claim claim;
    std::string receipt;
    InFlight in_flight;
    std::string fingerprint;
    std::optional<Previous> previous;

  private:
    void read_previous() {
        Previous read;
        read.claim_sequence = static_cast<std::uint64_t>(number());
        read.attempt = static_cast<std::uint32_t>(number());
        read.owner = bytes();
        read.event_id = bytes();
        read.began_ms = number();
        read.ended_ms = number();
        const std::string end = text();
        for (const End one : {End::lease_ran_out, End::expired, End::released, End::resolved,
                              End::forgotten, End::held}) {
            read.end = name(one) == end ? one : read.end;
        }
        read.note = bytes();
        read.reason = bytes();
        read.by = bytes();
        if (!end.empty()) {
            CHECK(name(read.end) == end);
            previous = read;
        }
    }
    const std::string& text() { return row_.at(at_++); }
    std::int64_t number() {
        const std::string& digits = text();
        return digits.empty() ? 0 : std::stoll(digits);
    }
    std::string bytes() {
        const std::string& hex = text();
        std::string read;
        for (std::size_t i = 2; i < hex.size(); i += 2) {
            read += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
        }
        return read;
    }

    std::vector<std::string> row_;
    std::size_t at_ = 0;
};

inline ClaimOutcome claim_outcome(const AnswerRow& row) {
    if (row.outcome == "claimed") {
        return Claimed{row.claim, row.previous, row.in_flight.metadata};
    }
    if (row.outcome == "completed") {
        return row.completed();
    }
    if (row.outcome == "held") {
        return Held{row.previous.value()};
    }
    if (row.outcome == "mismatch") {
        CHECK(!row.previous.has_value());
        return Mismatch{.fingerprint = row.fingerprint, .since_ms = row.in_flight.since_ms};
    }
    CHECK(row.outcome == "in_flight");
    CHECK(!row.previous.has_value());
    return row.in_flight;
}

inline RememberOutcome remember_outcome(const AnswerRow& row) {
    if (row.outcome == "new") {
        CHECK(!row.previous.has_value());
        return New{row.claim.claim_sequence};
    }
    return std::visit(
        [](auto&& answer) -> RememberOutcome {
            if constexpr (std::is_same_v<std::decay_t<decltype(answer)>, Claimed>) {
                FAIL("remember has claimed");
                return {};
            } else {
                return answer;
            }
        },
        claim_outcome(row));
}

inline LookupOutcome lookup_outcome(const AnswerRow& row) {
    if (row.outcome == "absent") {
        return Absent{};
    }
    if (row.outcome == "completed") {
        return row.completed();
    }
    CHECK((row.outcome == "held" || row.outcome == "in_flight"));
    return row.in_flight;
}

// Fences differ between the sides; which claim of the key they mean must not.
class Fences {
  public:
    std::string show(const auto& result) {
        if (!result) {
            return std::string(name(result.error().code));
        }
        return std::visit(
            [this](auto answer) {
                std::string text = test::show(numbered(answer));
                if constexpr (requires { answer.event_id; }) {
                    text += " event " + answer.event_id;
                }
                return text;
            },
            *result);
    }

  private:
    void number(std::uint64_t& fence) {
        auto at = std::ranges::find(seen_, fence);
        if (at == seen_.end()) {
            at = seen_.insert(at, fence);
        }
        fence = static_cast<std::uint64_t>(at - seen_.begin()) + 1;
    }
    Claimed numbered(Claimed answer) {
        if (answer.previous) {
            number(answer.previous->claim_sequence);
        }
        number(answer.claim.claim_sequence);
        answer.claim.ns.clear();
        return answer;
    }
    Held numbered(Held answer) {
        number(answer.previous.claim_sequence);
        return answer;
    }
    // Of conflicts and states the functions know nothing.
    static Mismatch numbered(const Mismatch& answer) {
        return {.fingerprint = answer.fingerprint, .since_ms = answer.since_ms};
    }
    static Absent numbered(Absent answer) { return answer; }
    auto numbered(auto answer) {
        number(answer.claim_sequence);
        return answer;
    }

    std::vector<std::uint64_t> seen_;
};

}  // namespace dedup::test
