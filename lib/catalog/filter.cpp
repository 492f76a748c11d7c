#include "catalog/filter.hpp"

#include <algorithm>
#include <array>

#include "env/bytes.hpp"

namespace dedup {
namespace {

constexpr std::array<std::uint32_t, 8> kMultipliers = {
    0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};
static_assert(kMultipliers.size() * sizeof(std::uint32_t) == kFilterBlockBytes);

// The upper half of the hash picks the block, the lower half the bits.
std::uint64_t block_offset(const StreamId& id, std::uint64_t blocks) {
    return ((id.xxh >> 32) * blocks >> 32) * kFilterBlockBytes;
}

std::uint32_t bit(const StreamId& id, std::size_t word) {
    return std::uint32_t{1} << ((static_cast<std::uint32_t>(id.xxh) * kMultipliers[word]) >> 27);
}

}  // namespace

std::uint64_t filter_bytes(std::uint64_t entries) {
    const std::uint64_t bits = entries * kFilterBitsPerKey;
    const std::uint64_t block_bits = kFilterBlockBytes * 8;
    return std::max<std::uint64_t>(1, (bits + block_bits - 1) / block_bits) * kFilterBlockBytes;
}

void build_filter(std::span<const IndexEntry> entries, char* filter) {
    const std::uint64_t blocks = filter_bytes(entries.size()) / kFilterBlockBytes;
    for (const IndexEntry& entry : entries) {
        char* block = filter + block_offset(entry.id, blocks);
        for (std::size_t word = 0; word < kMultipliers.size(); ++word) {
            char* at = block + word * sizeof(std::uint32_t);
            store(at, load<std::uint32_t>(at) | bit(entry.id, word));
        }
    }
}

std::uint64_t Filter::block_at(const StreamId& id) const {
    return block_offset(id, blocks_);
}

Presence Filter::test(const StreamId& id) const {
    const std::uint64_t offset = block_at(id);
    if (!blob_.intact(offset)) {
        return Presence::damaged;
    }
    const char* block = blob_.data() + offset;
    std::uint32_t missing = 0;
    for (std::size_t word = 0; word < kMultipliers.size(); ++word) {
        missing |= bit(id, word) & ~load<std::uint32_t>(block + word * sizeof(std::uint32_t));
    }
    return missing == 0 ? Presence::possible : Presence::absent;
}

}  // namespace dedup
