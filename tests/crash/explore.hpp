// Exploring crashes: a store lives on a FaultDisk until the power fails, at any call; what is left
// is opened again, compared with the ledger, used, and cut off once more. Or its process dies while
// the system goes on, with or without a flush that failed before: then the next opening sees what
// a power loss during it, or after it, may still take away.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "crash/ledger.hpp"
#include "dedup/log_store.hpp"
#include "store/log_store.hpp"
#include "support/fault_disk.hpp"
#include "support/fault_env.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {

// A moment just before a call: what a power loss then may leave, and what has to be in it.
struct Moment {
    DiskState disk;
    CatalogCopies catalogs;
    std::shared_ptr<const Ledger> ledger;
    Ledger::Mark mark;
    std::string after;  // the call before it
};

// What a power loss has left, or, with what is pending, a process that has died.
struct Wreck {
    DiskState disk;
    Bytes catalog;  // null: there is none
};

// One life of a store: from its opening to a crash.
class Life {
  public:
    // In the real directory `root`, which must be empty or that of a life before.
    Life(const Path& root, const Wreck& wreck, const OpenOptions& options, std::uint64_t seed);
    // After the process of the life `before` has ended, which this ends if need be; the system has
    // gone on. `pages_lost`: it has forgotten what it need not keep in memory.
    Life(Life& before, bool pages_lost, std::uint64_t seed);
    ~Life();

    // Errors: those of LogStore::open.
    [[nodiscard]] Result<void> open();
    [[nodiscard]] LedgerStore& store() { return *ledger_store_; }
    [[nodiscard]] LogStore& log_store() { return *store_; }
    [[nodiscard]] FaultEnv& env() { return env_; }
    [[nodiscard]] FaultDisk& disk() { return disk_; }

    // Appends are noted in `ledger` from now on.
    void keep(std::shared_ptr<Ledger> ledger);
    // From now on each change is preceded by a moment, judged by `ledger` up to `mark`, or, without
    // a mark, as far as it has come by then.
    void record(std::shared_ptr<const Ledger> ledger, std::optional<Ledger::Mark> mark = {});
    // Waits until what is full has been sealed.
    void settle();
    [[nodiscard]] Result<void> close();
    // Closes the store, whatever comes of it.
    void end();
    // What the power loss leaves if it comes after the last call.
    void record_end();

    std::vector<Moment> moments;

  private:
    void note_moment();

    FaultDisk disk_;
    FaultEnv env_;
    OpenOptions options_;
    std::unique_ptr<LogStore> store_;
    std::shared_ptr<Ledger> kept_;
    std::unique_ptr<LedgerStore> ledger_store_;
    std::shared_ptr<const Ledger> judged_by_;
    std::optional<Ledger::Mark> judged_up_to_;
};

// What to explore. The same plan explores the same states.
struct Plan {
    std::uint64_t seed = 1;
    int steps = 150;
    Durability durability = Durability::sync;
    bool can_reserve = true;
    bool shows_old_blocks = false;
    bool catalog_lost = false;            // in every third wreck, as if somebody had deleted it
    std::uint64_t wrecks_per_moment = 8;  // how often each moment is tried
    int recoveries_cut = 0;  // of each wreck, how many moments of its recovery are tried, too
    // At moments with something unflushed the process dies, too: twice, once with a flush that has
    // failed. The power is cut at each call of the recoveries.
    bool process_dies = false;
    std::uint64_t states_min = 0;  // more seeds are tried until so many states have been explored
};

// DEDUP_CRASH_SEED, DEDUP_CRASH_STEPS and DEDUP_CRASH_STATES replace what the plan says.
[[nodiscard]] Plan from_environment(Plan plan);

struct Explored {
    std::uint64_t states = 0;   // distinct ones that were opened and compared
    std::uint64_t moments = 0;  // calls at which the power was cut
    std::uint64_t sealed = 0;   // segments that the workloads sealed
    std::uint64_t in_part = 0;  // states that kept some of what was not acknowledged
    std::uint64_t deaths = 0;   // of the process
    std::uint64_t rebuilt = 0;  // states whose catalog was made anew
    Standing standing;          // of keys, in all states together
    StateCounts swept;          // streams that the workloads' sweeps removed
    std::uint64_t dropped = 0;  // segments that they dropped, or compacted
    std::uint64_t compacted = 0;
    std::uint64_t interrupted = 0;  // states that were cut within a sweep which took hold
    std::string wrong;              // the first thing found wrong, with how to see it again
};
[[nodiscard]] Explored explore(const Plan& plan);

}  // namespace dedup::test
