#include "catalog/filter.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>

#include "env/large_pages.hpp"

namespace dedup {
namespace {

constexpr std::array<std::uint32_t, 8> kMultipliers = {
    0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};
static_assert(kMultipliers.size() * sizeof(std::uint32_t) == kFilterBlockBytes);

}  // namespace

std::uint64_t filter_bytes(std::uint64_t entries) {
    const std::uint64_t bits = entries * kFilterBitsPerKey;
    const std::uint64_t block_bits = kFilterBlockBytes * 8;
    return std::max<std::uint64_t>(1, (bits + block_bits - 1) / block_bits) * kFilterBlockBytes;
}

void build_filter(std::span<const IndexEntry> entries, char* filter) {
    const Filter place{filter, filter_bytes(entries.size()) / kFilterBlockBytes};
    for (const IndexEntry& entry : entries) {
        FilterBits(entry.id).set(filter + (place.block(entry.id) - filter));
    }
}

FilterBits::FilterBits(const StreamId& id) : id_(id) {
    std::array<std::uint32_t, kMultipliers.size()> words;
    for (std::size_t word = 0; word < words.size(); ++word) {
        words[word] = std::uint32_t{1}
                      << ((static_cast<std::uint32_t>(id.xxh) * kMultipliers[word]) >> 27);
    }
    words_ = std::bit_cast<decltype(words_)>(words);
}

void FilterBits::set(char* block) const {
    for (std::size_t word = 0; word < words_.size(); ++word) {
        char* at = block + word * sizeof(std::uint64_t);
        store(at, load<std::uint64_t>(at) | words_[word]);
    }
}

std::shared_ptr<FilterSet> FilterSet::allocate(std::span<const std::uint64_t> entries) {
    std::shared_ptr<FilterSet> set(new FilterSet);
    for (const std::uint64_t count : entries) {
        set->bytes_ += filter_bytes(count);
    }
    if (set->bytes_ == 0) {
        return set;
    }
    // A large page more, so that the filters can begin with one; what is not touched costs nothing.
    const std::size_t mapped_bytes = set->bytes_ + kLargePageBytes;
    void* const mapped =
        ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        return nullptr;
    }
    set->mapped_bytes_ = mapped_bytes;
    set->memory_ = static_cast<char*>(mapped);
    char* at = set->memory_ + -reinterpret_cast<std::uintptr_t>(set->memory_) % kLargePageBytes;
    use_large_pages(at, set->bytes_);
    for (const std::uint64_t count : entries) {
        set->filters_.push_back({at, filter_bytes(count) / kFilterBlockBytes});
        at += filter_bytes(count);
    }
    return set;
}

FilterSet::~FilterSet() {
    if (memory_ != nullptr) {
        ::munmap(memory_, mapped_bytes_);
    }
}

}  // namespace dedup
