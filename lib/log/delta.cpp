#include "log/delta.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace dedup {
namespace {

constexpr std::size_t kSlotsMin = 16;
constexpr std::size_t kDensePart = 8;

bool too_full(std::size_t entries, std::size_t slots) {
    return entries * 4 > slots * 3;
}

}  // namespace

Delta::Delta(std::size_t entries) {
    const std::size_t slots = std::bit_ceil(std::max(kSlotsMin, entries + entries / 3 + 1));
    slots_ = allocate(slots);
    mask_ = slots - 1;
}

Delta::Slots Delta::allocate(std::size_t slots) {
    // calloc gives large blocks as untouched zero pages, so a generous table costs only what is
    // used. All-zero is an empty slot.
    void* memory = std::calloc(slots, sizeof(IndexEntry));
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return Slots(static_cast<IndexEntry*>(memory));
}

void Delta::put(const IndexEntry& entry, std::uint32_t replaced_offset) {
    if (replaced_offset != 0) {
        for (std::size_t slot = home(entry.id); slots_[slot].offset != 0;
             slot = (slot + 1) & mask_) {
            if (slots_[slot].offset == replaced_offset && slots_[slot].id == entry.id) {
                slots_[slot] = entry;
                return;
            }
        }
    }
    if (too_full(size_ + 1, mask_ + 1)) {
        const std::size_t slots = (mask_ + 1) * 2;
        Slots old = std::exchange(slots_, allocate(slots));
        const std::size_t old_slots = std::exchange(mask_, slots - 1) + 1;
        for (std::size_t slot = 0; slot < old_slots; ++slot) {
            if (old[slot].offset != 0) {
                insert(old[slot]);
            }
        }
    }
    insert(entry);
    ++size_;
}

void Delta::insert(const IndexEntry& entry) {
    std::size_t slot = home(entry.id);
    while (slots_[slot].offset != 0) {
        slot = (slot + 1) & mask_;
    }
    slots_[slot] = entry;
}

void Delta::expect(std::size_t entries) {
    if (entries < (mask_ + 1) / kDensePart) {
        return;
    }
    // All pages of the table will be touched, and large ones cost fewer faults and misses. For a
    // table that fills slowly they would cost memory that it may never need.
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto start = (reinterpret_cast<std::uintptr_t>(slots_.get()) + page - 1) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(&slots_[mask_ + 1]) / page * page;
    if (start < end) {
        // A wish: without it all works as well, only slower.
        (void)::madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
    }
}

void Delta::clear() {
    if (size_ != 0) {
        std::fill_n(slots_.get(), mask_ + 1, IndexEntry{});
        size_ = 0;
    }
}

std::vector<IndexEntry> Delta::sorted() const {
    std::vector<IndexEntry> entries;
    entries.reserve(size_);
    for (std::size_t slot = 0; slot <= mask_; ++slot) {
        if (slots_[slot].offset != 0) {
            entries.push_back(slots_[slot]);
        }
    }
    std::sort(entries.begin(), entries.end(), [](const IndexEntry& a, const IndexEntry& b) {
        return a.id != b.id ? a.id < b.id : a.sequence < b.sequence;
    });
    return entries;
}

}  // namespace dedup
