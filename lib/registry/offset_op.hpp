// The decision behind Offsets, and how it is carried out in one append with others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cache/inside.hpp"
#include "dedup/offsets.hpp"

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

[[nodiscard]] inline std::uint64_t& unchanged(CacheCounts& counts, const CommitOutcome& outcome) {
    return std::holds_alternative<Behind>(outcome) ? counts.offsets_behind
                                                   : counts.offsets_repeated;
}

// Operations that are carried out together with an offset, or not at all.
template <class Op>
struct Together {
    struct Item {
        std::size_t op;
        std::optional<Change> change;
    };
    std::vector<Result<typename Op::Answer>> answers = {};
    std::vector<Append> batch = {};
    std::vector<Item> items = {};  // what each of `batch` is for; the offset's is not among them
    Decision<CommitOutcome> moved = {};
};

// Decides once. Empty if `refusal`, which gets the answer of each operation, gives an error, or an
// operation does, or the offset is behind: `moved.answer` says which.
template <class Op, class Refusal>
void decide_together(Together<Op>& all, std::span<const Op> ops, const OffsetOp& offset,
                     std::vector<Result<std::optional<Record>>>& heads, std::int64_t now_ms,
                     std::chrono::milliseconds grace, const Refusal& refusal) {
    all = {};
    for (std::size_t i = 0; i < ops.size(); ++i) {
        auto decision = ops[i].decide({*heads[i], now_ms, grace});
        if (std::optional<Error> refused = refusal(decision.answer)) {
            all.batch.clear();
            all.moved = {std::unexpected(*std::move(refused)), {}};
            return;
        }
        all.answers.push_back(std::move(decision.answer));
        if (decision.append) {
            all.batch.push_back(*std::move(decision.append));
            all.items.push_back({i, decision.change});
        }
    }
    all.moved = offset.decide({*heads.back(), now_ms, grace});
    if (!all.moved.answer || std::holds_alternative<Behind>(*all.moved.answer)) {
        all.batch.clear();
    } else if (all.moved.append) {
        all.batch.push_back(*std::move(all.moved.append));
    }
}

// Counts and tells what was carried out: the operations for one cache, the offset for another. Has
// its memory before anything is appended.
class RecordTogether {
  public:
    RecordTogether(const Cache& completer, const Cache& offsets, std::size_t items)
        : completer_(completer),
          offsets_(offsets),
          done_(CacheInside::recorder(completer)),
          moved_(CacheInside::recorder(offsets)) {
        done_.expect(items);
        moved_.expect(1);
    }

    template <class Op>
    void landed(Together<Op>& all, const std::vector<Result<std::uint64_t>>& sequences) {
        std::size_t next = 0;  // of the items
        for (std::size_t i = 0; i < all.answers.size(); ++i) {
            if (next == all.items.size() || all.items[next].op != i) {
                done_.answered(all.answers[i]);
                continue;
            }
            done_.answered(all.answers[i], all.items[next].change);
            done_.landed(i, all.batch[next], *sequences[next], all.items[next].change);
            ++next;
        }
        if (next == all.batch.size()) {
            moved_.answered(all.moved.answer);
        } else {
            moved_.answered(all.moved.answer, all.moved.change);
            moved_.landed(0, all.batch[next], *sequences[next], all.moved.change);
        }
        CacheInside::count(completer_, done_.counts);
        CacheInside::count(offsets_, moved_.counts);
        done_.settled();
        moved_.settled();
    }

  private:
    const Cache& completer_;
    const Cache& offsets_;
    Recorder done_;
    Recorder moved_;
};

// Counts what `outcome` says was refused: that nothing was carried out.
inline void count_refused(const Cache& completer, const Cache& offsets,
                          const Result<CommitOutcome>& outcome) {
    if (!outcome) {
        const bool stale = outcome.error().code == Code::stale_claim;
        CacheInside::count(completer, {.stale = stale ? 1U : 0U, .errors = stale ? 0U : 1U});
    } else if (std::holds_alternative<Behind>(*outcome)) {
        CacheInside::count(offsets, {.offsets_behind = 1});
    }
}

// Carries out `ops` and `offset` in one atomic append, or nothing of it; see decide_together. A
// lost race is settled by reading everything again, as in settle_batch. What is carried out is
// counted; what is refused is not, since the caller may try each for itself then.
template <class Op, class Refusal>
[[nodiscard]] Result<CommitOutcome> settle_with_offset(StreamStore& store, const Cache& completer,
                                                       const Cache& offsets,
                                                       std::span<const Op> ops,
                                                       const OffsetOp& offset,
                                                       const Refusal& refusal) {
    std::vector<StreamKey> streams;
    for (const Op& op : ops) {
        if (const Result<void> checked = op.check(); !checked) {
            return std::unexpected(checked.error());
        }
        streams.push_back({op.cache.ns, op.key});
    }
    if (const Result<void> checked = offset.check(); !checked) {
        return std::unexpected(checked.error());
    }
    streams.push_back({offset.ns, offset.key});
    Together<Op> all;
    while (true) {
        auto heads = store.heads(streams);
        const std::int64_t now_ms = store.now_ms();  // after the heads, as in settle_batch
        for (const auto& head : heads) {
            if (!head) {
                return std::unexpected(head.error());
            }
        }
        decide_together(all, ops, offset, heads, now_ms, store.grace(), refusal);
        if (!all.moved.answer || std::holds_alternative<Behind>(*all.moved.answer)) {
            return std::move(all.moved.answer);
        }
        RecordTogether record(completer, offsets, all.items.size());
        auto landed = all.batch.empty() ? std::vector<Result<std::uint64_t>>()
                                        : store.append(all.batch, Batch::atomic);
        if (landed.empty() || landed.front()) {
            record.landed(all, landed);
            CacheInside::waiters(store).wake(ops, all.answers);
            return std::move(all.moved.answer);
        }
        if (landed.front().error().code != Code::sequence_conflict) {
            return std::unexpected(landed.front().error());
        }
        CacheInside::count(offsets, {.races_lost = 1});
    }
}

}  // namespace dedup
