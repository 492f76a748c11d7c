// The decision behind Offsets, and how it is carried out in one append with others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cache/decide.hpp"
#include "dedup/offsets.hpp"
#include "record/try.hpp"

namespace dedup {

[[nodiscard]] Result<void> check_position_name(std::string_view ns, std::string_view key);

// The key of a position in the offsets' namespace.
[[nodiscard]] std::string position_key(std::string_view pipeline, std::string_view stream);

// Errors: corruption.
[[nodiscard]] Result<std::optional<Position>> position_of(const std::optional<Record>& head);

struct OffsetOp {
    const std::string& ns;
    std::string key;
    const OffsetCommit& commit;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<CommitOutcome> decide(const Seen& seen) const;
};

// Carries out `ops` and `offset` in one atomic append, or nothing of it: if `refusal`, which gets
// the answer of each operation, gives an error, or an operation does, or the offset is behind.
// A lost race is settled by reading everything again, as in settle_batch.
template <class Op, class Refusal>
[[nodiscard]] Result<CommitOutcome> settle_with_offset(StreamStore& store, std::span<const Op> ops,
                                                       const OffsetOp& offset,
                                                       const Refusal& refusal) {
    std::vector<StreamKey> streams;
    for (const Op& op : ops) {
        DEDUP_TRY(op.check());
        streams.push_back({op.cache.ns, op.key});
    }
    DEDUP_TRY(offset.check());
    streams.push_back({offset.ns, offset.key});
    while (true) {
        auto heads = store.heads(streams);
        const std::int64_t now_ms = store.now_ms();  // after the heads, as in settle_batch
        for (auto& head : heads) {
            if (!head) {
                return std::unexpected(std::move(head).error());
            }
        }
        std::vector<Append> batch;
        for (std::size_t i = 0; i < ops.size(); ++i) {
            auto decision = ops[i].decide({*heads[i], now_ms, store.grace()});
            if (std::optional<Error> refused = refusal(decision.answer)) {
                return std::unexpected(*std::move(refused));
            }
            if (decision.append) {
                batch.push_back(*std::move(decision.append));
            }
        }
        auto moved = offset.decide({*heads.back(), now_ms, store.grace()});
        if (!moved.answer || std::holds_alternative<Behind>(*moved.answer)) {
            return std::move(moved.answer);
        }
        if (moved.append) {
            batch.push_back(*std::move(moved.append));
        }
        if (batch.empty()) {
            return std::move(moved.answer);
        }
        auto landed = store.append(batch, Batch::atomic);
        if (landed.front()) {
            return std::move(moved.answer);
        }
        if (landed.front().error().code != Code::sequence_conflict) {
            return std::unexpected(std::move(landed.front()).error());
        }
    }
}

}  // namespace dedup
