// What a claim, a lookup or a remember found, said the same way by every command.
#pragma once

#include <optional>
#include <string_view>

#include "context.hpp"
#include "key_argument.hpp"

namespace dedupctl {

// Who gets an outcome that comes without a receipt as text: whoever reads standard output, or, if
// that is for the receipt alone, people.
enum class Explain { on_output, on_error };

// Each prints one outcome of `key` and returns the command's exit code.

int print_claimed(Context& context, const dedup::Claim& claim, std::int64_t now_ms);
// The same, and what is known of the claim before it, on standard error.
int print_claimed(Context& context, const dedup::Claimed& claimed, std::int64_t now_ms);

// Says on standard error what is known of the claim before it, if there was one and not told to be
// quiet; and the same as the member `previous` of an object.
void note_previous(const Context& context, const std::optional<dedup::Previous>& previous,
                   std::int64_t now_ms);
void add_previous(Json& object, const std::optional<dedup::Previous>& previous);

// The receipt alone goes to standard output; the explanation goes to standard error. `outcome` is
// "completed" or "duplicate".
int print_completed(Context& context, std::string_view key, const dedup::Completed& completed,
                    std::string_view outcome, std::int64_t now_ms);

int print_in_flight(Context& context, std::string_view key, const dedup::InFlight& in_flight,
                    std::int64_t now_ms, Explain explain = Explain::on_output);

int print_held(Context& context, std::string_view key, const dedup::Held& held, std::int64_t now_ms,
               Explain explain = Explain::on_output);

int print_mismatch(Context& context, std::string_view key, const dedup::Mismatch& mismatch,
                   std::int64_t now_ms, Explain explain = Explain::on_output);

// The same outcomes as JSON.
[[nodiscard]] Json claimed_json(const Context& context, const dedup::Claim& claim,
                                const std::optional<dedup::Previous>& previous = {});
[[nodiscard]] Json new_json(const Context& context, std::string_view key, const dedup::New& fresh);
[[nodiscard]] Json completed_json(const Context& context, std::string_view key,
                                  const dedup::Completed& completed, std::string_view outcome);
[[nodiscard]] Json in_flight_json(const Context& context, std::string_view key,
                                  const dedup::InFlight& in_flight);
[[nodiscard]] Json held_json(const Context& context, std::string_view key, const dedup::Held& held);
[[nodiscard]] Json mismatch_json(const Context& context, std::string_view key,
                                 const dedup::Mismatch& mismatch);

// And as the answer for one of many keys. `completed` is the word for what was there already.
[[nodiscard]] KeyAnswer key_answer(const Context& context, std::string_view key,
                                   const dedup::ClaimOutcome& outcome);
[[nodiscard]] KeyAnswer key_answer(const Context& context, std::string_view key,
                                   const dedup::LookupOutcome& outcome);
[[nodiscard]] KeyAnswer key_answer(const Context& context, std::string_view key,
                                   const dedup::RememberOutcome& outcome);

// The answers for the results of a call about many keys.
template <class Outcome>
[[nodiscard]] std::vector<KeyAnswer> key_answers(
    const Context& context, std::span<const std::string_view> keys,
    const std::vector<dedup::Result<Outcome>>& results) {
    std::vector<KeyAnswer> answers;
    for (std::size_t i = 0; i < results.size(); ++i) {
        answers.push_back(results[i] ? key_answer(context, keys[i], *results[i])
                                     : error_answer(context, keys[i], results[i].error()));
    }
    return answers;
}

// Without --claim, nothing is done to a held key, as that would decide what became of its work
// without saying why: throws a Failure, or is its answer among many.
void refuse_held(const Context& context, std::string_view key, const dedup::LookupOutcome& found);
[[nodiscard]] KeyAnswer held_answer(const Context& context, std::string_view key,
                                    const dedup::InFlight& held);

// Without --claim, a command answers for whoever holds the key. If there were others before, says
// on standard error whose claim that was: a late worker may have meant his own. `held` is what was
// found before; `verb` is "completed" or "released".
void note_whose_claim(const Context& context, std::string_view verb,
                      const dedup::LookupOutcome& held);

}  // namespace dedupctl
