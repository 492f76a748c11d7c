// Split-block Bloom filters over the streams of sealed segments.
//
// A block is 256 bits: eight 32-bit words, in each of which a key sets one bit, so a question
// costs one cache miss. At 12 bits a key about one absent key in 150 is taken for present.
// Source: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007), in
// the variant of the Apache Parquet format, whose multipliers these are.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "env/bytes.hpp"
#include "log/stream_id.hpp"

namespace dedup {

inline constexpr std::uint64_t kFilterBlockBytes = 32;
inline constexpr std::uint64_t kFilterBitsPerKey = 12;

// The size of a filter for `entries` streams, at least one block.
[[nodiscard]] std::uint64_t filter_bytes(std::uint64_t entries);

// Fills `filter`, which is filter_bytes(entries.size()) zero bytes.
void build_filter(std::span<const IndexEntry> entries, char* filter);

// A filter somewhere in memory.
struct Filter {
    const char* data = nullptr;
    std::uint64_t blocks = 0;

    // The upper half of the hash picks the block, the lower half the bits.
    [[nodiscard]] const char* block(const StreamId& id) const {
        return data + ((id.xxh >> 32) * blocks >> 32) * kFilterBlockBytes;
    }
    void prefetch(const StreamId& id) const { __builtin_prefetch(block(id)); }
};

// The bits of one stream, which are the same in all filters.
class FilterBits {
  public:
    explicit FilterBits(const StreamId& id);

    // False: the stream is not among those of the filter.
    [[nodiscard]] bool in(const Filter& filter) const {
        const char* block = filter.block(id_);
        std::uint64_t missing = 0;
        for (std::size_t word = 0; word < words_.size(); ++word) {
            missing |= words_[word] & ~load<std::uint64_t>(block + word * sizeof(std::uint64_t));
        }
        return missing == 0;
    }
    // Sets them in a filter that is being built.
    void set(char* block) const;

  private:
    StreamId id_;
    std::array<std::uint64_t, 4> words_ = {};
};

// The filters of all sealed segments, next to one another in memory of their own: every lookup and
// every claim asks all of them, and in pages as small as those of a file's mapping most of that
// time goes into finding the pages.
class FilterSet {
  public:
    // Room for filters of so many entries each, to be filled in; null if there is no memory for it.
    [[nodiscard]] static std::shared_ptr<FilterSet> allocate(
        std::span<const std::uint64_t> entries);
    ~FilterSet();
    FilterSet(const FilterSet&) = delete;
    FilterSet& operator=(const FilterSet&) = delete;

    [[nodiscard]] char* data(std::size_t i) { return memory_ + (filters_[i].data - memory_); }
    [[nodiscard]] const std::vector<Filter>& filters() const { return filters_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  private:
    FilterSet() = default;

    char* memory_ = nullptr;
    std::size_t bytes_ = 0;
    std::size_t mapped_bytes_ = 0;
    std::vector<Filter> filters_;
};

}  // namespace dedup
