// Moves the indexes of full segments from memory into files, oldest first, in a thread of its own.
//
// Invariants:
//   - full_ are the unsealed segments of the view but the newest, oldest first. (For a moment after
//     it has been sealed, one is in full_ and not in the view any more.)
//   - While a sweep counts what its horizon removes, nothing is sealed: what was sealed before the
//     horizon was set has been counted by its census, and what is sealed later is counted with it.
//   - A segment that could not be sealed stays in memory, and is tried again; appends wait once
//     there are too many of these.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/reader.hpp"
#include "engine/store_catalog.hpp"
#include "env/mutex.hpp"

namespace dedup {

// Its lock is taken alone: nothing else is called under it.
class Sealer {
  public:
    Sealer(StoreContext& context, const Reader& reader, StoreCatalog& catalog)
        : context_(context), reader_(reader), catalog_(catalog) {}

    // Begins with the unsealed segments of a view. Throws std::system_error as std::thread does.
    void start(const View& view);
    // Ends the thread, once all that is full has been sealed or could not be.
    void stop();
    // After the store has been closed: whoever waits here gives up.
    void wake_all();

    // Moves the index of the oldest unsealed segment into a file. Only before start().
    [[nodiscard]] Result<void> seal(const Unsealed& oldest);

    // The newest segment has been full, and is not the newest any more.
    void add(std::shared_ptr<Unsealed> full);
    // Waits while too many segments are unsealed. Errors: out_of_space, closed.
    [[nodiscard]] Result<void> wait_for_room();
    // Waits until all segments older than `segment_id` are sealed, or that fails.
    void seal_until(std::uint64_t segment_id);
    // Why the oldest could not be sealed; empty: it could.
    [[nodiscard]] std::string error() const;

    // Keeps segments from being sealed until end_count(), unless one is being sealed or appends may
    // be waiting for that. False: wait_to_count() has to be called, without a turn, and this again.
    [[nodiscard]] bool begin_count();
    // Errors: failed (segments cannot be sealed).
    [[nodiscard]] Result<void> wait_to_count();
    // Nobody waits to count any more.
    void stop_waiting_to_count();
    void end_count();
    // Sealing goes on being kept: what has been removed is not counted yet. `why` is what appends
    // that wait for room are told.
    void fail_count(std::string_view why);

  private:
    void run();
    [[nodiscard]] bool has_work() const DEDUP_REQUIRES(mutex_);
    [[nodiscard]] bool is_crowded() const DEDUP_REQUIRES(mutex_) {
        return full_.size() + 1 >= kUnsealedMax;
    }
    void try_at_once() DEDUP_REQUIRES(mutex_);
    [[nodiscard]] Result<Census> census_of(const Unsealed& oldest) const;

    StoreContext& context_;
    const Reader& reader_;
    StoreCatalog& catalog_;

    mutable Mutex mutex_;
    Condition wakes_;  // there is a full segment, or an end
    Condition room_;   // a segment has been sealed, or that failed
    std::deque<std::shared_ptr<Unsealed>> full_ DEDUP_GUARDED_BY(mutex_);
    std::string error_ DEDUP_GUARDED_BY(mutex_);
    bool stops_ DEDUP_GUARDED_BY(mutex_) = false;
    bool sealing_ DEDUP_GUARDED_BY(mutex_) = false;
    bool count_waits_ DEDUP_GUARDED_BY(mutex_) = false;  // for a segment to be finished
    bool counting_ DEDUP_GUARDED_BY(mutex_) = false;
    std::thread thread_;
};

}  // namespace dedup
