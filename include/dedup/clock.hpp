// What a store has noticed about its clock, and what that keeps sweeps from doing.
//
// A clock that jumps forward cannot be told from a long rest. So a jump is believed for leases and
// for expiry, but it destroys nothing: until the store has gone on for a day without another one,
// or somebody has said that the time is right, no sweep removes what has expired.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dedup {

// More than this between two times that a store sees, one after the other, is a jump; and for so
// long, of the store's time, sweeps remove nothing after one.
inline constexpr std::chrono::milliseconds kClockJump = std::chrono::hours{24};

// So many jumps, and so many resets, are remembered: the newest.
inline constexpr std::size_t kClockEventsMax = 16;

struct ClockJump {
    static constexpr std::uint64_t kNotWritten = UINT64_MAX;

    std::int64_t from_ms = 0;  // the highest time that the store had seen
    std::int64_t to_ms = 0;    // the one that it saw next
    // Of the last record before the jump; kNotWritten until something is written behind it.
    std::uint64_t sequence = kNotWritten;
    bool settled = false;  // somebody said that the time is right, or has reset the clock since

    bool operator==(const ClockJump&) const = default;
};

// The store's time was set back by hand; see reset_clock() in dedup/log_store.hpp.
struct ClockReset {
    std::int64_t from_ms = 0;  // the highest time that the store had seen
    std::int64_t to_ms = 0;    // its time from then on
    // Records with a sequence above `wrong_after` and up to `sequence` were written by the wrong
    // time. Equal: no jump was noted that had led there, and only their timestamps tell.
    std::uint64_t wrong_after = 0;
    std::uint64_t sequence = 0;
    std::uint64_t segment = 0;  // from this one on, what the log says of the time counts
    bool finished = false;      // false: some records wait for the next opening to be put right

    bool operator==(const ClockReset&) const = default;
};

struct ClockHistory {
    std::vector<ClockJump> jumps;  // oldest first
    std::vector<ClockReset> resets;

    bool operator==(const ClockHistory&) const = default;
};

}  // namespace dedup
