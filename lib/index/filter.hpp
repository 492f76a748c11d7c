// Split-block Bloom filters over the streams of sealed segments.
//
// A block is a few 32-bit words, in each of which a key sets one bit, so a question costs one cache
// miss. Each segment has a filter, and a run of segments has a smaller joint one, which is asked
// first: a question costs one miss for each run, and one for each segment of a run that has none.
//
// Source: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007), in
// the variant of the Apache Parquet format, whose multipliers these are.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "env/bytes.hpp"
#include "env/prefetch.hpp"
#include "log/stream_id.hpp"

namespace dedup {

// A filter somewhere in memory.
template <std::uint64_t kBlock, std::uint64_t kBitsPerKey>
struct BlockFilter {
    static constexpr std::uint64_t kBlockBytes = kBlock;

    const char* data = nullptr;  // null: there is none
    std::uint64_t blocks = 0;

    // The size of one for `entries` streams: at least one block.
    [[nodiscard]] static std::uint64_t bytes_for(std::uint64_t entries) {
        constexpr std::uint64_t kBlockBits = kBlock * 8;
        const std::uint64_t blocks = (entries * kBitsPerKey + kBlockBits - 1) / kBlockBits;
        return std::max<std::uint64_t>(1, blocks) * kBlock;
    }

    // The upper half of the hash picks the block, the lower half the bits.
    [[nodiscard]] static std::uint64_t place(const StreamId& id, std::uint64_t blocks) {
        return ((id.xxh >> 32) * blocks >> 32) * kBlock;
    }
    [[nodiscard]] const char* block(const StreamId& id) const { return data + place(id, blocks); }
    void prefetch(const StreamId& id) const { dedup::prefetch(block(id)); }
};

// Of a segment: about one absent key in 150 is taken for present.
using Filter = BlockFilter<32, 12>;
// Of a run of segments: about one in 16.
using JointFilter = BlockFilter<16, 6>;

// The bits of one stream, which are the same in all filters.
class FilterBits {
  public:
    explicit FilterBits(const StreamId& id);

    // False: the stream is not among those of the filter.
    template <class F>
    [[nodiscard]] bool in(const F& filter) const {
        const char* block = filter.block(id_);
        std::uint64_t missing = 0;
        for (std::size_t word = 0; word < F::kBlockBytes / sizeof(std::uint64_t); ++word) {
            missing |= words_[word] & ~load<std::uint64_t>(block + word * sizeof(std::uint64_t));
        }
        return missing == 0;
    }

    // Adds the stream to a filter of so many bytes that is being built.
    template <class F>
    void add_to(char* filter, std::uint64_t bytes) const {
        char* block = filter + F::place(id_, bytes / F::kBlockBytes);
        for (std::size_t word = 0; word < F::kBlockBytes / sizeof(std::uint64_t); ++word) {
            char* at = block + word * sizeof(std::uint64_t);
            store(at, load<std::uint64_t>(at) | words_[word]);
        }
    }

  private:
    StreamId id_;
    std::array<std::uint64_t, 4> words_ = {};
};

// Fills `filter`, which is Filter::bytes_for(entries.size()) zero bytes.
void build_filter(std::span<const IndexEntry> entries, char* filter);

// The filters of a run of segments, in memory of their own: every lookup and every claim asks all
// runs, and in pages as small as those of a file's mapping most of that time goes into finding the
// pages.
class FilterRun {
  public:
    // Room for filters of so many entries each and for a joint one, if that has any bytes, to be
    // filled in; null if there is no memory for it.
    [[nodiscard]] static std::shared_ptr<FilterRun> allocate(std::span<const std::uint64_t> entries,
                                                             std::uint64_t joint_bytes);
    ~FilterRun();
    FilterRun(const FilterRun&) = delete;
    FilterRun& operator=(const FilterRun&) = delete;

    [[nodiscard]] char* data(std::size_t i) { return memory_ + (filters_[i].data - memory_); }
    [[nodiscard]] char* joint_data() { return memory_ + (joint_.data - memory_); }

    [[nodiscard]] const std::vector<Filter>& filters() const { return filters_; }
    [[nodiscard]] const JointFilter& joint() const { return joint_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

    // Fetches what may_have needs.
    void prefetch(const StreamId& id) const {
        if (joint_.data != nullptr) {
            joint_.prefetch(id);
        } else {
            prefetch_each(id);
        }
    }
    // False: the stream is in none of the filters. Else they are fetched, if they were not before.
    [[nodiscard]] bool may_have(const StreamId& id, const FilterBits& bits) const {
        if (joint_.data == nullptr) {
            return true;
        }
        const bool may = bits.in(joint_);
        if (may) {
            prefetch_each(id);
        }
        return may;
    }

  private:
    FilterRun() = default;

    void prefetch_each(const StreamId& id) const {
        for (const Filter& filter : filters_) {
            filter.prefetch(id);
        }
    }

    char* memory_ = nullptr;
    std::size_t bytes_ = 0;
    std::size_t mapped_bytes_ = 0;
    std::vector<Filter> filters_;
    JointFilter joint_;
};

}  // namespace dedup
