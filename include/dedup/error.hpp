// How this library reports failure.
//
// Every function that can fail returns Result<T>; no exception leaves the library except
// std::bad_alloc, from a call that has changed nothing in its store; only where a call does several
// things one after the other (Cache, Guard and what is built on them) may some of them be done.
// When memory runs out later, the call gives an error whose message says so. No thread of the
// library ends the process. Outcomes that a caller plans for (a duplicate, a key in flight, an
// absent key) are values, not errors.
#pragma once

#include <cstdint>
#include <expected>
#include <iosfwd>
#include <string>
#include <string_view>
#include <version>
#ifdef __cpp_lib_format
#include <format>
#endif

#include "dedup/export.hpp"

namespace dedup {

// What went wrong, for the program. The numbers are pinned: they never change their meaning.
enum class Code : std::uint8_t {
    invalid_argument = 1,     // the call itself is wrong; nothing was done
    io = 2,                   // the operating system failed a call; see Error::os_error
    out_of_space = 3,         // no room for the data, on disk or in memory; none was written
    corruption = 4,           // stored bytes are not what was written; names file and offset
    unsupported_version = 5,  // written by a newer version of this library
    busy = 6,                 // another process holds the store, or a sweep that called back
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

// For logs: the code's name; of an error the code's name and the message, as in "busy: the store
// ... is open in process 17". std::format gives the same where there is one.
[[nodiscard]] DEDUP_API std::string to_string(Code code);
[[nodiscard]] DEDUP_API std::string to_string(const Error& error);
DEDUP_API std::ostream& operator<<(std::ostream& out, Code code);
DEDUP_API std::ostream& operator<<(std::ostream& out, const Error& error);

}  // namespace dedup

#ifdef __cpp_lib_format
// With the options of a string, such as a width.
template <>
struct std::formatter<dedup::Code> : std::formatter<std::string_view> {
    template <class Context>
    auto format(dedup::Code code, Context& context) const {
        return std::formatter<std::string_view>::format(dedup::name(code), context);
    }
};

template <>
struct std::formatter<dedup::Error> : std::formatter<std::string_view> {
    template <class Context>
    auto format(const dedup::Error& error, Context& context) const {
        return std::formatter<std::string_view>::format(dedup::to_string(error), context);
    }
};
#endif
