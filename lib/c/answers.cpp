#include "c/answers.hpp"

#include <algorithm>
#include <bit>
#include <type_traits>
#include <variant>

#include "c/border.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

// A place in what is still growing, where a pointer will be.
template <class T>
const T* as_place(std::size_t at) {
    return std::bit_cast<const T*>(at);
}

template <class T>
std::size_t place(const T* pointer) {
    return std::bit_cast<std::size_t>(pointer);
}

std::uint32_t number(Unanswered unanswered) {
    return unanswered == Unanswered::hold ? DEDUP_HOLD : DEDUP_RERUN;
}

}  // namespace

static_assert(DEDUP_END_LEASE_RAN_OUT == static_cast<int>(End::lease_ran_out));
static_assert(DEDUP_END_RESTARTED == static_cast<int>(End::restarted));

dedup_bytes Answers::keep(std::string_view text) {
    if (text.empty()) {
        return {as_place<void>(0), 0};
    }
    const std::size_t at = texts_.size();
    texts_.append(text);
    texts_.push_back('\0');
    return {as_place<void>(at), text.size()};
}

void Answers::fill(dedup_answer& answer, const Error& error) {
    answer.kind = DEDUP_ERROR;
    answer.code = static_cast<std::int32_t>(error.code);
    answer.os_error = error.os_error;
    answer.head_sequence = error.head_sequence;
    answer.message = keep(error.message);
}

void Answers::fill(dedup_answer& answer, const InFlight& outcome) {
    answer.kind = DEDUP_IN_FLIGHT;
    answer.claim_sequence = outcome.claim_sequence;
    answer.since_ms = outcome.since_ms;
    answer.lease_until_ms = outcome.lease_until_ms;
    answer.expires_at_ms = outcome.expires_at_ms;
    answer.attempt = outcome.attempt;
    answer.unanswered = number(outcome.unanswered);
    answer.held = outcome.held ? 1 : 0;
    answer.owner = keep(outcome.owner);
    answer.event_id = keep(outcome.event_id);
    answer.metadata = keep(outcome.metadata);
}

void Answers::fill(dedup_answer& answer, const Absent&) {
    answer.kind = DEDUP_ABSENT;
}

void Answers::fill(dedup_answer& answer, const New& outcome) {
    answer.kind = DEDUP_NEW;
    answer.claim_sequence = outcome.claim_sequence;
    if (outcome.previous) {
        fill_previous(answer, *outcome.previous);
    }
}

void Answers::fill(dedup_answer& answer, const Claimed& outcome) {
    answer.kind = DEDUP_CLAIMED;
    answer.claim_sequence = outcome.claim.claim_sequence;
    answer.deadline_ms = outcome.claim.deadline_ms;
    answer.attempt = outcome.claim.attempt;
    if (outcome.previous) {
        fill_previous(answer, *outcome.previous);
    }
}

void Answers::fill(dedup_answer& answer, const Completed& outcome) {
    answer.kind = DEDUP_COMPLETED;
    answer.claim_sequence = outcome.claim_sequence;
    answer.since_ms = outcome.completed_at_ms;
    answer.expires_at_ms = outcome.expires_at_ms;
    answer.attempt = outcome.attempt;
    answer.receipt = keep(outcome.receipt);
    answer.event_id = keep(outcome.event_id);
    answer.metadata = keep(outcome.metadata);
}

void Answers::fill(dedup_answer& answer, const Mismatch& outcome) {
    answer.kind = DEDUP_MISMATCH;
    answer.since_ms = outcome.since_ms;
    answer.conflicts = outcome.conflicts;
    answer.completed = outcome.state == State::completed ? 1 : 0;
    answer.fingerprint = keep(outcome.fingerprint);
}

void Answers::fill(dedup_answer& answer, const Held& outcome) {
    answer.kind = DEDUP_HELD;
    answer.claim_sequence = outcome.previous.claim_sequence;
    fill_previous(answer, outcome.previous);
}

void Answers::fill(dedup_answer& answer, const Claim& renewed) {
    answer.kind = DEDUP_DONE;
    answer.deadline_ms = renewed.deadline_ms;
}

void Answers::fill(dedup_answer& answer, bool released) {
    answer.kind = released ? DEDUP_DONE : DEDUP_NOTHING;
}

