// The in-memory index of a segment that is not sealed yet.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "log/stream_id.hpp"

namespace dedup {

// A hash table from stream to the stream's newest record in one segment: open addressing with
// linear probing, at most 3/4 full. Two streams may share an id; they are told apart by their
// offsets. Not synchronised.
class Delta {
  public:
    // Makes room for `entries` without growing. Memory is touched only as entries come.
    explicit Delta(std::size_t entries = 0);

    // Calls accept(entry) for the entries with this id until it returns true; gives that entry.
    template <class Accept>
    [[nodiscard]] const IndexEntry* find(const StreamId& id, Accept accept) const {
        if (size_ == 0) {
            return nullptr;
        }
        for (std::size_t slot = home(id); slots_[slot].offset != 0; slot = (slot + 1) & mask_) {
            if (slots_[slot].id == id && accept(slots_[slot])) {
                return &slots_[slot];
            }
        }
        return nullptr;
    }

    [[nodiscard]] const IndexEntry* find(const StreamId& id) const {
        return find(id, [](const IndexEntry&) { return true; });
    }

    // Prepares for about `entries` entries that are going to be put in one go.
    void expect(std::size_t entries);

    void prefetch(const StreamId& id) const { __builtin_prefetch(&slots_[home(id)]); }

    // Puts `entry` in place of the entry with the same id whose offset is `replaced_offset`, or
    // beside the others if there is none (0: there is none).
    void put(const IndexEntry& entry, std::uint32_t replaced_offset);

    // Forgets all entries and keeps the memory.
    void clear();

    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t memory_bytes() const { return (mask_ + 1) * sizeof(IndexEntry); }

    // All entries, sorted by id, then sequence.
    [[nodiscard]] std::vector<IndexEntry> sorted() const;

  private:
    struct Free {
        void operator()(IndexEntry* slots) const { std::free(slots); }
    };
    using Slots = std::unique_ptr<IndexEntry[], Free>;

    [[nodiscard]] static Slots allocate(std::size_t slots);
    [[nodiscard]] std::size_t home(const StreamId& id) const { return id.xxh & mask_; }
    void insert(const IndexEntry& entry);

    Slots slots_;
    std::size_t mask_ = 0;
    std::size_t size_ = 0;
};

}  // namespace dedup
