#include "index/delta.hpp"

#include <algorithm>
#include <bit>
#include <new>

namespace dedup {
namespace {

constexpr std::size_t kSlotsMin = 16;

}  // namespace

Delta::Delta(std::size_t entries, std::size_t grown) : grown_(grown) {
    const std::size_t slots = std::bit_ceil(std::max(kSlotsMin, entries + entries / 3 + 1));
    slots_ = allocate(slots);
    mask_ = slots - 1;
    entries_.reserve(entries);
}

Delta::Slots Delta::allocate(std::size_t slots) {
    // calloc gives large blocks as untouched zero pages, so a generous table costs only what is
    // used. Zero is an empty slot.
    void* memory = std::calloc(slots, sizeof(Slot));
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return Slots(static_cast<Slot*>(memory));
}

void Delta::put(const IndexEntry& entry, std::uint64_t replaced_sequence) {
    if (replaced_sequence != 0) {
        const IndexEntry* replaced = find(
            entry.id, [&](const IndexEntry& known) { return known.sequence == replaced_sequence; });
        if (replaced != nullptr) {
            entries_[static_cast<std::size_t>(replaced - entries_.data())] = entry;
            return;
        }
    }
    if (!has_room(1)) {
        make_room(1);
    }
    entries_.push_back(entry);
    insert(entries_.size() - 1);
}

void Delta::make_room(std::size_t entries) {
    const std::size_t wanted = std::max(entries_.size() + entries, grown_);
    if (wanted > entries_.capacity()) {
        entries_.reserve(std::max(wanted, 2 * entries_.capacity()));
    }
    if (!too_full(wanted, mask_ + 1)) {
        return;
    }
    const std::size_t slots = std::bit_ceil(wanted + wanted / 3 + 1);
    slots_ = allocate(slots);
    mask_ = slots - 1;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        insert(i);
    }
}

void Delta::insert(std::size_t position) {
    const StreamId& id = entries_[position].id;
    std::size_t at = home(id);
    while (slots_[at] != 0) {
        at = (at + 1) & mask_;
    }
    slots_[at] = (id.xxh >> 32 << 32) | (position + 1);
}

void Delta::clear() {
    if (!entries_.empty()) {
        std::fill_n(slots_.get(), mask_ + 1, Slot{0});
        entries_.clear();
    }
}

std::vector<IndexEntry> Delta::sorted() const {
    std::vector<IndexEntry> entries = entries_;
    std::sort(entries.begin(), entries.end(), [](const IndexEntry& a, const IndexEntry& b) {
        return a.id != b.id ? a.id < b.id : a.sequence < b.sequence;
    });
    return entries;
}

}  // namespace dedup
