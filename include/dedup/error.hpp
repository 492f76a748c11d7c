// How this library reports failure.
//
// Every function that can fail returns Result<T>; no exception leaves the library except
// std::bad_alloc. Outcomes that a caller plans for (a duplicate, a key in flight, an absent key)
// are values, not errors.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "dedup/export.hpp"

namespace dedup {

// What went wrong, for the program. The numbers are pinned: they never change their meaning.
enum class Code : std::uint8_t {
    invalid_argument = 1,     // the call itself is wrong; nothing was done
    io = 2,                   // the operating system failed a call; see Error::os_error
    out_of_space = 3,         // no room for the data; nothing of it was written
    corruption = 4,           // stored bytes are not what was written; names file and offset
    unsupported_version = 5,  // written by a newer version of this library
    busy = 6,                 // another process holds the store for writing
    read_only = 7,            // the store was opened without the right to write
    closed = 8,               // the store was closed, or another process opened it and forked
    failed = 9,               // an earlier write or flush failed; reopen the store to go on
    sequence_conflict = 10,   // the stream's head is not the expected one; see head_sequence
    stale_claim = 11,         // the claim was taken over, released or has expired
    not_claimed = 12,         // there is no claim on this key to complete
    receipt_mismatch = 13,    // the key is completed with other bytes
    outcome_unknown = 14,     // the append may or may not be durable; read again after reopening
    unavailable = 15,         // a service that the store depends on cannot be reached now
};

// The code's name as written above, such as "sequence_conflict"; "unknown" for any other value.
[[nodiscard]] DEDUP_API std::string_view name(Code code);

struct Error {
    Code code = Code::invalid_argument;
    std::string message;              // for people: names the file, key or field, and the way out
    int os_error = 0;                 // errno of the call that failed, or 0
    std::uint64_t head_sequence = 0;  // with sequence_conflict: the head that was found instead
};

template <class T>
using Result = std::expected<T, Error>;

}  // namespace dedup
