#include "contract/check_batch.hpp"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "contract/capacity.hpp"

namespace dedup {
namespace {

Result<void> check_atomic(std::span<const Append> batch) {
    std::set<std::pair<std::string_view, std::string_view>> streams;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const Record& record = batch[i].record;
        if (auto checked = check_record(record); !checked) {
            return std::unexpected(
                Error{checked.error().code,
                      fmt::format("item {} of the atomic batch: {}", i, checked.error().message)});
        }
        bytes += content_bytes(record);
        if (bytes > kAtomicBatchBytesMax) {
            return std::unexpected(atomic_batch_too_large());
        }
        if (!streams.emplace(record.ns, record.key).second) {
            return std::unexpected(
                Error{Code::invalid_argument, fmt::format("the atomic batch names stream {} twice",
                                                          stream_name(record.ns, record.key))});
        }
    }
    return {};
}

}  // namespace

Result<void> check_batch(std::span<const Append> batch, Batch mode) {
    if (batch.size() > kBatchItemsMax) {
        return std::unexpected(Error{Code::invalid_argument,
                                     fmt::format("the batch has {} items; at most {} are allowed",
                                                 batch.size(), kBatchItemsMax)});
    }
    return mode == Batch::atomic ? check_atomic(batch) : Result<void>();
}

Error atomic_batch_too_large() {
    return {Code::invalid_argument,
            fmt::format("the atomic batch has more than {} bytes", kAtomicBatchBytesMax)};
}

Error sequence_conflict(const Append& item, std::uint64_t head) {
    return {.code = Code::sequence_conflict,
            .message = fmt::format("stream {}: the head is {}, expected was {}",
                                   stream_name(item.record.ns, item.record.key), head,
                                   item.expected_sequence),
            .head_sequence = head};
}

}  // namespace dedup
