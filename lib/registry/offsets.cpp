#include "dedup/offsets.hpp"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "keys/netstring.hpp"
#include "record/check.hpp"
#include "record/try.hpp"
#include "registry/offset_op.hpp"

namespace dedup {
namespace {

std::optional<Error> error_of(const Result<void>& answer) {
    return answer ? std::nullopt : std::optional(answer.error());
}

}  // namespace

std::string position_key(std::string_view pipeline, std::string_view stream) {
    std::string key;
    append_netstring(key, pipeline);
    append_netstring(key, stream);
    return key;
}

Result<void> check_position_name(std::string_view ns, std::string_view key) {
    if (Result<void> checked = check_namespace(ns); !checked) {
        return checked;
    }
    if (key.size() > kKeyBytesMax) {
        return std::unexpected(Error{
            .code = Code::invalid_argument,
            .message = fmt::format("pipeline and stream take {} bytes together; at most {} are "
                                   "allowed",
                                   grouped(key.size()), grouped(kKeyBytesMax))});
    }
    return {};
}

Result<std::optional<Position>> position_of(const std::optional<Record>& head) {
    if (!head || head->state() == State::released) {
        return std::nullopt;
    }
    Position position{.event_id = head->event_id, .committed_at_ms = head->timestamp_ms};
    const char* const end = head->metadata.data() + head->metadata.size();
    const auto [after, problem] = std::from_chars(head->metadata.data(), end, position.offset);
    if (head->receipt || problem != std::errc{} || after != end) {
        return std::unexpected(
            Error{.code = Code::corruption,
                  .message = fmt::format("the record of key {} in namespace {} is no offset; use "
                                         "another namespace if this one is used for something else",
                                         quoted_bytes(head->key), quoted_bytes(head->ns))});
    }
    return position;
}

Result<void> OffsetOp::check() const {
    if (commit.event_id.size() > kLabelBytesMax) {
        return std::unexpected(Error{
            .code = Code::invalid_argument,
            .message = fmt::format("event_id is {} bytes; at most {} are allowed",
                                   grouped(commit.event_id.size()), grouped(kLabelBytesMax))});
    }
    return check_position_name(ns, key);
}

Decision<CommitOutcome> OffsetOp::decide(const Seen& seen) const {
    auto current = position_of(seen.head);
    if (!current) {
        return {std::unexpected(std::move(current).error()), {}};
    }
    if (*current && (*current)->offset == commit.offset) {
        return {Committed{}, {}};
    }
    if (*current && (*current)->offset > commit.offset && !commit.may_go_back) {
        return {Behind{**std::move(current)}, {}};
    }
    Record record;
    record.ns = ns;
    record.key = key;
    record.timestamp_ms = seen.now_ms;
    record.owner = commit.pipeline.substr(0, kLabelBytesMax);
    record.event_id = commit.event_id;
    record.metadata = std::to_string(commit.offset);
    return {Committed{}, Append{seen.sequence(), std::move(record)}, Change::committed};
}

Offsets::Offsets(StreamStore& store, std::string ns, TransitionObserver observer)
    : store_(store),
      ns_(std::move(ns)),
      cache_(store, {.ns = ns_, .observer = std::move(observer)}) {}

Result<std::optional<Position>> Offsets::find(std::string_view pipeline,
                                              std::string_view stream) const {
    const std::string key = position_key(pipeline, stream);
    DEDUP_TRY(check_position_name(ns_, key));
    auto head = DEDUP_TRY(store_.head({ns_, key}));
    return position_of(head);
}

Result<CommitOutcome> Offsets::commit(const OffsetCommit& commit) {
    return complete_and_commit(std::span<const Completion>{}, commit);
}

Result<CommitOutcome> Offsets::complete_and_commit(std::span<const Completion> completions,
                                                   const OffsetCommit& commit) {
    auto outcome = settle(cache_, completions, commit);
    count_refused(cache_, cache_, outcome);
    return outcome;
}

// `completer` counts and tells the completions; what is refused is for the caller to count.
Result<CommitOutcome> Offsets::settle(Cache& completer, std::span<const Completion> completions,
                                      const OffsetCommit& commit) {
    std::vector<CacheOptions> caches;  // each claim says of which namespace it is
    caches.reserve(completions.size());
    std::vector<CompleteOp> ops;
    ops.reserve(completions.size());
    for (const auto& [claim, receipt, options] : completions) {
        caches.push_back({.ns = claim.ns});
        ops.push_back({caches.back(), claim.key, &claim, receipt, options});
    }
    const OffsetOp offset{ns_, position_key(commit.pipeline, commit.stream), commit};
    auto outcome = settle_with_offset(store_, completer, cache_, std::span<const CompleteOp>(ops),
                                      offset, error_of);
    if (outcome && std::holds_alternative<Committed>(*outcome)) {
        const std::vector<Result<void>> done(ops.size());
        CacheInside::count_work(completer, ops, done);
    }
    return outcome;
}

Result<CommitOutcome> Offsets::complete_and_commit(const Claim& claim, std::string_view receipt,
                                                   const OffsetCommit& commit) {
    const Completion completion{claim, std::string(receipt), {}};
    return complete_and_commit({&completion, 1}, commit);
}

}  // namespace dedup
