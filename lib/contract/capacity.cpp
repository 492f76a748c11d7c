#include "contract/capacity.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dedup {
namespace {

// At least this part of the bound goes at a time.
constexpr std::uint64_t kKeysShare = 64;
// With bytes more: giving back space costs a sweep and moves records.
constexpr std::uint64_t kBytesShare = 16;

bool within(std::uint64_t limit, std::uint64_t held, std::uint64_t wanted) {
    return limit == 0 || (held <= limit && wanted <= limit - held);
}

// By how much `held` and `wanted` together are more than `limit`.
std::uint64_t excess(std::uint64_t limit, std::uint64_t held, std::uint64_t wanted) {
    if (within(limit, held, wanted)) {
        return 0;
    }
    return held > limit ? held - limit + wanted : wanted - (limit - held);
}

// Evicted for one bound. `live` is what the streams take, of which `evictable` may go.
std::uint64_t to_evict(std::uint64_t limit, std::uint64_t live, std::uint64_t evictable,
                       std::uint64_t wanted, std::uint64_t share) {
    const std::uint64_t needed = excess(limit, live, wanted);
    const std::uint64_t ample = excess(limit, live, wanted + limit / share);
    return std::max(needed, std::min(ample, evictable));
}

// The texts that a record has whether it is decoded or not.
template <class AnyRecord>
std::uint64_t bytes_of_texts(const AnyRecord& record) {
    return record.ns.size() + record.key.size() + record.owner.size() + record.fingerprint.size() +
           record.event_id.size() + record.metadata.size() + record.unknown_fields.size();
}

}  // namespace

std::uint64_t content_bytes(const Record& record) {
    std::uint64_t bytes = bytes_of_texts(record) + (record.receipt ? record.receipt->size() : 0) +
                          record.verdict.by.size() + record.verdict.reason.size();
    for (const std::string& fingerprint : record.conflict.fingerprints) {
        bytes += fingerprint.size();
    }
    return bytes;
}

std::uint64_t content_bytes(const RecordView& record) {
    return bytes_of_texts(record) + record.receipt.size() + record.conflict_fingerprints.size() +
           record.verdict.size();
}

bool fits(const Capacity& capacity, const Room& held, const Room& wanted) {
    return within(capacity.keys_max, held.keys, wanted.keys) &&
           within(capacity.bytes_max, held.bytes, wanted.bytes);
}

Error no_room(std::string_view store, const Capacity& capacity, const Room& held,
              const Room& wanted) {
    std::string why;
    if (!within(capacity.keys_max, held.keys, wanted.keys)) {
        why = fmt::format("; the append needs {} new keys, {} are there, and keys_max is {}",
                          wanted.keys, held.keys, capacity.keys_max);
    }
    if (!within(capacity.bytes_max, held.bytes, wanted.bytes)) {
        why += fmt::format("; the append needs {} bytes, {} are in use, and bytes_max is {}",
                           wanted.bytes, held.bytes, capacity.bytes_max);
    }
    return {Code::out_of_space, fmt::format("{} has no room{}", store, why)};
}

Result<Room> plan_eviction(std::string_view store, const Capacity& capacity, const Usage& usage,
                           const Room& wanted) {
    const Room kept{usage.live.keys - std::min(usage.live.keys, usage.evictable.keys),
                    usage.live.bytes - std::min(usage.live.bytes, usage.evictable.bytes)};
    if (!fits(capacity, kept, wanted)) {
        Error error = no_room(store, capacity, kept, wanted);
        error.message += ", even without all garbage and all completed keys";
        return std::unexpected(std::move(error));
    }
    if (fits(capacity, usage.held, wanted)) {
        return Room();
    }
    Room evict;
    // A bound that has room is not made to have more.
    if (capacity.keys_max != 0 && !within(capacity.keys_max, usage.held.keys, wanted.keys)) {
        evict.keys = to_evict(capacity.keys_max, usage.live.keys, usage.evictable.keys, wanted.keys,
                              kKeysShare);
    }
    if (capacity.bytes_max != 0 && !within(capacity.bytes_max, usage.held.bytes, wanted.bytes)) {
        evict.bytes = to_evict(capacity.bytes_max, usage.live.bytes, usage.evictable.bytes,
                               wanted.bytes, kBytesShare);
    }
    return evict;
}

}  // namespace dedup
