// The index of one sealed segment: its entries sorted by stream id, as one array.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "catalog/checked_blob.hpp"
#include "log/stream_id.hpp"

namespace dedup {

class SealedIndex {
  public:
    SealedIndex(CheckedBlob blob, std::uint64_t entries)
        : blob_(std::move(blob)), entries_(entries) {}

    [[nodiscard]] std::uint64_t size() const { return entries_; }
    [[nodiscard]] const CheckedBlob& blob() const { return blob_; }

    // Entry `i`; nullopt if its block is damaged. Precondition: i < size().
    [[nodiscard]] std::optional<IndexEntry> entry(std::uint64_t i) const;

    // The position of the first entry whose id is not less than `id`, or size(); nullopt if a
    // block on the way is damaged.
    //
    // The ids are hashes and so spread evenly: interpolation comes within a few entries of the
    // place in two or three steps. Source: Perl, Itai, Avni, "Interpolation Search" (1978).
    [[nodiscard]] std::optional<std::uint64_t> lower_bound(const StreamId& id) const;

  private:
    CheckedBlob blob_;
    std::uint64_t entries_;
};

}  // namespace dedup
