// Copies of a store in a directory: taking one while the store is in use, and putting one back.
// docs/running.md says when to take which, and what a copy that is put back has lost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "dedup/log_store.hpp"

namespace dedup {

struct BackupOptions {
    // Sealed segments are shared with the store by hard links where both are in one file system,
    // instead of being copied: that takes no room and next to no time, and whatever damages these
    // files damages both. Nothing changes a sealed segment, so the copy stays as it was.
    bool link = false;
};

struct BackupReport {
    std::string store_id;
    std::uint64_t keys = 0;  // in the copy, expired ones that no sweep has removed included
    std::uint64_t last_sequence = 0;  // the copy has everything up to this one, and nothing behind
    std::uint64_t segments = 0;       // in the copy
    std::uint64_t bytes_copied = 0;   // of segments and their indexes
    std::uint64_t bytes_linked = 0;   // of those that lie in the store or an older copy, too
};

// Makes the directory `target` a copy of the store at `store`: what it was at one moment that lies
// within this call, with everything that was acknowledged before the call. Works beside a live
// writer and holds nobody up. The copy is a store; it has been opened, checked whole as verify()
// does, and flushed before it gets its name.
//
// If `target` is an older copy of the same store, which a file COPY in it says, it is replaced, in
// one step where the file system can do that (renameat2 with RENAME_EXCHANGE), and what both have
// is shared and not copied again. Who has the older one open for reading gets `failed`, and opens
// it again; one that has been opened for writing is a copy no more. What fails, or is cut short by
// whatever, a power cut too, leaves the older copy as it was, and maybe a "<target>.partial" that
// the next call removes; a file PARTIAL in it keeps it from being opened. (Where two names cannot
// be exchanged, the older one may be left as "<target>.older"; the next call puts it back.)
// `progress` is called on this thread with bytes copied or linked, and then with bytes checked.
// Errors: invalid_argument (no store there, `target` lies in it, or is anything else than an older
// copy of it), busy (somebody else makes this copy), corruption (of the store: see verify() and
// repair()), out_of_space, io, unavailable, unsupported_version.
[[nodiscard]] DEDUP_API Result<BackupReport> backup(const std::filesystem::path& store,
                                                    const std::filesystem::path& target,
                                                    const BackupOptions& options = {},
                                                    const Progress& progress = {});

struct RestoreOptions {
    // Sequences go on far above all that the store can have assigned since the copy was taken.
    // Claims from after the copy are dead then, and never mistaken for others. False only for a
    // store that assigned none: its last writer had closed it before the copy was taken.
    bool raise = true;
};

struct RestoreReport {
    BackupReport copy;
    std::uint64_t next_sequence = 0;  // of the restored store
};

// Makes a store at `target`, where nothing is, of the copy at `backup`. What is cut short leaves
// nothing that can be opened, and is removed by the next call. With `raise` sequences go on at
// 1,024 times the clock's milliseconds since 1970, or if that is more, 2^40 and a random number
// below that above the copy's last one. So none that was assigned after the copy comes again, and
// no two stores that were restored from one copy assign the same ones.
// Errors: as backup(); invalid_argument (something is at `target`).
[[nodiscard]] DEDUP_API Result<RestoreReport> restore(const std::filesystem::path& backup,
                                                      const std::filesystem::path& target,
                                                      const RestoreOptions& options = {},
                                                      const Progress& progress = {});

}  // namespace dedup
