// What all rooms of one open store share: where it is, how it was opened, and whether it still is.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "catalog/catalog.hpp"
#include "contract/store_counters.hpp"
#include "dedup/log_store.hpp"
#include "engine/damage.hpp"
#include "engine/failure.hpp"
#include "engine/unsealed.hpp"
#include "env/env.hpp"
#include "env/process.hpp"

namespace dedup {

// What callers outside the library cannot set.
struct LogStoreInternals {
    std::uint64_t catalog_map_bytes = kCatalogMapBytes;
    std::uint64_t id_mask = UINT64_MAX;
    bool* only_catalog = nullptr;  // becomes true if it is the catalog that keeps a reader out
    bool ignore_jumps = false;     // of the clock: while records are copied, or it is reset
    bool stays_a_copy = false;     // although it is opened for writing
    // How long a sweep waits for readers of segments that it removes together.
    std::chrono::milliseconds readers_wait{100};
    // Called before waiting for the sealer, after a change of the catalog, and before a reader
    // takes its first snapshot of that.
    std::function<void()> pause = [] {};
};

inline constexpr const char* kLockName = "LOCK";

// In each copy of a backup, from its beginning on, and in nothing else: what the next backup may
// replace and remove. Whoever opens a copy for writing makes a store of it.
inline constexpr const char* kCopyMarkName = "COPY";

// A store opens files as long as it is open: neither a change of the working directory nor of a
// symbolic link may take it to others.
[[nodiscard]] Result<Path> fixed_path(const Path& path);

// A file that only takes up room, to be removed when a sweep needs some.
inline constexpr const char* kReserveName = "reserve";
inline constexpr std::uint64_t kReserveBytes = 1024 * 1024;

// Lives as long as the store. What is neither atomic nor a class with its own lock is set while the
// store is opened, before there are other threads.
struct StoreContext {
    StoreContext(Env& files, Path at, const OpenOptions& opened_with,
                 const LogStoreInternals& inner, StoreClock& time);

    Env& env;
    const ProcessMark mark;
    const Path path;
    const Path log_path;
    const Path catalog_path;
    const OpenOptions options;
    const LogStoreInternals internals;
    StoreClock& clock;
    Locator locator;
    StoreId store_id{};

    StoreCounters counters;
    StoreFailure failure;
    Damage damage;
    std::atomic<bool> closed{false};
    // The highest time that is in the log.
    std::atomic<std::int64_t> written_time_ms{0};

    // Errors: closed, in a forked child.
    [[nodiscard]] Result<void> check_process() const;
    // Whether the store may be written to. Errors: closed, read_only, failed.
    [[nodiscard]] Result<void> check_writable() const;

    [[nodiscard]] std::string name() const;
    [[nodiscard]] Error closed_error() const;
    [[nodiscard]] Error called_back_error(std::string_view call) const;
    [[nodiscard]] Error catalog_problem(std::string_view what) const;
    [[nodiscard]] Error damaged_index(const SealedSegment& sealed) const;
};

}  // namespace dedup
