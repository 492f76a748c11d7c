#include "dedup/registry.hpp"

#include <fmt/format.h>

#include <utility>

#include "dedup/json_pointer.hpp"
#include "dedup/scan.hpp"
#include "record/check.hpp"
#include "record/try.hpp"
#include "registry/offset_op.hpp"

namespace dedup {
namespace {

std::string receipt_key(std::string_view pipeline, std::string_view event_id) {
    return position_key(pipeline, event_id);  // a pair of names likewise
}

// Why a receipt cannot be noted together with an offset.
std::optional<Error> refusal(const Result<RememberOutcome>& answer) {
    if (!answer) {
        return answer.error();
    }
    if (!std::holds_alternative<New>(*answer) && !std::holds_alternative<Completed>(*answer)) {
        return Error{.code = Code::invalid_argument,
                     .message =
                         "the event is claimed through a Cache of the receipts' namespace; "
                         "complete that claim with Offsets::complete_and_commit"};
    }
    return std::nullopt;
}

}  // namespace

std::optional<std::string> idempotency_key_in(std::string_view metadata) {
    static const Result<JsonPointer> kPointer = JsonPointer::parse("/idempotency_key");
    std::string key;
    if (!kPointer->find(metadata, key) || !check_key(key)) {
        return std::nullopt;
    }
    return key;
}

Registry::Registry(StreamStore& store, const RegistryOptions& options)
    : store_(store),
      key_options_{
          .ns = options.prefix + ".keys", .ttl = options.key_ttl, .observer = options.observer},
      receipt_options_{.ns = options.prefix + ".receipts",
                       .ttl = options.receipt_ttl,
                       .observer = options.observer},
      keys_(store, key_options_),
      receipts_(store, receipt_options_),
      offsets_ns_(options.prefix + ".offsets"),
      offsets_(store, offsets_ns_, options.observer) {}

Result<Registry::KeyOutcome> Registry::check_idempotency(std::string_view key,
                                                         std::string_view event_id) {
    auto outcome = DEDUP_TRY(keys_.remember(key, "", {.event_id = std::string(event_id)}));
    if (auto* known = std::get_if<Completed>(&outcome)) {
        return Duplicate{.event_id = std::move(known->event_id),
                         .first_seen_ms = known->completed_at_ms};
    }
    if (auto* claimed = std::get_if<InFlight>(&outcome)) {  // through a Cache of this namespace
        return Duplicate{.event_id = std::move(claimed->event_id),
                         .first_seen_ms = claimed->since_ms};
    }
    if (auto* held = std::get_if<Held>(&outcome)) {  // likewise
        return Duplicate{.event_id = held->previous.event_id,
                         .first_seen_ms = held->previous.began_ms,
                         .held = std::move(*held)};
    }
    return std::get<New>(std::move(outcome));  // requests without a fingerprint never mismatch
}

Result<bool> Registry::record_processing(std::string_view pipeline, std::string_view event_id,
                                         std::string_view details) {
    const auto outcome = receipts_.remember(receipt_key(pipeline, event_id), details,
                                            {.event_id = std::string(event_id)});
    if (std::optional<Error> refused = refusal(outcome)) {
        return std::unexpected(*std::move(refused));
    }
    return std::holds_alternative<New>(*outcome);
}

Result<std::optional<ProcessingReceipt>> Registry::receipt(std::string_view pipeline,
                                                           std::string_view event_id) {
    auto found = DEDUP_TRY(receipts_.lookup(receipt_key(pipeline, event_id)));
    if (auto* done = std::get_if<Completed>(&found)) {
        return ProcessingReceipt{std::move(done->receipt), done->completed_at_ms};
    }
    return std::nullopt;
}

Result<bool> Registry::was_processed(std::string_view pipeline, std::string_view event_id) {
    auto found = DEDUP_TRY(receipt(pipeline, event_id));
    return found.has_value();
}

Result<CommitOutcome> Registry::finish(const OffsetCommit& commit, std::string_view details) {
    DEDUP_TRY(check_options(receipt_options_));
    const std::string key = receipt_key(commit.pipeline, commit.event_id);
    const ClaimOptions options{.event_id = commit.event_id};
    const RememberOp record{receipt_options_, key, details, options};
    const OffsetOp offset{offsets_ns_, position_key(commit.pipeline, commit.stream), commit};
    auto outcome = settle_with_offset(store_, receipts_, offsets_.cache_,
                                      std::span<const RememberOp>(&record, 1), offset, refusal);
    count_refused(receipts_, offsets_.cache_, outcome);
    return outcome;
}

std::vector<CacheMetrics> Registry::metrics() const {
    return {keys_.metrics(), receipts_.metrics(), offsets_.metrics()};
}

Result<RegistryStats> Registry::stats() {
    RegistryStats stats;
    DEDUP_TRY(for_each_page(store_, {}, [&](const ScanPage& page) {
        const std::int64_t now_ms = store_.now_ms();
        for (const auto& [head, segment, offset, bytes] : page.heads) {
            if (head.kind == Kind::tombstone ||
                expired(head.expires_at_ms, now_ms, store_.grace())) {
                continue;
            }
            if (head.ns == offsets_ns_) {
                ++stats.offsets;
            } else if (head.ns == receipt_options_.ns) {
                ++stats.receipts;
            } else if (head.ns == key_options_.ns) {
                ++stats.keys;
            }
        }
    }));
    return stats;
}

}  // namespace dedup
