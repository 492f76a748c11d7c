// An Env on a FaultDisk, which counts its calls, fails any of them on command, and says before each
// change what a power loss would leave.
//
// LMDB does its own I/O on real files. So the store's path has to exist, and what lies in
// `catalog` below it is real. Its commits are durable when they return; a FaultEnv looks before
// each change whether there has been one, keeps a copy of the file, and knows which of these
// copies a power loss can leave beside which state of the log:
//
//   - A segment may be sealed at any time after the next one has been created, so an older copy is
//     possible as long as nothing was done that relied on a newer one.
//   - Removing a segment's file relies on the newest copy.
//   - Where the file has been removed and made anew, the old file, none, an unfinished one and the
//     new one are possible until the directory is flushed.
//
// One thread owns the environment. The calls of other threads wait until the owner comes to its
// next change, so that each run makes the same calls in the same order.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "env/env.hpp"
#include "support/fault_disk.hpp"

namespace dedup::test {

// Copies of a catalog's data file; null: there is none.
using CatalogCopies = std::vector<Bytes>;

class CatalogWatch {
  public:
    CatalogWatch(Path data_file, Random& random);

    // Takes a copy if there has been a commit. `delayed`: by the sealer, which might as well have
    // been slower.
    void look(bool delayed);
    void removed();
    void directory_flushed();
    // What was done relies on the newest copy.
    void relied_on();

    // What a power loss may leave now; the newest last.
    [[nodiscard]] CatalogCopies possible() const { return possible_; }

  private:
    [[nodiscard]] std::string commit_numbers() const;
    [[nodiscard]] Bytes copy() const;

    Path data_file_;
    Random& random_;
    std::string seen_;  // the commit numbers of the newest copy
    CatalogCopies possible_;
    bool settles_ = false;  // from the next change on, the newest copy is the only one possible
    bool renewed_ = false;  // the file's name has not been flushed
};

enum class Fault : std::uint8_t {
    error,        // the call does nothing and gives the error
    part,         // a write does a part of its work first; else as error
    wrong_error,  // the call does all of its work and gives the error all the same
};

struct Failure {
    std::uint64_t call = 0;  // of the owner, counted from 1; 0: none
    int os_error = 0;
    Fault fault = Fault::error;
    bool stays = false;  // all calls from there on fail, too
};

class FaultEnv final : public Env {
  public:
    // `root` is a real directory, and the disk's root. The store will be at `root / "store"`.
    FaultEnv(FaultDisk& disk, Path root, std::uint64_t seed);

    Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override;
    Result<PathType> type(const Path& path) override;
    Result<std::vector<std::string>> list(const Path& directory) override;
    Result<void> make_directory(const Path& path) override;
    Result<void> rename(const Path& from, const Path& to) override;
    Result<void> remove(const Path& path) override;
    Result<void> sync_directory(const Path& path) override;
    Result<std::unique_ptr<Lock>> lock(const Path& path, const LockWait& wait) override;
    Result<void> random(std::span<char> into) override;

    // Run on the owner's thread before each of its calls that changes something.
    std::function<void()> before_change;
    Failure failure;
    // The same for the other threads' calls.
    Failure background_failure;

    // Calls made by the owner, and those of the other threads.
    [[nodiscard]] std::uint64_t calls() const;
    [[nodiscard]] std::uint64_t background_calls() const;
    // The calls that `failure` or `background_failure` made fail.
    [[nodiscard]] std::uint64_t failed_calls() const;
    // No segment is being sealed, since sealing fails or what a sweep removed is not counted yet.
    bool sealer_stays_away = false;
    // What the owner's last call was: "write store/log/...".
    [[nodiscard]] std::string last_call() const;

    // Lets other threads' calls through; run by the owner before it waits for them.
    void let_others_run();
    // As a call that changes nothing and cannot fail. Another moment at which power may be lost,
    // and where the sealer waits.
    void pause();
    [[nodiscard]] CatalogCopies catalog_copies() const { return catalog_.possible(); }
    void look_at_catalog(bool delayed = false) { catalog_.look(delayed); }
    [[nodiscard]] const Path& root() const { return root_; }

  private:
    class OpenFile;

    // Notes a call, waits if another thread makes it, and gives the error that it must fail with.
    // `changes`: it is one before which power may be lost.
    [[nodiscard]] int enter(std::string_view action, const Path& path, bool changes);
    [[nodiscard]] int planned(const Failure& failure, std::uint64_t call);
    void before_owner_changes();
    void wait_for_owner(std::unique_lock<std::mutex>& lock);
    void meet_sealer();
    [[nodiscard]] Path below_root(const Path& path) const;
    [[nodiscard]] bool in_catalog(const Path& path) const;

    // Enters the call and runs `work`, which gives an errno, unless it has to fail.
    template <class Work>
    [[nodiscard]] Result<void> call(std::string_view action, const Path& path, bool changes,
                                    Work work);

    FaultDisk& disk_;
    const Path root_;
    const Path catalog_path_;
    const std::thread::id owner_ = std::this_thread::get_id();
    Random random_;
    CatalogWatch catalog_;

    mutable std::mutex mutex_;  // guards the disk and what follows
    std::condition_variable moved_;
    std::uint64_t calls_ = 0;
    std::uint64_t background_calls_ = 0;
    std::uint64_t failed_calls_ = 0;
    std::string last_call_;
    bool others_run_ = true;
    bool other_waits_ = false;
    bool segment_named_ = false;
    bool seal_expected_ = false;
};

}  // namespace dedup::test
