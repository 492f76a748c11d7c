#include "index/sealed_index.hpp"

#include <algorithm>
#include <cstddef>

#include "env/bytes.hpp"
#include "env/prefetch.hpp"

namespace dedup {
namespace {

__extension__ using Uint128 = unsigned __int128;

// How far off a guess mostly is: the deviation that 128 evenly spread ids have from their places.
constexpr std::size_t kLinesAround = 2;

std::uint64_t index_blocks(std::uint64_t entries) {
    return (entries + kFenceEntries - 1) / kFenceEntries;
}

// `part` * `of` / `whole`, for part < whole.
std::uint64_t share(std::uint64_t part, std::uint64_t whole, std::uint64_t of) {
    return static_cast<std::uint64_t>(static_cast<Uint128>(part) * of / whole);
}

}  // namespace

std::uint64_t index_bytes(std::uint64_t entries) {
    return entries * sizeof(IndexEntry) + index_blocks(entries) * sizeof(std::uint64_t);
}

std::string index_fences(std::span<const IndexEntry> entries) {
    std::string fences(index_blocks(entries.size()) * sizeof(std::uint64_t), '\0');
    for (std::uint64_t block = 0; block < index_blocks(entries.size()); ++block) {
        store(fences.data() + block * sizeof(std::uint64_t), entries[block * kFenceEntries].id.xxh);
    }
    return fences;
}

SealedIndex::SealedIndex(CheckedBlob blob, std::uint64_t entries)
    : blob_(std::move(blob)), entries_(entries), blocks_(index_blocks(entries)) {}

std::optional<IndexEntry> SealedIndex::entry(std::uint64_t i) const {
    const std::uint64_t offset = i * sizeof(IndexEntry);
    if (!blob_.intact(offset, sizeof(IndexEntry))) {
        return std::nullopt;
    }
    const auto found = load<IndexEntry>(blob_.data() + offset);
    if (found.state() > State::released) {
        return std::nullopt;
    }
    return found;
}

// An entry begins with its id, and so does a fence.
static_assert(offsetof(IndexEntry, id) == 0);

std::optional<std::uint64_t> SealedIndex::hash_at(std::uint64_t offset) const {
    if (!blob_.intact(offset, sizeof(std::uint64_t))) {
        return std::nullopt;
    }
    return load<std::uint64_t>(blob_.data() + offset);
}

std::optional<std::uint64_t> SealedIndex::fence(std::uint64_t block) const {
    const std::uint64_t offset = entries_ * sizeof(IndexEntry) + block * sizeof(std::uint64_t);
    return hash_at(offset);
}

// Precondition: there is one.
std::uint64_t SealedIndex::guess_block(std::uint64_t hash) const {
    return static_cast<std::uint64_t>((static_cast<Uint128>(hash) * blocks_) >> 64);
}

void SealedIndex::prefetch_fence(const StreamId& id) const {
    prefetch(blob_.data() + entries_ * sizeof(IndexEntry) +
             guess_block(id.xxh) * sizeof(std::uint64_t));
}

// The last block whose fence is less than `hash`, or 0.
std::optional<std::uint64_t> SealedIndex::find_block(std::uint64_t hash) const {
    // Invariant: the answer lies in [low, high). It is closed in on from the guess in steps that
    // double, so that a bad guess costs a logarithm only.
    std::uint64_t low = 0;
    std::uint64_t high = blocks_;
    std::uint64_t at = guess_block(hash);
    for (std::uint64_t step = 1; high - low > 1; step *= 2) {
        at = std::clamp(at, low + 1, high - 1);
        const auto found = fence(at);
        if (!found) {
            return std::nullopt;
        }
        if (*found < hash) {
            low = at;
            at = step < high - low ? at + step : low + (high - low) / 2;
        } else {
            high = at;
            at = step < high - low ? at - step : low + (high - low) / 2;
        }
    }
    return low;
}

std::optional<std::uint64_t> SealedIndex::guess(const StreamId& id) const {
    if (entries_ == 0) {
        return 0;
    }
    const auto block = find_block(id.xxh);
    if (!block) {
        return std::nullopt;
    }
    const std::uint64_t start = *block * kFenceEntries;
    const std::uint64_t in_block = std::min(kFenceEntries, entries_ - start);
    const auto first = fence(*block);
    const auto last = *block + 1 < blocks_ ? fence(*block + 1) : UINT64_MAX;
    if (!first || !last) {
        return std::nullopt;
    }
    std::uint64_t at = start;
    if (*first < id.xxh && id.xxh < *last) {
        at += share(id.xxh - *first, *last - *first, in_block);
    }
    const char* place = blob_.data() + at * sizeof(IndexEntry);
    prefetch_lines(place - kLinesAround * kCacheLineBytes, 2 * kLinesAround + 1);
    return at;
}

// A few entries in one direction or the other.
std::optional<std::uint64_t> SealedIndex::lower_bound(const StreamId& id,
                                                      std::uint64_t guess) const {
    std::uint64_t at = guess;
    for (; at > 0; --at) {
        const auto before = hash_at((at - 1) * sizeof(IndexEntry));
        if (!before) {
            return std::nullopt;
        }
        if (*before < id.xxh) {
            break;
        }
    }
    for (; at < entries_; ++at) {
        const auto found = hash_at(at * sizeof(IndexEntry));
        if (!found) {
            return std::nullopt;
        }
        if (*found >= id.xxh) {
            break;
        }
    }
    return at;
}

}  // namespace dedup
