// A store on real files whose every call to the system is noted, from its opening to a crash. A
// program that links this links call_recorder.cpp, too.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "crash/ledger.hpp"
#include "dedup/log_store.hpp"
#include "store/log_store.hpp"
#include "support/call_recorder.hpp"

namespace dedup::test {

// A moment before a call, or within a synchronous write: what a power loss then may leave, and
// what of the store has to be in it.
struct RealMoment {
    DiskState disk;
    std::shared_ptr<const Ledger> ledger;
    Ledger::Mark mark;
    std::string after;  // the call before it
};

// Puts what a disk holds into the empty directory `root`.
void lay_out(const DiskState& disk, const Path& root);

class RealLife {
  public:
    // In the existing directory `root`, which holds what `disk` does; the store at `root /
    // "store"`.
    RealLife(const Path& root, const OpenOptions& options, const DiskState& disk);
    ~RealLife();

    // Errors: those of LogStore::open.
    [[nodiscard]] Result<void> open();
    // From now on each change is preceded by a moment, judged by `ledger` up to `mark`, or, without
    // a mark, as far as it had come at this thread's last call.
    void record(std::shared_ptr<Ledger> ledger, std::optional<Ledger::Mark> mark);
    // Appends through store() are noted in `ledger` from now on.
    void keep(Ledger& ledger);
    // Waits until what is full has been sealed; what has been acknowledged must last from now on.
    void settle();

    [[nodiscard]] LogStore& log_store() { return *store_; }
    [[nodiscard]] LedgerStore& store() { return *ledger_store_; }
    [[nodiscard]] CallRecorder& recorder() { return recorder_; }

    std::vector<RealMoment> moments;

  private:
    const Path root_;
    const OpenOptions options_;
    const std::thread::id owner_ = std::this_thread::get_id();
    CallRecorder recorder_;
    std::unique_ptr<LogStore> store_;
    std::unique_ptr<LedgerStore> ledger_store_;
    // Guarded by the recorder:
    std::shared_ptr<Ledger> judged_by_;
    Ledger::Mark mark_;
    bool grows_ = false;
};

}  // namespace dedup::test
