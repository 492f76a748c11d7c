// The in-memory index of a segment that is not sealed yet.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "env/prefetch.hpp"
#include "log/stream_id.hpp"

namespace dedup {

// Finds a stream's newest record in one segment: the entries, in order of arrival, and a hash
// table of their positions. Open addressing with linear probing, at most 3/4 full; each slot has
// half of the hash, so that a stream that is not there hardly ever costs more than one look at the
// table, which is small. Two streams may share an id; they are told apart by their sequences. (Not
// by their offsets: an atomic batch is one frame.)
// Not synchronised.
class Delta {
  public:
    // Makes room for `entries` without growing. Memory is touched only as entries come, but each of
    // them touches another page of a large table. When it grows, it is to at least `grown` entries.
    explicit Delta(std::size_t entries = 0, std::size_t grown = 0);

    // Calls accept(entry) for the entries with this id until it returns true; gives that entry.
    template <class Accept>
    [[nodiscard]] const IndexEntry* find(const StreamId& id, Accept accept) const {
        if (entries_.empty()) {
            return nullptr;
        }
        for (std::size_t at = home(id); slots_[at] != 0; at = (at + 1) & mask_) {
            if (same_tag(slots_[at], id)) {
                const IndexEntry& entry = entries_[position(slots_[at])];
                if (entry.id == id && accept(entry)) {
                    return &entry;
                }
            }
        }
        return nullptr;
    }

    [[nodiscard]] const IndexEntry* find(const StreamId& id) const {
        return find(id, [](const IndexEntry&) { return true; });
    }

    void prefetch(const StreamId& id) const { dedup::prefetch(&slots_[home(id)]); }

    // Whether so many entries can be put without memory; sees to it. Changes nothing if that fails.
    [[nodiscard]] bool has_room(std::size_t entries) const {
        return entries_.capacity() - entries_.size() >= entries &&
               !too_full(entries_.size() + entries, mask_ + 1);
    }
    void make_room(std::size_t entries);

    // Puts `entry` in place of the entry with the same id whose sequence is `replaced_sequence`, or
    // beside the others if there is none (0: there is none).
    void put(const IndexEntry& entry, std::uint64_t replaced_sequence);

    // Forgets all entries and keeps the memory.
    void clear();

    [[nodiscard]] std::size_t size() const { return entries_.size(); }
    [[nodiscard]] std::size_t memory_bytes() const {
        return (mask_ + 1) * sizeof(Slot) + entries_.capacity() * sizeof(IndexEntry);
    }

    // In order of arrival, but for those put in place of others.
    [[nodiscard]] std::span<const IndexEntry> entries() const { return entries_; }

    // All entries, sorted by id, then sequence.
    [[nodiscard]] std::vector<IndexEntry> sorted() const;

  private:
    // The upper half is that of the hash, the lower half an entry's position plus 1. 0: empty.
    using Slot = std::uint64_t;

    struct Free {
        void operator()(Slot* slots) const { std::free(slots); }
    };
    using Slots = std::unique_ptr<Slot[], Free>;

    [[nodiscard]] static Slots allocate(std::size_t slots);
    [[nodiscard]] static bool too_full(std::size_t entries, std::size_t slots) {
        return entries * 4 > slots * 3;
    }
    [[nodiscard]] std::size_t home(const StreamId& id) const { return id.xxh & mask_; }
    [[nodiscard]] static bool same_tag(Slot slot, const StreamId& id) {
        return (slot ^ id.xxh) >> 32 == 0;
    }
    [[nodiscard]] static std::size_t position(Slot slot) { return (slot & UINT32_MAX) - 1; }
    void insert(std::size_t position);

    std::vector<IndexEntry> entries_;
    Slots slots_;
    std::size_t mask_ = 0;
    std::size_t grown_;
};

}  // namespace dedup
