// The rule of Capacity, for every store: whether an append has room, and if not, what has to go.
// Decides only; reads no store.
#pragma once

#include <cstdint>
#include <string>

#include "dedup/store.hpp"
#include "record/codec.hpp"

namespace dedup {

// Streams, and bytes of them.
struct Room {
    std::uint64_t keys = 0;
    std::uint64_t bytes = 0;

    Room& operator+=(const Room& more) {
        keys += more.keys;
        bytes += more.bytes;
        return *this;
    }
    bool operator==(const Room&) const = default;
};

// What a store holds when all that has expired is gone.
struct Usage {
    Room held;       // garbage included
    Room live;       // without garbage: what is left when all space has been given back
    Room evictable;  // of `live`: completed streams
};

// Of a record's texts: nearly all that it takes, wherever it lies.
[[nodiscard]] std::uint64_t content_bytes(const Record& record);
[[nodiscard]] std::uint64_t content_bytes(const RecordView& record);

[[nodiscard]] bool fits(const Capacity& capacity, const Room& held, const Room& wanted);

// Says what an append wants, what there is, and what the bounds are.
[[nodiscard]] Error no_room(std::string_view store, const Capacity& capacity, const Room& held,
                            const Room& wanted);

// What has to be evicted at least for `wanted`: completed streams, oldest first, until so many keys
// and so many bytes have gone; none if giving back garbage is enough. It is somewhat more than
// needed, as far as that goes, so that not every append evicts.
// Errors: out_of_space: not even without all that is evictable there would be room.
[[nodiscard]] Result<Room> plan_eviction(std::string_view store, const Capacity& capacity,
                                         const Usage& usage, const Room& wanted);

}  // namespace dedup
