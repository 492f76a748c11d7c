// The embedded engine: a store in a directory on a local disk.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dedup/store.hpp"

namespace dedup {

enum class Durability : std::uint8_t {
    sync,   // an acknowledged append survives kill -9, an OS crash and power loss
    async,  // an acknowledged append survives kill -9; a crash of the OS or the machine may cost
            // those of the last flush interval, but no note and no decision of people (see
            // Append::flush). No sequence is used twice even then.
};

struct OpenOptions {
    bool read_only = false;  // takes no lock, writes nothing, works beside a live writer
    bool create = true;      // if there is no store at the path; never when read_only
    Durability durability = Durability::sync;
    std::chrono::milliseconds flush_interval{100};  // Durability::async; 1 ms to 1 min
    // How long to wait for another writer. Those who wait get the store in the order in which they
    // came.
    std::chrono::milliseconds lock_timeout{0};
    // Asked now and then by the thread that waits; false ends the wait with `busy`. Empty: true.
    std::function<bool()> keeps_waiting = {};
    Clock clock = system_now_ms;
    // However far the clock jumps forward, it is right: sweeps go on. For a store that rests for
    // more than a day between two uses; without it, each such rest withholds sweeps for a day (see
    // dedup/clock.hpp). Jumps are noted all the same.
    bool trust_clock = false;
    std::chrono::milliseconds grace = kDefaultGrace;
    // The size at which a segment is sealed, 64 KiB to 1 GiB. 0: the store chooses, larger ones as
    // it grows, and a close seals one, too, if the next opening would read it for long.
    std::uint64_t segment_bytes = 0;
    Capacity capacity = {};
    // Who may use the store that is created: the permissions of its directory, less the umask; at
    // least the owner's. Files get the same without execution. What is created in a store later
    // follows its directory, whoever creates it and with whatever umask: its permissions and its
    // group, and if it is root who writes, its owner. So 0770 is for a store that a group shares,
    // and changing the directory's mode changes what new files get.
    std::filesystem::perms permissions = std::filesystem::perms::owner_all;
};

// Opens the store in the database at `path` if that is a URL (see dedup/postgres_store.hpp, whose
// defaults hold for what OpenOptions has no name for; the clock is the server's then). Otherwise
// opens the store in directory `path`, after repairing what a crash left: a torn tail is dropped
// and a missing or damaged catalog is rebuilt (see StoreStats). One process at a time may have a
// store open for writing; any number may read beside it. A relative path, and symbolic links in it,
// mean what they mean now: neither chdir nor another target of the link moves an open store.
//
// Processes: the store belongs to the process that opened it. In a forked child every call on it
// gives `closed`, and says so; destroying it there touches nothing of the parent's. If the store is
// removed, moved or replaced while it is open, an append gets outcome_unknown, and then `failed`.
// Threads: append, flush and sweep are cancellation points (pthread_cancel) before they do
// anything, and cannot be cancelled on their way. See docs/running.md.
// Errors: invalid_argument (no store there, not a store, or bad options), busy (says which process
// holds it), unsupported_version, corruption (names file and offset), io, out_of_space.
[[nodiscard]] DEDUP_API Result<std::unique_ptr<StreamStore>> open(const std::filesystem::path& path,
                                                                  const OpenOptions& options = {});

// Who has a store open for writing.
struct Writer {
    std::uint64_t pid = 0;      // in the writer's pid namespace; 0: not known
    std::int64_t since_ms = 0;  // 0: not known
    std::string host = {};      // the writer's machine or container
    std::string text = {};  // for people; also says if it has ended and left its lock to a child
};

// Who has the store at `path` open for writing right now; nullopt: nobody, as far as this process
// may see. By the time it returns that may be past. Looks by holding the lock for a moment itself:
// an open() in that moment that does not wait at all gets `busy`.
// Errors: invalid_argument (no store there), io.
[[nodiscard]] DEDUP_API Result<std::optional<Writer>> writer_of(const std::filesystem::path& path);

struct VerifyReport {
    std::uint64_t segments = 0;
    std::uint64_t frames = 0;
    std::uint64_t records = 0;
    std::uint64_t bytes = 0;
    std::uint64_t index_entries = 0;
    // The highest time that the store has seen; 0: it does not open.
    std::int64_t time_high_ms = 0;
    std::vector<std::string> problems;  // each names a file and an offset, or a catalog entry
    // Some are of the log itself: restore a copy, or save the rest with repair(). A catalog is made
    // anew when the store is opened for writing, if that finds it damaged.
    bool log_damaged = false;
};

// Called now and then with how much of the log has been read.
using Progress = std::function<void(std::uint64_t bytes_done, std::uint64_t bytes_total)>;

// Reads every frame of the store at `path` and every entry of its catalog, and checks each against
// the other. Writes nothing; works beside a live writer. Damage is reported, not returned as an
// error; of a store that does not open, because segments are missing or the catalog is, all of the
// log is read that is there. Errors: invalid_argument (no store there), unsupported_version,
// read_only, unavailable.
[[nodiscard]] DEDUP_API Result<VerifyReport> verify(const std::filesystem::path& path,
                                                    const Progress& progress = {});

// A part of a damaged log that could not be read.
struct RepairLoss {
    std::string file;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;  // 0: the whole file is missing
    // What is lost lies between these two sequences, neither included: at most so many records.
    std::uint64_t after_sequence = 0;   // 0: from the start
    std::uint64_t before_sequence = 0;  // 0: up to the end
    std::string what;
};

struct RepairReport {
    std::uint64_t segments = 0;  // read
    std::uint64_t frames = 0;    // read and intact
    std::uint64_t records = 0;   // in the new store
    std::uint64_t streams = 0;   // in the new store
    std::uint64_t bytes_lost = 0;
    std::vector<RepairLoss> losses;  // in log order
};

// Makes a new store at `target` of all that is intact in the log of the store at `damaged`, which
// is locked meanwhile and left as it is. Records keep their sequences, so that claims stay valid,
// and an atomic batch is there whole or not at all. A stream whose newest records are lost is in
// the state that its last intact one says. Mode, group and, for root, owner of the new directory
// are those of the damaged one. Errors: invalid_argument (no store there, or something is at
// `target`), busy (names the pid that writes to the damaged store), unsupported_version,
// corruption (nothing tells what is valid in it), io, out_of_space. There is nothing at `target`
// then.
[[nodiscard]] DEDUP_API Result<RepairReport> repair(const std::filesystem::path& damaged,
                                                    const std::filesystem::path& target,
                                                    const Progress& progress = {});

// Sets the time of the store at `path` back to that of options.clock, which must be right now. For
// a store whose clock was ahead for a while: its time never goes back by itself, and so leases hold
// and receipts have expired that should not. Nobody may be writing; readers follow.
//
// Nullopt: the store's time is not ahead, and nothing was done. Otherwise `to_ms` is the store's
// time from then on, and the heads that were written by the wrong time are written again, as new
// versions, with their fences and receipts:
//  - whose timestamp is later than `to_ms`, as if written at `to_ms`: what is left of its lease and
//    time to live runs from then. (An expiry that was not later than the timestamp stays.) Nothing
//    that it says began, or was held, later than `to_ms` stays later.
//  - of a claim from before whose lease was renewed by the wrong time: what was left of the lease
//    at `from_ms` runs from `to_ms`. Only if a jump was noted that led there; a lease that was
//    renewed by a clock less than a day ahead may hold up to a day too long.
// A head that cannot be read stays as it is, and is noted (StoreStats::damaged).
// What had expired by the wrong time and was not removed is valid again. What a sweep did remove
// stays gone; and until the time has come again as of which it did, sweeps remove nothing that has
// expired (SweepWithheld::by_reset). The history and the log keep all as it was, and a trace of the
// reset (StoreStats::clock).
//
// A crash leaves all as it was, or the time set back; the next opening for writing then writes the
// heads that are left. Costs a read of every head.
// Errors: those of open; invalid_argument if options.read_only or the clock stands at 1970.
[[nodiscard]] DEDUP_API Result<std::optional<ClockReset>> reset_clock(
    const std::filesystem::path& path, const OpenOptions& options = {});

}  // namespace dedup
