// The index of one sealed segment: its entries sorted by stream id, as one array, followed by a
// fence for each block of entries: the first hash in the block.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "index/checked_blob.hpp"
#include "log/stream_id.hpp"

namespace dedup {

inline constexpr std::uint64_t kFenceEntries = 128;

// The size of an index of `entries` streams.
[[nodiscard]] std::uint64_t index_bytes(std::uint64_t entries);

// The fences of an index of `entries`, which are sorted by id.
[[nodiscard]] std::string index_fences(std::span<const IndexEntry> entries);

class SealedIndex {
  public:
    SealedIndex() = default;  // without entries
    SealedIndex(CheckedBlob blob, std::uint64_t entries);

    [[nodiscard]] std::uint64_t size() const { return entries_; }
    [[nodiscard]] const CheckedBlob& blob() const { return blob_; }

    // Entry `i`; nullopt if its block is damaged. Precondition: i < size().
    [[nodiscard]] std::optional<IndexEntry> entry(std::uint64_t i) const;

    // The position of the first entry whose id is not less than `id`, or size(); nullopt if a
    // block on the way is damaged.
    //
    // The ids are hashes and so spread evenly: interpolation finds the block among the fences,
    // which stay in the processor's cache, and then nearly the place in the block.
    // Source: Perl, Itai, Avni, "Interpolation Search" (1978).
    [[nodiscard]] std::optional<std::uint64_t> lower_bound(const StreamId& id) const {
        const auto near = guess(id);
        return near ? lower_bound(id, *near) : std::nullopt;
    }

    // The same in steps, each of which fetches the memory that the next one needs.
    void prefetch_fence(const StreamId& id) const;
    // A position near that of lower_bound(id); nullopt as there.
    [[nodiscard]] std::optional<std::uint64_t> guess(const StreamId& id) const;
    // Precondition: guess <= size().
    [[nodiscard]] std::optional<std::uint64_t> lower_bound(const StreamId& id,
                                                           std::uint64_t guess) const;

  private:
    [[nodiscard]] std::optional<std::uint64_t> hash_at(std::uint64_t offset) const;
    [[nodiscard]] std::optional<std::uint64_t> fence(std::uint64_t block) const;
    [[nodiscard]] std::uint64_t guess_block(std::uint64_t hash) const;
    [[nodiscard]] std::optional<std::uint64_t> find_block(std::uint64_t hash) const;

    CheckedBlob blob_;
    std::uint64_t entries_ = 0;
    std::uint64_t blocks_ = 0;
};

}  // namespace dedup