void Answers::fill_previous(dedup_answer& answer, const Previous& previous) {
    dedup_previous filled{};
    filled.end = static_cast<std::uint32_t>(previous.end);
    filled.attempt = previous.attempt;
    filled.claim_sequence = previous.claim_sequence;
    filled.began_ms = previous.began_ms;
    filled.ended_ms = previous.ended_ms;
    filled.owner = keep(previous.owner);
    filled.note = keep(previous.note);
    filled.event_id = keep(previous.event_id);
    filled.reason = keep(previous.reason);
    filled.by = keep(previous.by);
    previous_.push_back(filled);
    answer.previous = as_place<dedup_previous>(previous_.size());  // one more, as 0 is none
}

template <class T>
void Answers::add_result(const Result<T>& result, std::uint64_t tag) {
    dedup_answer answer{};
    answer.tag = tag;
    if (!result) {
        fill(answer, result.error());
    } else if constexpr (std::is_void_v<T>) {
        answer.kind = DEDUP_DONE;
    } else if constexpr (std::is_same_v<T, Claim> || std::is_same_v<T, bool>) {
        fill(answer, *result);
    } else {
        std::visit([&](const auto& outcome) { fill(answer, outcome); }, *result);
    }
    all_.push_back(answer);
}

void Answers::add(const Result<ClaimOutcome>& outcome, std::uint64_t tag) {
    add_result(outcome, tag);
}
void Answers::add(const Result<LookupOutcome>& outcome, std::uint64_t tag) {
    add_result(outcome, tag);
}
void Answers::add(const Result<RememberOutcome>& outcome, std::uint64_t tag) {
    add_result(outcome, tag);
}
void Answers::add(const Result<Claim>& renewed, std::uint64_t tag) {
    add_result(renewed, tag);
}
void Answers::add(const Result<bool>& released, std::uint64_t tag) {
    add_result(released, tag);
}
void Answers::add(const Result<void>& completed, std::uint64_t tag) {
    add_result(completed, tag);
}

void Answers::reserve(std::size_t count) {
    if (count > all_.capacity()) {
        all_.reserve(std::max(count, 2 * all_.capacity()));
    }
}

void Answers::add_unknown(std::uint64_t tag) {
    dedup_answer answer{};
    answer.tag = tag;
    answer.kind = DEDUP_ERROR;
    answer.code = DEDUP_OUTCOME_UNKNOWN;
    all_.push_back(answer);
}

void Answers::point(dedup_bytes& text) const {
    text.data = texts_.data() + place(text.data);
}

void Answers::finish() {
    for (dedup_answer& answer : all_) {
        for (dedup_bytes* text : {&answer.receipt, &answer.metadata, &answer.event_id,
                                  &answer.owner, &answer.fingerprint, &answer.message}) {
            point(*text);
        }
        if (answer.previous != nullptr) {
            answer.previous = &previous_[place(answer.previous) - 1];
        }
    }
    for (dedup_previous& previous : previous_) {
        for (dedup_bytes* text : {&previous.owner, &previous.note, &previous.event_id,
                                  &previous.reason, &previous.by}) {
            point(*text);
        }
    }
}

}  // namespace dedup

size_t dedup_outcome_count(const dedup_outcome* outcome) {
    return outcome == nullptr ? 0 : outcome->answers.all().size();
}

const dedup_answer* dedup_outcome_at(const dedup_outcome* outcome, size_t i) {
    return i < dedup_outcome_count(outcome) ? &outcome->answers.all()[i] : nullptr;
}

void dedup_outcome_free(dedup_outcome* outcome) {
    delete outcome;
}

int dedup_outcome_view(const dedup_outcome* outcome, dedup_view* view, dedup_error* error) {
    using namespace dedup;
    return across(error, Effect::none, [&]() -> Result<void> {
        DEDUP_TRY(needs(outcome, "outcome"));
        DEDUP_TRY(needs(view, "view"));
        const std::size_t size = DEDUP_TRY(size_of_struct(view, SIZE_MAX, "dedup_view"));
        const Answers& answers = outcome->answers;
        const dedup_view filled = {
            .size = size,
            .count = answers.all().size(),
            .answers = answers.all().data(),
            .answer_bytes = sizeof(dedup_answer),
            .texts = answers.texts().data(),
            .texts_bytes = answers.texts().size(),
            .previous = answers.previous().data(),
            .previous_bytes = answers.previous().size() * sizeof(dedup_previous),
        };
        std::memcpy(static_cast<void*>(view), &filled, std::min(size, sizeof filled));
        return {};
    });
}
