#include "index/filter.hpp"

#include <sys/mman.h>

#include <array>
#include <bit>

#include "env/large_pages.hpp"

namespace dedup {
namespace {

constexpr std::array<std::uint32_t, 8> kMultipliers = {
    0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};
static_assert(kMultipliers.size() * sizeof(std::uint32_t) == Filter::kBlockBytes);

}  // namespace

FilterBits::FilterBits(const StreamId& id) : id_(id) {
    std::array<std::uint32_t, kMultipliers.size()> words;
    for (std::size_t word = 0; word < words.size(); ++word) {
        words[word] = std::uint32_t{1}
                      << ((static_cast<std::uint32_t>(id.xxh) * kMultipliers[word]) >> 27);
    }
    words_ = std::bit_cast<decltype(words_)>(words);
}

void build_filter(std::span<const IndexEntry> entries, char* filter) {
    for (const IndexEntry& entry : entries) {
        FilterBits(entry.id).add_to<Filter>(filter, Filter::bytes_for(entries.size()));
    }
}

std::shared_ptr<FilterRun> FilterRun::allocate(std::span<const std::uint64_t> entries,
                                               std::uint64_t joint_bytes) {
    std::shared_ptr<FilterRun> run(new FilterRun);
    run->bytes_ = joint_bytes;
    for (const std::uint64_t count : entries) {
        run->bytes_ += Filter::bytes_for(count);
    }
    // A large page more, so that the filters can begin with one; what is not touched costs nothing.
    const std::size_t mapped_bytes = run->bytes_ + kLargePageBytes;
    void* const mapped =
        ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        return nullptr;
    }
    run->mapped_bytes_ = mapped_bytes;
    run->memory_ = static_cast<char*>(mapped);
    char* at = run->memory_ + -reinterpret_cast<std::uintptr_t>(run->memory_) % kLargePageBytes;
    use_large_pages(at, run->bytes_);
    if (joint_bytes != 0) {
        run->joint_ = {at, joint_bytes / JointFilter::kBlockBytes};
        at += joint_bytes;
    }
    for (const std::uint64_t count : entries) {
        run->filters_.push_back({at, Filter::bytes_for(count) / Filter::kBlockBytes});
        at += Filter::bytes_for(count);
    }
    return run;
}

FilterRun::~FilterRun() {
    if (memory_ != nullptr) {
        ::munmap(memory_, mapped_bytes_);
    }
}

}  // namespace dedup
