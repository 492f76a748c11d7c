// What a sweep may do, and what it reports.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "dedup/record.hpp"

namespace dedup {

// Called now and then while a sweep runs, on its thread: how much of the work it knows of is done,
// in bytes of the log. `total` may grow. It may use the store: appends, flushes and reads work;
// sweep() and close() work or get Code::busy, and an append for which there is no room may get
// out_of_space where another would evict.
using SweepProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// The limits bound how much space one sweep gives back; the next one goes on where it stopped. They
// are looked at between groups of moved records and between segments. 0: no limit. An engine that
// removes row by row has no space to give back apart from that: there `time_max` and `stop` end the
// removing itself, behind its first ten thousand, and the others have no meaning.
struct SweepOptions {
    bool dry_run = false;  // say what a sweep would do, and change nothing
    // Sweep as of this time instead of the clock's. The store then has seen this time, unless it is
    // a dry run; a time before the highest that the store has seen counts as that one. It may be a
    // jump, as the clock's may.
    std::optional<std::int64_t> now_ms = {};
    // The time is right, however far it jumped: sweep, and withhold nothing until the next jump.
    bool trust_clock = false;
    std::chrono::milliseconds time_max{0};
    std::uint64_t records_max = 0;  // moved
    std::uint64_t bytes_max = 0;    // of segments given back
    std::size_t unanswered_max = 100;
    // False: SweepReport::retained may be left at 0 where counting costs a scan of the whole store,
    // as in a database.
    bool count_retained = true;
    SweepProgress progress = {};
    std::stop_token stop = {};  // ends the sweep early, as a limit does
    // Leave next to no garbage in the log, and nothing for the next opening to replay. Without it a
    // sweep leaves up to a sixth, which mostly goes by itself when more expires; this may write all
    // of the log anew.
    bool compact = false;
};

// Streams by the state of their head.
struct StateCounts {
    std::uint64_t in_flight = 0;
    std::uint64_t completed = 0;
    std::uint64_t released = 0;

    [[nodiscard]] std::uint64_t total() const { return in_flight + completed + released; }
    [[nodiscard]] std::uint64_t& operator[](State state) {
        return state == State::in_flight   ? in_flight
               : state == State::completed ? completed
                                           : released;
    }
    [[nodiscard]] std::uint64_t operator[](State state) const {
        return const_cast<StateCounts&>(*this)[state];
    }
    StateCounts& operator+=(const StateCounts& more) {
        in_flight += more.in_flight;
        completed += more.completed;
        released += more.released;
        return *this;
    }
    StateCounts& operator-=(const StateCounts& fewer) {
        in_flight -= fewer.in_flight;
        completed -= fewer.completed;
        released -= fewer.released;
        return *this;
    }
    bool operator==(const StateCounts&) const = default;
};

struct SweptNamespace {
    std::string ns;
    StateCounts removed;
    StateCounts retained;
    bool operator==(const SweptNamespace&) const = default;
};

inline constexpr std::size_t kUnansweredNoteBytesMax = 256;

// A claim that expired in flight: nobody said what became of the work. With its stream, all else
// that was known of it is gone.
struct UnansweredClaim {
    std::string ns;
    std::string key;
    std::string owner;
    std::uint64_t claim_sequence = 0;
    std::int64_t claimed_at_ms = 0;
    std::int64_t expired_at_ms = 0;
    std::uint32_t attempt = 0;  // from 1; 0: not known, in the report of an older version
    std::string event_id;
    std::string note;  // the last one, or the claim's metadata: kUnansweredNoteBytesMax of it
    bool operator==(const UnansweredClaim&) const = default;
};

// Why a sweep removed nothing that has expired. (It still gives back the space of what had been
// removed before, and makes room by evicting completed streams, which goes by their order.)
struct SweepWithheld {
    // The clock jumped from `jump_from_ms` to `since_ms`: see dedup/clock.hpp. If that is right, a
    // sweep with SweepOptions::trust_clock says so (`dedupctl sweep --trust-clock`); if it is not,
    // set the clock right and reset the store's time (reset_clock(), `dedupctl clock --reset`).
    std::int64_t jump_from_ms = 0;
    std::int64_t since_ms = 0;
    std::int64_t until_ms = 0;  // when the store's time is this, sweeps remove again
    // Another reason: the time was reset from `jump_from_ms` to `since_ms`, and a sweep in between
    // had removed what had expired up to `until_ms`. Nobody can say that this is over.
    bool by_reset = false;

    bool operator==(const SweepWithheld&) const = default;
};

struct SweepReport {
    std::int64_t now_ms = 0;  // the store's time at its start; what had expired by then went
    bool dry_run = false;     // nothing went: this is what would have
    // False: a limit or a stop left space that the next sweep gives back; or, in a database,
    // somebody's transaction holds what has expired, and the next sweep looks at it again.
    bool finished = true;
    bool interrupted = false;  // a crash or an error cut the sweep short after it had counted
    // Set: nothing was removed for having expired. (Not kept in sweep_history().)
    std::optional<SweepWithheld> withheld;

    // What left the store, and what is still there: equal for equal histories on every store.
    StateCounts removed;
    StateCounts retained;
    std::uint64_t evicted = 0;               // of removed.completed: they had not expired
    std::vector<SweptNamespace> namespaces;  // those from which streams were removed; by name
    // The removed claims in flight, lowest sequence first, up to SweepOptions::unanswered_max;
    // removed.in_flight says how many there are in all.
    std::vector<UnansweredClaim> unanswered;
    std::optional<std::int64_t> next_expiry_ms;  // the earliest of a retained stream

    // Places in the log that the store has met so far and could not read, and the first of them:
    // file, offset and what is wrong. What lies there stays, and counts as retained, until all of
    // its segment has expired; `repair` saves the rest.
    std::uint64_t damaged = 0;
    std::string damage;

    // What that meant for the files. In a store without files only records_dropped counts.
    std::uint64_t segments_scanned = 0;
    std::uint64_t segments_dropped = 0;    // without anything left in them
    std::uint64_t segments_compacted = 0;  // dropped after their live records had been moved
    std::uint64_t records_scanned = 0;
    std::uint64_t records_dropped = 0;
    std::uint64_t records_moved = 0;
    std::uint64_t bytes_before = 0;  // of the log
    std::uint64_t bytes_after = 0;
    std::uint64_t longest_pause_us = 0;  // for which appends had to wait for the sweep
    std::uint64_t duration_us = 0;

    // Of the log; 0 if moving took more room than was given back so far.
    [[nodiscard]] std::uint64_t bytes_reclaimed() const {
        return bytes_before > bytes_after ? bytes_before - bytes_after : 0;
    }
};

}  // namespace dedup
