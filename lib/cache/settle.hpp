// The one loop by which every operation is carried out, alone or in a span.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/decide.hpp"

namespace dedup {

// For operations that nobody counts or observes.
struct RecordNothing {
    static bool expects_new() { return false; }
    static void found_new(std::size_t, std::size_t) {}
    static void expect(std::size_t) {}
    static void landed(std::size_t, const Append&, std::uint64_t, std::optional<Change>) {}
    static void answered(const auto&, std::optional<Change> = {}) {}
    static void lost_race() {}
    static void settled() {}
};

// Whether a stream that was taken for absent may be there, for all that its append has failed with.
[[nodiscard]] constexpr bool may_be_known(Code code) {
    return code != Code::outcome_unknown && code != Code::unavailable && code != Code::closed;
}

// Carries out `ops`, at most kBatchItemsMax of them, and returns their answers in order.
//
// Each round reads the heads of all that is unsettled, decides, and appends whatever needs it as
// one batch, hence with one flush. An append loses a race if somebody else has appended to its
// stream since the head was read, be it another caller or an equal key earlier in the span. A lost
// race is settled by reading again, so a round is repeated for the losers and for nobody else.
// Every loss means that another append has won, so the rounds come to an end.
//
// An append without a change only counts a request in its stream's head. Those of one stream and
// round are one append, or a span of wrong requests for one key would take as many rounds.
//
// Where reads are remote and keys are expected to be new, the first round takes all streams for
// absent: what begins a stream is right about that, or loses, or fails and learns from the next
// round what is the matter.
template <class Op, class Recorder>
void settle_batch(StreamStore& store, std::span<const Op> ops,
                  std::vector<Result<typename Op::Answer>>& answers, Recorder& recorder) {
    const std::size_t first = answers.size();
    std::vector<std::size_t> open;  // what is not settled yet
    open.reserve(ops.size());
    for (std::size_t i = 0; i < ops.size(); ++i) {
        if (Result<void> checked = ops[i].check(); checked) {
            answers.emplace_back();
            open.push_back(i);
        } else {
            answers.emplace_back(std::unexpect, std::move(checked).error());
            recorder.answered(answers.back());
        }
    }

    std::vector<StreamKey> streams;
    std::vector<Append> batch;
    struct Appending {
        std::size_t op;
        std::size_t item;  // of `batch`
        std::optional<Change> change;
    };
    std::vector<Appending> appending;  // what `batch` is for
    std::map<std::pair<std::string_view, std::string_view>, std::size_t> counting;  // items
    bool guess = store.reads_are_remote() && recorder.expects_new();
    for (bool first_round = true; !open.empty(); first_round = false, guess = false) {
        streams.clear();
        for (const std::size_t i : open) {
            streams.push_back({ops[i].cache.ns, ops[i].key});
        }
        auto heads =
            guess ? std::vector<Result<std::optional<Record>>>(open.size()) : store.heads(streams);
        // Read after the heads, so that no head is younger than the time it is judged by.
        const std::int64_t now_ms = store.now_ms();

        batch.clear();
        appending.clear();
        counting.clear();
        const std::size_t asked = open.size();
        std::size_t absent = 0;
        for (std::size_t j = 0; j < open.size(); ++j) {
            auto& answer = answers[first + open[j]];
            if (!heads[j]) {
                answer = std::unexpected(std::move(heads[j]).error());
                recorder.answered(answer);
                continue;
            }
            absent += *heads[j] ? 0U : 1U;
            const std::pair stream(streams[j].ns, streams[j].key);
            const auto counted = counting.find(stream);
            if (counted != counting.end()) {
                *heads[j] = batch[counted->second].record;
            }
            auto decision = ops[open[j]].decide({*heads[j], now_ms, store.grace()});
            answer = std::move(decision.answer);
            if (!decision.append) {
                recorder.answered(answer);
            } else if (counted != counting.end() && !decision.change) {
                batch[counted->second] = *std::move(decision.append);
                appending.push_back({open[j], counted->second, {}});
            } else {
                if (batch.empty()) {
                    batch.reserve(open.size() - j);
                }
                if (!decision.change) {
                    counting.emplace(stream, batch.size());
                }
                appending.push_back({open[j], batch.size(), decision.change});
                batch.push_back(*std::move(decision.append));
            }
        }
        open.clear();
        recorder.expect(batch.size());
        auto landed =
            batch.empty() ? std::vector<Result<std::uint64_t>>() : store.append(batch, Batch::each);
        for (const auto& [op, item, change] : appending) {
            auto& answer = answers[first + op];
            const auto& sequence = landed[item];
            if (sequence) {
                Op::landed(answer, *sequence);
                recorder.answered(answer, change);
                recorder.landed(op, batch[item], *sequence, change);
            } else if (guess && may_be_known(sequence.error().code)) {
                open.push_back(op);
            } else if (sequence.error().code == Code::sequence_conflict) {
                recorder.lost_race();
                open.push_back(op);
            } else {
                answer = std::unexpected(sequence.error());
                recorder.answered(answer);
            }
        }
        if (first_round) {
            recorder.found_new(guess ? asked - open.size() : absent, asked);
        }
    }
    recorder.settled();
}

// As settle_batch, for any number of operations.
template <class Op, class Recorder>
[[nodiscard]] std::vector<Result<typename Op::Answer>> settle_span(StreamStore& store,
                                                                   std::span<const Op> ops,
                                                                   Recorder& recorder) {
    std::vector<Result<typename Op::Answer>> answers;
    answers.reserve(ops.size());
    while (!ops.empty()) {
        const std::size_t count = std::min(ops.size(), kBatchItemsMax);
        settle_batch(store, ops.first(count), answers, recorder);
        ops = ops.subspan(count);
    }
    return answers;
}

template <class Op>
[[nodiscard]] std::vector<Result<typename Op::Answer>> settle_span(StreamStore& store,
                                                                   std::span<const Op> ops) {
    RecordNothing nothing;
    return settle_span(store, ops, nothing);
}

}  // namespace dedup
