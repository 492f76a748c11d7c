// A split-block Bloom filter over the streams of one sealed segment.
//
// A block is 256 bits: eight 32-bit words, in each of which a key sets one bit, so a question
// costs one cache miss. At 12 bits a key about one absent key in 150 is taken for present.
// Source: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007), in
// the variant of the Apache Parquet format, whose multipliers these are.
#pragma once

#include <cstdint>
#include <span>

#include "catalog/checked_blob.hpp"
#include "log/stream_id.hpp"

namespace dedup {

inline constexpr std::uint64_t kFilterBlockBytes = 32;
inline constexpr std::uint64_t kFilterBitsPerKey = 12;

// The size of a filter for `entries` streams, at least one block.
[[nodiscard]] std::uint64_t filter_bytes(std::uint64_t entries);

// Fills `filter`, which is filter_bytes(entries.size()) zero bytes.
void build_filter(std::span<const IndexEntry> entries, char* filter);

enum class Presence : std::uint8_t { absent, possible, damaged };

class Filter {
  public:
    Filter(CheckedBlob blob, std::uint64_t entries)
        : blob_(std::move(blob)), blocks_(filter_bytes(entries) / kFilterBlockBytes) {}

    void prefetch(const StreamId& id) const { __builtin_prefetch(blob_.data() + block_at(id)); }
    [[nodiscard]] Presence test(const StreamId& id) const;
    [[nodiscard]] const CheckedBlob& blob() const { return blob_; }

  private:
    [[nodiscard]] std::uint64_t block_at(const StreamId& id) const;

    CheckedBlob blob_;
    std::uint64_t blocks_;
};

}  // namespace dedup
